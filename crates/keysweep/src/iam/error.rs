//! The errors of the IAM subset: the only file of this surface that knows status codes.

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
    identity::IdentityError,
    request::{BODY_DELAY, BodyError},
    surface::{DATABASE_DELAY, Unhandled, error_responses, retry_after},
};

/// Status of an answer that issued a token.
pub const CREATED: StatusCode = StatusCode::CREATED;
/// Status of an answer that revoked a token.
pub const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;

/// An error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IamError)]
pub struct ErrorView {
    error: ErrorDetail,
}

/// Message, code and title of an error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IamErrorDetail)]
pub struct ErrorDetail {
    message: String,
    code: u16,
    title: &'static str,
}

/// Documented errors of a sign-in.
pub struct OnSignIn;

impl IntoResponses for OnSignIn {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("IamError", &[400, 401, 403, 413, 429, 500, 503])
    }
}

/// Documented errors of an operation on a token.
pub struct OnToken;

impl IntoResponses for OnToken {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("IamError", &[400, 401, 403, 404, 413, 500, 503])
    }
}

/// Documented errors of a list.
pub struct OnList;

impl IntoResponses for OnList {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses("IamError", &[400, 401, 403, 413, 500, 503])
    }
}

/// An error answer: `{"error":{"message","code","title"}}`.
#[derive(Debug)]
pub enum IamError {
    /// The request is not as documented; says what is missing or not supported.
    Request(String),
    /// The request names no token.
    NoSubject,
    /// The body could not be read.
    Body(BodyError),
    /// The credentials are missing or invalid.
    Unauthorized(String),
    /// The caller has no such token.
    NotFound,
    /// Too many attempts; holds how long to wait.
    TooMany(String, Duration),
    /// The path is unknown.
    NoUrl,
    /// The path has no such method.
    NoMethod,
    /// Authentication is off, and the request is not from this machine to this machine.
    NotLocal,
    /// The database is away, or too many changes wait for it.
    Unavailable,
    /// The service failed; details are in its log.
    Internal,
}

impl IntoResponse for IamError {
    fn into_response(self) -> Response {
        let mut wait = None;
        let (status, message) = match self {
            Self::Request(what) => (StatusCode::BAD_REQUEST, what),
            Self::NoSubject => (StatusCode::BAD_REQUEST, "Name the token in X-Subject-Token.".into()),
            Self::Body(BodyError::TooLarge) => (StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 1 MiB.".into()),
            Self::Body(BodyError::Broken) => (StatusCode::BAD_REQUEST, "The body could not be read.".into()),
            Self::Body(BodyError::Busy) => {
                wait = Some(BODY_DELAY);
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Too many large bodies or answers are in progress at the moment; try again.".into(),
                )
            }
            Self::Unauthorized(message) => (StatusCode::UNAUTHORIZED, message),
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no such token of this user.".into()),
            Self::TooMany(message, until) => {
                wait = Some(until);
                (StatusCode::TOO_MANY_REQUESTS, message)
            }
            Self::NoUrl => (StatusCode::NOT_FOUND, "The requested URL does not exist.".into()),
            Self::NoMethod => (StatusCode::METHOD_NOT_ALLOWED, "This request method is not allowed.".into()),
            Self::NotLocal => (StatusCode::FORBIDDEN, NOT_LOCAL.into()),
            Self::Unavailable => {
                wait = Some(DATABASE_DELAY);
                let message = "The database does not take this request at the moment. Try again.";
                (StatusCode::SERVICE_UNAVAILABLE, message.into())
            }
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

impl From<Unhandled> for IamError {
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

impl From<IdentityError> for IamError {
    fn from(error: IdentityError) -> Self {
        tracing::error!(%error, "a request failed");
        if error.is_transient() { Self::Unavailable } else { Self::Internal }
    }
}

impl From<SignInError> for IamError {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Wrong | SignInError::OtherProject | SignInError::NoRole | SignInError::Token => {
                Self::Unauthorized(error.to_string())
            }
            SignInError::NoScope => Self::Request(error.to_string()),
            SignInError::TooMany(wait) | SignInError::Queue(wait) => Self::TooMany(error.to_string(), wait),
            SignInError::Identity(error) => error.into(),
        }
    }
}

impl From<AuthError> for IamError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Body(error) => error.into(),
            AuthError::Identity(error) => error.into(),
            AuthError::Missing => {
                Self::Unauthorized("Send a token in X-Auth-Token, or sign the request with an access key.".into())
            }
            other => Self::Unauthorized(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::RETRY_AFTER;

    use super::*;
    use crate::store::StoreError;

    #[test]
    fn a_database_that_is_away_or_busy_says_when_to_try_again() {
        for cause in [StoreError::Busy, StoreError::Unavailable("no answer within 3 s".into())] {
            let answer = IamError::from(IdentityError::Store(cause)).into_response();
            assert_eq!((answer.status().as_u16(), answer.headers()[RETRY_AFTER].as_bytes()), (503, &b"1"[..]));
        }
        let answer = IamError::from(IdentityError::Hash("no memory".into())).into_response();
        assert_eq!((answer.status().as_u16(), answer.headers().get(RETRY_AFTER)), (500, None));
    }
}
