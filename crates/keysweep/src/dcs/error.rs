//! The DCS API's errors: the one place of this door that knows status codes, and the table of the contract in code.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{RefOr, Response as Documented},
};

use crate::{
    auth::{AuthError, NOT_LOCAL},
    fleet::FleetError,
    http::{RequestId, refusals},
    task::TaskError,
};

/// A refusal. Those of signatures carry `request_id`, as the gateway's do, and no `error_ext_msg`.
#[derive(Debug, ToSchema)]
#[schema(as = DcsError)]
#[allow(dead_code, reason = "it stands in the document for the two shapes")]
pub struct ErrorView {
    /// For example DCS.3022.
    error_code: String,
    error_msg: String,
    error_ext_msg: Option<String>,
    request_id: Option<String>,
}

/// What an operation on a project may refuse with, for the document.
pub struct OnProject;

impl IntoResponses for OnProject {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        refusals("DcsError", &[400, 401, 403, 413, 500])
    }
}

/// What an operation on an instance may refuse with.
pub struct OnInstance;

impl IntoResponses for OnInstance {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        refusals("DcsError", &[400, 401, 403, 404, 413, 500])
    }
}

/// An answer other than 200.
#[derive(Debug)]
pub enum DcsError {
    /// The token is none.
    Token,
    /// The token has ended.
    TokenExpired,
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
    /// Without authentication: not from this machine to this machine.
    NotLocal,
    /// A query parameter is not good.
    Parameter(&'static str),
    /// When enabling auto-scan: `first_scan_at`.
    FirstScanAt,
    /// When enabling auto-scan: `interval`.
    Interval,
    /// When enabling auto-scan: `timeout`.
    Timeout,
    /// When enabling auto-scan: `scan_keys_count`.
    ScanKeysCount,
    /// The server is none that can be swept.
    Unsupported,
    /// Its operator has paused the instance.
    NotRunning,
    /// There must be a body and there is none.
    EmptyBody,
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
            Self::Token => text(StatusCode::UNAUTHORIZED, "DCS.1001", "Invalid token."),
            Self::TokenExpired => text(StatusCode::UNAUTHORIZED, "DCS.1002", "Token expired."),
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
            Self::NotLocal => text(StatusCode::FORBIDDEN, "DCS.2003", NOT_LOCAL),
            Self::NoInstance => text(StatusCode::NOT_FOUND, "DCS.3022", "This DCS instance does not exist."),
            Self::NoUrl => text(StatusCode::NOT_FOUND, "DCS.4001", "The requested URL does not exist."),
            Self::NoMethod => text(StatusCode::METHOD_NOT_ALLOWED, "DCS.5001", "This request method is not allowed."),
            Self::Parameter(name) => (StatusCode::BAD_REQUEST, "DCS.4800", format!("Invalid {name} in the request.")),
            Self::FirstScanAt => text(
                StatusCode::BAD_REQUEST,
                "DCS.4819",
                "The first_scan_at parameter is invalid. Its must be ISO format utc date-time. The time must be later than the current time.",
            ),
            Self::Interval => text(
                StatusCode::BAD_REQUEST,
                "DCS.4820",
                "The interval parameter is invalid. must Greater than or equal to 0.",
            ),
            Self::Timeout => text(
                StatusCode::BAD_REQUEST,
                "DCS.4821",
                "The timeout parameter is invalid. Its must Greater than or equal to interval * 2, if interval is 0, timeout must Greater than 1 second.",
            ),
            Self::ScanKeysCount => text(
                StatusCode::BAD_REQUEST,
                "DCS.4822",
                "The scan_keys_count parameter is invalid. Its must Greater than or equal to 10, and Less than or equal to 100000.",
            ),
            Self::Unsupported => text(StatusCode::BAD_REQUEST, "DCS.4818", "Do not support auto expire scan."),
            Self::EmptyBody => text(StatusCode::BAD_REQUEST, "DCS.4004", "Empty request body."),
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
    /// The code, as the answer carries it.
    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.parts().1
    }

    /// What an authentication failure looks like at this door.
    pub fn from_auth(error: AuthError, request_id: &RequestId) -> Self {
        match error {
            AuthError::Missing => Self::NoToken,
            AuthError::Signature(_) | AuthError::Locked | AuthError::Repeated => {
                Self::Signature(request_id.clone(), error.to_string())
            }
            AuthError::Token => Self::Token,
            AuthError::TokenExpired => Self::TokenExpired,
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
