//! The DCS API's errors: the only file of this surface that knows status codes, and the contract's error table in code.

use std::{collections::BTreeMap, time::Duration};

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
    auth::{AuthError, Denied, NOT_LOCAL},
    identity::IdentityError,
    instances::InstanceError,
    request::{BodyError, RequestId},
    surface::{DATABASE_DELAY, Unhandled, error_responses, retry_after},
    task::TaskError,
};

/// An error. Signature errors carry `request_id`, like those of the API gateway, and no `error_ext_msg`.
#[derive(Debug, ToSchema)]
#[schema(as = DcsError)]
#[allow(dead_code, reason = "documents both shapes")]
pub struct ErrorView {
    /// For example DCS.3022.
    error_code: String,
    error_msg: String,
    error_ext_msg: Option<String>,
    request_id: Option<String>,
}

/// Documented errors of an operation on a project.
pub struct OnProject;

impl IntoResponses for OnProject {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("DcsError", &[400, 401, 403, 413, 500])
    }
}

/// Documented errors of an operation on an instance.
pub struct OnInstance;

impl IntoResponses for OnInstance {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("DcsError", &[400, 401, 403, 404, 413, 500])
    }
}

/// A row of the error table.
#[derive(Debug)]
pub enum DcsError {
    /// The token is unknown.
    Token,
    /// The token has expired.
    TokenExpired,
    /// The request has no credentials.
    NoToken,
    /// The signature or its access key is not valid.
    Signature(RequestId, String),
    /// The credentials are for another project.
    OtherProject,
    /// The project id in the path is malformed; holds a hint.
    ProjectFormat(String),
    /// The instance id in the path is malformed.
    InstanceFormat,
    /// The caller's role is too low.
    Forbidden,
    /// The project has no such instance.
    NoInstance,
    /// The path is unknown.
    NoUrl,
    /// The path has no such method.
    NoMethod,
    /// Authentication is off, and the request is not from this machine to this machine.
    NotLocal,
    /// A parameter is invalid.
    Parameter(&'static str),
    /// When enabling auto-scan: `first_scan_at`.
    FirstScanAt,
    /// When enabling auto-scan: `interval`.
    Interval,
    /// When enabling auto-scan: `timeout`.
    Timeout,
    /// When enabling auto-scan: `scan_keys_count`.
    ScanKeysCount,
    /// The server cannot be scanned.
    Unsupported,
    /// The instance is paused.
    NotRunning,
    /// The body is empty.
    EmptyBody,
    /// The body is larger than 1 MiB.
    TooLarge,
    /// The body could not be read or is not a JSON object.
    Body,
    /// The service failed; details are in its log. With a time after which to try again where the database is away, or too many
    /// changes wait for it: the API has no status of its own for that.
    Internal(Option<Duration>),
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
            Self::Internal(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "DCS.5000", "Internal service error."),
            Self::Signature(..) => text(StatusCode::UNAUTHORIZED, "APIGW.0301", ""),
        }
    }
}

impl IntoResponse for DcsError {
    fn into_response(self) -> Response {
        let (status, code, message) = self.parts();
        let body = match &self {
            // The gateway in front of the real API answers signature errors itself, in this shape.
            Self::Signature(request_id, detail) => json!({
                "error_msg": format!("Incorrect IAM authentication information: {detail}"),
                "error_code": code,
                "request_id": request_id.0,
            }),
            _ => json!({ "error_code": code, "error_msg": message, "error_ext_msg": null }),
        };
        let wait = match self {
            Self::Internal(wait) => wait,
            _ => None,
        };
        retry_after(wait, (status, Json(body)))
    }
}

