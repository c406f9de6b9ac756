//! The DCS API's errors: the one place of this door that knows status codes, and the table of the contract in code.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{auth::AuthError, fleet::FleetError, http::RequestId, task::TaskError};

/// An answer other than 200.
#[derive(Debug)]
pub enum DcsError {
    /// No credentials.
    NoToken,
    /// A signature, or its key, is not good.
    Signature(RequestId, String),
    /// Good credentials, of another project.
    OtherProject,
    /// The path's project id is none.
    ProjectFormat(String),
    /// The path's instance id is none.
    InstanceFormat,
    /// The role does not suffice.
    Forbidden,
    /// No such instance in this project.
    NoInstance,
    /// No such path.
    NoUrl,
    /// The path exists, the method does not.
    NoMethod,
    /// A query parameter is not good.
    Parameter(&'static str),
    /// Its operator has paused the instance.
    NotRunning,
    /// The body is larger than this API takes.
    TooLarge,
    /// The body could not be read.
    Body,
    /// Our own fault; the log says more.
    Internal,
}

impl DcsError {
    fn parts(&self) -> (StatusCode, &'static str, String) {
        let text = |status, code, message: &str| (status, code, message.to_owned());
        match self {
            Self::NoToken => text(StatusCode::UNAUTHORIZED, "DCS.1003", "No token in the request."),
            Self::OtherProject => text(StatusCode::UNAUTHORIZED, "DCS.1004", "Project ID does not match the token."),
            Self::ProjectFormat(hint) => {
                (StatusCode::BAD_REQUEST, "DCS.4002", format!("Invalid project ID format.{hint}"))
            }
            Self::InstanceFormat => text(StatusCode::BAD_REQUEST, "DCS.4061", "Invalid instance ID format."),
            Self::Forbidden => text(
                StatusCode::FORBIDDEN,
                "DCS.2003",
                "This role does not have the permission to perform this operation.",
            ),
            Self::NoInstance => text(StatusCode::NOT_FOUND, "DCS.3022", "This DCS instance does not exist."),
            Self::NoUrl => text(StatusCode::NOT_FOUND, "DCS.4001", "The requested URL does not exist."),
            Self::NoMethod => text(StatusCode::METHOD_NOT_ALLOWED, "DCS.5001", "This request method is not allowed."),
            Self::Parameter(name) => (StatusCode::BAD_REQUEST, "DCS.4800", format!("Invalid {name} in the request.")),
            Self::NotRunning => text(StatusCode::BAD_REQUEST, "DCS.4049", "The instance status is not running."),
            Self::TooLarge => text(StatusCode::PAYLOAD_TOO_LARGE, "DCS.4005", "The message body is larger than 1 MiB."),
            Self::Body => text(
                StatusCode::BAD_REQUEST,
                "DCS.4005",
                "The message body contains invalid characters or is not in JSON format.",
            ),
            Self::Internal => text(StatusCode::INTERNAL_SERVER_ERROR, "DCS.5000", "Internal service error."),
            Self::Signature(..) => text(StatusCode::UNAUTHORIZED, "APIGW.0301", ""),
        }
    }
}

impl IntoResponse for DcsError {
    fn into_response(self) -> Response {
        let (status, code, message) = self.parts();
        let body = match &self {
            // Signature failures answer as the gateway in front of the real API does.
            Self::Signature(request_id, detail) => json!({
                "error_msg": format!("Incorrect IAM authentication information: {detail}"),
                "error_code": code,
                "request_id": request_id.0,
            }),
            _ => json!({ "error_code": code, "error_msg": message, "error_ext_msg": null }),
        };
        (status, Json(body)).into_response()
    }
}

impl DcsError {
    /// What an authentication failure looks like at this door.
    pub fn from_auth(error: AuthError, request_id: &RequestId) -> Self {
        match error {
            AuthError::Missing => Self::NoToken,
            AuthError::Signature(error) => Self::Signature(request_id.clone(), error.to_string()),
            AuthError::Key => Self::Signature(request_id.clone(), "verify aksk signature fail".into()),
            AuthError::Fleet(error) => error.into(),
        }
    }
}

impl From<FleetError> for DcsError {
    fn from(error: FleetError) -> Self {
        tracing::error!(%error, "a request failed");
        Self::Internal
    }
}

impl From<TaskError> for DcsError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Paused => Self::NotRunning,
            TaskError::Store(error) => {
                tracing::error!(%error, "a request failed");
                Self::Internal
            }
        }
    }
}
