//! The errors of the IAM subset: the one place of this door that knows status codes.

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
    auth::{AuthError, NOT_LOCAL, SignInError},
    fleet::FleetError,
    http::{BodyError, refusals, retry_after},
};

/// The status of a token that was issued.
pub const CREATED: StatusCode = StatusCode::CREATED;
/// The status of a token that was revoked.
pub const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;

/// A refusal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IamError)]
pub struct ErrorView {
    error: ErrorDetail,
}

/// What was refused, and why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IamErrorDetail)]
pub struct ErrorDetail {
    message: String,
    code: u16,
    title: &'static str,
}

/// What signing in may be refused with, for the document.
pub struct OnSignIn;

impl IntoResponses for OnSignIn {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        refusals("IamError", &[400, 401, 403, 413, 429, 500])
    }
}

/// What an operation on a token may refuse with.
pub struct OnToken;

impl IntoResponses for OnToken {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        refusals("IamError", &[400, 401, 403, 404, 413, 500])
    }
}

/// What a list may be refused with.
pub struct OnList;

impl IntoResponses for OnList {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        refusals("IamError", &[400, 401, 403, 413, 500])
    }
}

/// An answer other than a good one: `{"error":{"message","code","title"}}`.
#[derive(Debug)]
pub enum IamError {
    /// The body is not what is documented; says what is missing.
    Request(&'static str),
    /// The body is larger than this API takes, or broke off.
    Body(BodyError),
    /// Credentials that are not good, or none.
    Unauthorized(String),
    /// Somebody else's token.
    NotFound,
    /// Too many attempts; how long it is good to wait.
    TooMany(String, Duration),
    /// No such path.
    NoUrl,
    /// The path exists, the method does not.
    NoMethod,
    /// Without authentication: not from this machine to this machine.
    NotLocal,
    /// Our own fault; the log says more.
    Internal,
}

impl IntoResponse for IamError {
    fn into_response(self) -> Response {
        let mut wait = None;
        let (status, message) = match self {
            Self::Request(what) => (StatusCode::BAD_REQUEST, what.to_owned()),
            Self::Body(BodyError::TooLarge) => (StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 1 MiB.".into()),
            Self::Body(BodyError::Broken) => (StatusCode::BAD_REQUEST, "The body could not be read.".into()),
            Self::Unauthorized(message) => (StatusCode::UNAUTHORIZED, message),
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no such token of this user.".into()),
            Self::TooMany(message, until) => {
                wait = Some(until);
                (StatusCode::TOO_MANY_REQUESTS, message)
            }
            Self::NoUrl => (StatusCode::NOT_FOUND, "The requested URL does not exist.".into()),
            Self::NoMethod => (StatusCode::METHOD_NOT_ALLOWED, "This request method is not allowed.".into()),
            Self::NotLocal => (StatusCode::FORBIDDEN, NOT_LOCAL.into()),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal service error.".into()),
        };
        let title = status.canonical_reason().unwrap_or_default();
        retry_after(wait, (status, Json(ErrorView { error: ErrorDetail { message, code: status.as_u16(), title } })))
    }
}

impl From<BodyError> for IamError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<FleetError> for IamError {
    fn from(error: FleetError) -> Self {
        tracing::error!(%error, "a request failed");
        Self::Internal
    }
}

impl From<SignInError> for IamError {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Wrong | SignInError::OtherProject => Self::Unauthorized(error.to_string()),
            SignInError::NoScope => {
                Self::Request("Name the project in auth.scope.project: the user has no role, or roles on several.")
            }
            SignInError::TooMany(wait) | SignInError::Queue(wait) => Self::TooMany(error.to_string(), wait),
            SignInError::Fleet(error) => error.into(),
        }
    }
}

impl From<AuthError> for IamError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Fleet(error) => error.into(),
            AuthError::Missing => {
                Self::Unauthorized("Send a token in X-Auth-Token, or sign the request with an access key.".into())
            }
            other => Self::Unauthorized(other.to_string()),
        }
    }
}
