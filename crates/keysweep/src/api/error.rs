//! The errors of keysweep's own API: the one place of this door that knows status codes.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{auth::AuthError, http::BodyError, task::TaskError};

/// An answer other than 200: `{"error":{"code","message"}}`.
#[derive(Debug)]
pub enum ApiError {
    /// No credentials, or none that are good for this project.
    Unauthorized(String),
    /// The body is larger than this API takes, or broke off.
    Body(BodyError),
    /// No such thing in this project.
    NotFound(&'static str),
    /// Our own fault; the log says more.
    Internal,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::Unauthorized(detail) => (StatusCode::UNAUTHORIZED, "unauthorized", detail),
            Self::Body(BodyError::TooLarge) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than 1 MiB".into())
            }
            Self::Body(BodyError::Broken) => (StatusCode::BAD_REQUEST, "bad_body", "the body could not be read".into()),
            Self::NotFound(what) => {
                (StatusCode::NOT_FOUND, "not_found", format!("there is no such {what} in this project"))
            }
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error; the service's log says more".into())
            }
        };
        (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Fleet(error) => {
                tracing::error!(%error, "a request failed");
                Self::Internal
            }
            AuthError::Missing => Self::Unauthorized("sign the request with an access key (SDK-HMAC-SHA256)".into()),
            AuthError::Signature(error) => Self::Unauthorized(error.to_string()),
            AuthError::Key => Self::Unauthorized("verify aksk signature fail".into()),
        }
    }
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        tracing::error!(%error, "a request failed");
        Self::Internal
    }
}
