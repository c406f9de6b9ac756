//! The errors of the native API: the only file of this surface that knows status codes.

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
    auth::{AuthError, Denied, NOT_LOCAL},
    hold::HoldError,
    identity::IdentityError,
    instances::{ESTIMATE_TIMEOUT, EstimateError, InstanceError, InventoryPlanError, SurveyError},
    model::{InvalidField, Role, UnknownName},
    request::{BODY_DELAY, BodyError},
    surface::{DATABASE_DELAY, Unhandled, error_responses, retry_after},
    task::TaskError,
};

/// Status of an answer that created an object.
pub const CREATED: StatusCode = StatusCode::CREATED;
/// Status of an answer without a body.
pub const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorView {
    error: ErrorDetail,
}

/// Code and message of an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs, for example `not_found`.
    code: &'static str,
    /// For people.
    message: String,
}

/// Documented errors of an operation on a project.
pub struct OnProject;

impl IntoResponses for OnProject {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("ErrorView", &[400, 401, 403, 413, 500, 503])
    }
}

/// Documented errors of an operation on a task or an instance.
pub struct OnSubject;

impl IntoResponses for OnSubject {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("ErrorView", &[400, 401, 403, 404, 413, 500, 503])
    }
}

/// Documented errors of an event stream.
pub struct OnStream;

impl IntoResponses for OnStream {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("ErrorView", &[400, 401, 403, 404, 413, 429, 500, 503])
    }
}

/// Documented errors of a poll on request.
pub struct OnPoll;

impl IntoResponses for OnPoll {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        OnStream::responses()
    }
}

/// Documented errors of an operation that adds, removes or renames instances.
pub struct OnChange;

impl IntoResponses for OnChange {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("ErrorView", &[400, 401, 403, 404, 409, 413, 500, 503])
    }
}

/// Documented errors of an operation that needs an answer of an instance's server.
pub struct OnServer;

impl IntoResponses for OnServer {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("ErrorView", &[400, 401, 403, 404, 409, 413, 429, 500, 503])
    }
}

/// An error answer: `{"error":{"code","message"}}`.
#[derive(Debug)]
pub enum ApiError {
    /// The request has no credentials, or none that are valid for this project.
    Unauthorized(String),
    /// The body could not be read.
    Body(BodyError),
    /// The project has no such object.
    NotFound(&'static str),
    /// The path is unknown.
    NoUrl,
    /// The path has no such method.
    NoMethod,
    /// Authentication is off, and the request is not from this machine to this machine.
    NotLocal,
    /// The caller's role is too low; holds the role that suffices.
    Forbidden(Role),
    /// An id in the path, a parameter or the body is invalid.
    Invalid(String),
    /// A name is taken, or an active task prevents the change.
    Conflict(String),
    /// The instance's server is unreachable or refuses the commands that the operation needs.
    Server(String),
    /// Too many such requests are being served; holds how long to wait.
    TooMany(String, Duration),
    /// The database is away, or too many changes wait for it.
    Unavailable,
    /// The service failed; details are in its log.
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
            Self::Body(error @ BodyError::Busy) => {
                wait = Some(BODY_DELAY);
                (StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string())
            }
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
            Self::Unavailable => {
                wait = Some(DATABASE_DELAY);
                let message = "the database does not take this request at the moment; try again";
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", message.into())
            }
            Self::Invalid(detail) => (StatusCode::BAD_REQUEST, "invalid", detail),
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error; the service's log says more".into())
            }
        };
        retry_after(wait, (status, Json(ErrorView { error: ErrorDetail { code, message } })))
    }
}