impl DcsError {
    /// Returns the code in the answer.
    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.parts().1
    }

    /// Returns the error of a request that was denied.
    pub(super) fn from_denied(denied: Denied, request_id: RequestId) -> Self {
        match denied {
            Denied::Credentials(error) => Self::from_auth(error, request_id),
            Denied::Path => Self::NoUrl,
            Denied::ProjectFormat { project_id } => Self::ProjectFormat(project_hint(&project_id)),
            Denied::OtherProject => Self::OtherProject,
            Denied::SubjectFormat => Self::InstanceFormat,
            Denied::Role { .. } => Self::Forbidden,
            Denied::NoInstance => Self::NoInstance,
            Denied::Instance(error) => error.into(),
        }
    }

    /// Logs a failure of the service, and returns what the client learns of it.
    fn failed(error: &dyn std::error::Error, is_transient: bool) -> Self {
        tracing::error!(%error, "a request failed");
        Self::Internal(is_transient.then_some(DATABASE_DELAY))
    }

    fn from_auth(error: AuthError, request_id: RequestId) -> Self {
        match error {
            AuthError::Body(BodyError::TooLarge) => Self::TooLarge,
            AuthError::Body(BodyError::Broken) => Self::Body,
            AuthError::Body(BodyError::Busy) => Self::Internal(None),
            AuthError::Missing => Self::NoToken,
            AuthError::Signature(_) | AuthError::Locked | AuthError::Repeated => {
                Self::Signature(request_id, error.to_string())
            }
            AuthError::Token => Self::Token,
            AuthError::TokenExpired => Self::TokenExpired,
            AuthError::Identity(error) => error.into(),
        }
    }
}

/// Returns an explanation for clients that send the placeholder itself because they were given no project id.
fn project_hint(project_id: &str) -> String {
    match project_id.starts_with('{') {
        true => " The path holds a placeholder where the project ID belongs: give your client the project ID.".into(),
        false => String::new(),
    }
}

impl From<Unhandled> for DcsError {
    fn from(cause: Unhandled) -> Self {
        match cause {
            Unhandled::UnknownPath => Self::NoUrl,
            Unhandled::UnknownMethod => Self::NoMethod,
            Unhandled::NotLocal => Self::NotLocal,
            Unhandled::NoMemory => Self::Internal(Some(DATABASE_DELAY)),
            Unhandled::Panicked => Self::Internal(None),
        }
    }
}

impl From<IdentityError> for DcsError {
    fn from(error: IdentityError) -> Self {
        Self::failed(&error, error.is_transient())
    }
}

impl From<InstanceError> for DcsError {
    fn from(error: InstanceError) -> Self {
        match error {
            InstanceError::Unsupported { .. } => Self::Unsupported,
            InstanceError::Gone("instance") => Self::NoInstance,
            other => Self::failed(&other, other.is_transient()),
        }
    }
}

impl From<TaskError> for DcsError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Paused => Self::NotRunning,
            TaskError::Unsupported { .. } => Self::Unsupported,
            TaskError::NoInstance => Self::NoInstance,
            other => Self::failed(&other, other.is_transient()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::RETRY_AFTER;
    use rstest::rstest;

    use super::*;
    use crate::store::StoreError;

    fn away() -> StoreError {
        StoreError::Unavailable("no answer within 3 s".into())
    }

    /// Clients of DCS know 500 alone, and none of them sleeps for minutes after it.
    #[rstest]
    #[case::busy(InstanceError::Store(StoreError::Busy).into(), "DCS.5000", Some("1"))]
    #[case::away(TaskError::Store(away()).into(), "DCS.5000", Some("1"))]
    #[case::a_fault(InstanceError::Store(StoreError::Internal("no such table".into())).into(), "DCS.5000", None)]
    #[case::a_removed_instance(InstanceError::Gone("instance").into(), "DCS.3022", None)]
    #[case::a_task_of_a_removed_instance(TaskError::from(StoreError::Missing("instance")).into(), "DCS.3022", None)]
    fn what_the_store_could_not_do_is_an_error_of_the_table(
        #[case] error: DcsError,
        #[case] code: &str,
        #[case] wait: Option<&str>,
    ) {
        assert_eq!(error.code(), code);
        let answer = error.into_response();
        assert_eq!(answer.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()), wait);
    }
}
