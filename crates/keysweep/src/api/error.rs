//! The errors of keysweep's own API: the one place of this door that knows status codes.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{RefOr, Response as Documented},
};

use crate::{
    auth::{AuthError, NOT_LOCAL, Refusal},
    fleet::{ESTIMATE_PATIENCE, EstimateError, FleetError},
    http::{BodyError, refusals, retry_after},
    model::Role,
    task::TaskError,
};

/// The status of something that was made.
pub const CREATED: StatusCode = StatusCode::CREATED;
/// The status of something that was done and leaves nothing to show.
pub const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;

/// A refusal.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorView {
    error: ErrorDetail,
}

/// What was refused, and why.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs, for example `not_found`.
    code: &'static str,
    /// For people.
    message: String,
}

/// What an operation on a project may refuse with, for the document.
pub struct OnProject;

impl IntoResponses for OnProject {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        refusals("ErrorView", &[400, 401, 403, 413, 500])
    }
}

/// What an operation on a task or an instance may refuse with.
pub struct OnSubject;

impl IntoResponses for OnSubject {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        refusals("ErrorView", &[400, 401, 403, 404, 413, 500])
    }
}

/// What an operation may refuse with that changes which instances there are, or their names.
pub struct OnChange;

impl IntoResponses for OnChange {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        refusals("ErrorView", &[400, 401, 403, 404, 409, 413, 500])
    }
}

/// What an operation may refuse with that asks an instance's server and has no answer without it.
pub struct OnServer;

impl IntoResponses for OnServer {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        refusals("ErrorView", &[400, 401, 403, 404, 409, 413, 429, 500])
    }
}

/// An answer other than 200: `{"error":{"code","message"}}`.
#[derive(Debug)]
pub enum ApiError {
    /// No credentials, or none that are good for this project.
    Unauthorized(String),
    /// The body is larger than this API takes, or broke off.
    Body(BodyError),
    /// No such thing in this project.
    NotFound(&'static str),
    /// No such path.
    NoUrl,
    /// The path exists, the method does not.
    NoMethod,
    /// Without authentication: not from this machine to this machine.
    NotLocal,
    /// The role does not suffice.
    Forbidden(Role),
    /// An id in the path is none, or a parameter is not good.
    Invalid(String),
    /// A name is taken, or something else stands in the way.
    Conflict(String),
    /// The instance's server stands in the way: it cannot be reached, or does not let itself be asked.
    Server(String),
    /// Too much of it at a time; how long it is good to wait.
    TooMany(String, Duration),
    /// Our own fault; the log says more.
    Internal,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut wait = None;
        let (status, code, message) = match self {
            Self::Unauthorized(detail) => (StatusCode::UNAUTHORIZED, "unauthorized", detail),
            Self::Body(BodyError::TooLarge) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than 1 MiB".into())
            }
            Self::Body(BodyError::Broken) => (StatusCode::BAD_REQUEST, "bad_body", "the body could not be read".into()),
            Self::NotFound(what) => {
                (StatusCode::NOT_FOUND, "not_found", format!("there is no such {what} in this project"))
            }
            Self::NoUrl => (StatusCode::NOT_FOUND, "no_such_url", "there is no such path in this API".into()),
            Self::NoMethod => {
                (StatusCode::METHOD_NOT_ALLOWED, "no_such_method", "this path does not have this method".into())
            }
            Self::NotLocal => (StatusCode::FORBIDDEN, "not_local", NOT_LOCAL.into()),
            Self::Forbidden(needed) => (
                StatusCode::FORBIDDEN,
                "forbidden",
                format!("this needs the role {needed} on the project; an admin of it can grant it"),
            ),
            Self::Conflict(detail) => (StatusCode::CONFLICT, "conflict", detail),
            Self::Server(detail) => (StatusCode::CONFLICT, "server", detail),
            Self::TooMany(detail, until) => {
                wait = Some(until);
                (StatusCode::TOO_MANY_REQUESTS, "too_many", detail)
            }
            Self::Invalid(detail) => (StatusCode::BAD_REQUEST, "invalid", detail),
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error; the service's log says more".into())
            }
        };
        retry_after(wait, (status, Json(ErrorView { error: ErrorDetail { code, message } })))
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
            AuthError::Missing => Self::Unauthorized(
                "sign the request with an access key (SDK-HMAC-SHA256), or send a token in X-Auth-Token".into(),
            ),
            other => Self::Unauthorized(other.to_string()),
        }
    }
}

impl From<FleetError> for ApiError {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Invalid { .. } | FleetError::Url(_) | FleetError::Reach(_) | FleetError::Password => {
                Self::Invalid(error.to_string())
            }
            FleetError::Taken { .. } | FleetError::InUse { .. } => Self::Conflict(error.to_string()),
            FleetError::Unknown { what, .. } => Self::NotFound(what),
            FleetError::Gone(what) => Self::NotFound(what),
            other => {
                tracing::error!(error = %other, "a request failed");
                Self::Internal
            }
        }
    }
}

impl From<EstimateError> for ApiError {
    fn from(error: EstimateError) -> Self {
        match error {
            EstimateError::Fleet(FleetError::Target { .. }) | EstimateError::Server(_) | EstimateError::TooLong => {
                Self::Server(error.to_string())
            }
            EstimateError::Busy => Self::TooMany(error.to_string(), ESTIMATE_PATIENCE),
            EstimateError::Fleet(error) => error.into(),
        }
    }
}

impl ApiError {
    /// What a refusal looks like at this door, where this role was needed.
    pub fn from_refusal(refusal: Refusal, needed: Role) -> Self {
        const ID: &str = "is no id: 32 hexadecimal digits or a UUID";
        match refusal {
            Refusal::ProjectFormat => Self::Invalid(format!("project_id {ID}")),
            Refusal::OtherProject => Self::Unauthorized("the credentials are not for this project".into()),
            Refusal::SubjectFormat => Self::Invalid(format!("what stands behind the project in the path {ID}")),
            Refusal::Role => Self::Forbidden(needed),
        }
    }
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        tracing::error!(%error, "a request failed");
        Self::Internal
    }
}