impl From<Unhandled> for ApiError {
    fn from(cause: Unhandled) -> Self {
        match cause {
            Unhandled::UnknownPath => Self::NoUrl,
            Unhandled::UnknownMethod => Self::NoMethod,
            Unhandled::NotLocal => Self::NotLocal,
            Unhandled::NoMemory => Self::Body(BodyError::Busy),
            Unhandled::Panicked => Self::Internal,
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        const ID: &str = "is no id: 32 hexadecimal digits or a UUID";
        match denied {
            Denied::Credentials(error) => error.into(),
            Denied::Path => Self::NoUrl,
            Denied::ProjectFormat { .. } => Self::Invalid(format!("project_id {ID}")),
            Denied::OtherProject => Self::Unauthorized("the credentials are not for this project".into()),
            Denied::SubjectFormat => Self::Invalid(format!("what stands behind the project in the path {ID}")),
            Denied::Role { needed, .. } => Self::Forbidden(needed),
            Denied::NoInstance => Self::NotFound("instance"),
            Denied::Instance(error) => error.into(),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Body(error) => Self::Body(error),
            AuthError::Identity(error) => error.into(),
            AuthError::Missing => Self::Unauthorized(
                "sign the request with an access key (SDK-HMAC-SHA256), or send a token in X-Auth-Token".into(),
            ),
            other => Self::Unauthorized(other.to_string()),
        }
    }
}

impl ApiError {
    /// Logs a failure of the service, and returns what the client learns of it.
    fn failed(error: &dyn std::error::Error, is_transient: bool) -> Self {
        tracing::error!(%error, "a request failed");
        if is_transient { Self::Unavailable } else { Self::Internal }
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        Self::failed(&error, error.is_transient())
    }
}

impl From<InstanceError> for ApiError {
    fn from(error: InstanceError) -> Self {
        match error {
            InstanceError::Invalid(_) | InstanceError::Url(_) | InstanceError::Connection(_) => {
                Self::Invalid(error.to_string())
            }
            InstanceError::Taken { .. }
            | InstanceError::InUse(_)
            | InstanceError::Held(_)
            | InstanceError::Unsupported { .. } => Self::Conflict(error.to_string()),
            InstanceError::Unreadable { .. } => Self::Server(error.to_string()),
            InstanceError::Unknown { what, .. } => Self::NotFound(what),
            InstanceError::Gone(what) => Self::NotFound(what),
            other => Self::failed(&other, other.is_transient()),
        }
    }
}

impl From<InvalidField> for ApiError {
    fn from(error: InvalidField) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<UnknownName> for ApiError {
    fn from(error: UnknownName) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<HoldError> for ApiError {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Policy(error) => Self::Invalid(error.to_string()),
            HoldError::Instance(error) => error.into(),
            HoldError::File(_) => Self::Server("restore.json cannot be read; the log says why".to_owned()),
        }
    }
}

impl From<EstimateError> for ApiError {
    fn from(error: EstimateError) -> Self {
        match error {
            EstimateError::Server(_) | EstimateError::TooLong => Self::Server(error.to_string()),
            EstimateError::Busy(_) => Self::TooMany(error.to_string(), ESTIMATE_TIMEOUT),
            EstimateError::TooSoon(wait) => Self::TooMany(error.to_string(), wait),
            EstimateError::Instance(error) => error.into(),
        }
    }
}

impl From<InventoryPlanError> for ApiError {
    fn from(error: InventoryPlanError) -> Self {
        match error {
            InventoryPlanError::Entries(_) | InventoryPlanError::TooMany(_) => Self::Invalid(error.to_string()),
            InventoryPlanError::Outdated => Self::Conflict(error.to_string()),
            InventoryPlanError::Instance(error) => error.into(),
        }
    }
}

impl From<SurveyError> for ApiError {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Target(_) | SurveyError::Nothing | SurveyError::TooMany(_) => Self::Invalid(error.to_string()),
            SurveyError::Running(_) => Self::Conflict(error.to_string()),
            SurveyError::Instance(error) => error.into(),
        }
    }
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::NoInstance => Self::NotFound("instance"),
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

    #[rstest]
    #[case::of_the_instances(InstanceError::Store(StoreError::Busy).into(), 503)]
    #[case::of_the_tasks(TaskError::Store(away()).into(), 503)]
    #[case::of_the_credentials(AuthError::Identity(IdentityError::Store(away())).into(), 503)]
    #[case::a_fault(InstanceError::Store(StoreError::Internal("no such table".into())).into(), 500)]
    #[case::a_removed_instance(InstanceError::Gone("instance").into(), 404)]
    #[case::a_task_of_a_removed_instance(TaskError::from(StoreError::Missing("instance")).into(), 404)]
    fn a_database_that_is_away_or_busy_says_when_to_try_again(#[case] error: ApiError, #[case] status: u16) {
        let answer = error.into_response();
        assert_eq!(answer.status(), status);
        let wait = answer.headers().get(RETRY_AFTER).map(|wait| wait.as_bytes().to_owned());
        assert_eq!(wait.as_deref(), (status == 503).then_some(&b"1"[..]));
    }
}
