//! The errors of the console: the only file of this surface that knows status codes.

use std::time::Duration;

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
};
use url::form_urlencoded;

use super::assets::assets_version;
use crate::{
    auth::{AuthError, Denied, NOT_LOCAL, SignInError},
    hold::HoldError,
    identity::IdentityError,
    instances::{InstanceError, SurveyError},
    model::Role,
    request::BodyError,
    surface::{DATABASE_DELAY, Unhandled, retry_after},
    task::TaskError,
    units::whole_seconds,
};

/// Status of a form that is shown again because a field is invalid.
pub(super) const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
/// Status of a list that names instances for which an action was not possible.
pub(super) const CONFLICT: StatusCode = StatusCode::CONFLICT;

/// An error page, or the redirect to the sign-in.
#[derive(Debug)]
pub enum ConsoleError {
    /// The browser has no session.
    SignIn {
        /// Path to show after the sign-in.
        next: String,
    },
    /// The form does not belong to this browser's session, or comes from another site.
    Stale,
    /// The body could not be read.
    Body(BodyError),
    /// The user has no role on any project.
    NoProject,
    /// The project has no such object, or the user has no role on the project.
    NotFound(&'static str),
    /// The user's role is too low.
    Forbidden {
        /// The lowest role that suffices.
        needed: Role,
        /// The project.
        project_id: String,
    },
    /// The object's state prevents the action; says why and what to do.
    Conflict(String),
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

#[derive(Template)]
#[template(path = "console/error.html")]
struct ErrorPage {
    assets: &'static str,
    title: &'static str,
    message: String,
    back: String,
}

impl IntoResponse for ConsoleError {
    fn into_response(self) -> Response {
        let home = || "/console".to_owned();
        let wait = matches!(self, Self::Unavailable).then_some(DATABASE_DELAY);
        let (status, title, message, back) = match self {
            Self::SignIn { next } => {
                let next: String = form_urlencoded::Serializer::new(String::new()).append_pair("next", &next).finish();
                return Redirect::to(&format!("/console/sign-in?{next}")).into_response();
            }
            Self::Stale => (
                StatusCode::FORBIDDEN,
                "Form expired",
                "The form belongs to another session or another site. Nothing was changed. Go back, reload the page and \
                 try again."
                    .into(),
                home(),
            ),
            Self::Body(BodyError::TooLarge) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "Request too large",
                "The request is larger than 1 MiB. Nothing was changed.".into(),
                home(),
            ),
            Self::Body(BodyError::Broken) => (
                StatusCode::BAD_REQUEST,
                "Request interrupted",
                "The connection closed before the form was complete. Nothing was changed; try again.".into(),
                home(),
            ),
            Self::Body(BodyError::Busy) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too busy",
                "Too many large requests or answers are in progress at the moment. Nothing was changed; try again.".into(),
                home(),
            ),
            Self::NoProject => (
                StatusCode::NOT_FOUND,
                "No project yet",
                "You have no role on any project. An operator adds one with: keysweep admin project add \
                 NAME, and grants roles with: keysweep admin user grant"
                    .into(),
                home(),
            ),
            Self::NotFound(what) => (
                StatusCode::NOT_FOUND,
                "Not found",
                format!("The {what} does not exist, or you have no role on its project."),
                home(),
            ),
            Self::Forbidden { needed, project_id } => (
                StatusCode::FORBIDDEN,
                "Permission denied",
                format!(
                    "This action requires the role {needed} on the project. Nothing was changed. An admin can grant it with: \
                     keysweep admin user grant"
                ),
                format!("/console/{project_id}/instances"),
            ),
            Self::Conflict(message) => (StatusCode::CONFLICT, "Not possible now", message, home()),
            Self::NoUrl => {
                (StatusCode::NOT_FOUND, "Not found", "The console has no page at this address.".into(), home())
            }
            Self::NoMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "This address of the console does not accept this method.".into(),
                home(),
            ),
            Self::NotLocal => (StatusCode::FORBIDDEN, "Local access only", NOT_LOCAL.into(), home()),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Database unavailable",
                "The database does not take this request at the moment. Wait a second, then try again. If it stays so, the \
                 service's log says why."
                    .into(),
                home(),
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal error",
                "The service's log has the details, under the request id in the response header X-Request-Id. Reload to \
                 try again."
                    .into(),
                home(),
            ),
        };
        let page = ErrorPage { assets: assets_version(), title, message, back };
        retry_after(wait, (status, rendered(&page)))
    }
}

/// Renders a page.
pub(super) fn rendered(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A failed sign-in, to show on the sign-in page.
pub(super) struct SignInFailure {
    status: StatusCode,
    /// One or two sentences.
    pub(super) message: String,
    wait: Option<Duration>,
}

impl SignInFailure {
    /// Returns the answer that shows the failure on a page.
    pub(super) fn on(self, page: Response) -> Response {
        retry_after(self.wait, (self.status, page))
    }
}

/// Returns what to show of a failed sign-in; fails if the service itself failed.
pub(super) fn sign_in_failure(error: SignInError) -> Result<SignInFailure, ConsoleError> {
    let denied = |status, message: &str| Ok(SignInFailure { status, message: message.to_owned(), wait: None });
    let later = |message, wait| Ok(SignInFailure { status: StatusCode::TOO_MANY_REQUESTS, message, wait: Some(wait) });
    match error {
        SignInError::Wrong => denied(StatusCode::UNAUTHORIZED, "The user name or the password is wrong."),
        SignInError::TooMany(wait) => {
            later(format!("Too many attempts. Wait {} s, then try again.", whole_seconds(wait)), wait)
        }
        SignInError::Queue(wait) => later("Too many sign-ins at the moment. Try again.".to_owned(), wait),
        SignInError::NoScope | SignInError::NoRole | SignInError::OtherProject | SignInError::Token => denied(
            StatusCode::FORBIDDEN,
            "You have no role on any project. An admin can grant one with: keysweep admin user grant",
        ),
        SignInError::Identity(error) => Err(error.into()),
    }
}

impl From<Unhandled> for ConsoleError {
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

impl From<Denied> for ConsoleError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Credentials(AuthError::Body(error)) => error.into(),
            Denied::Credentials(AuthError::Identity(error)) => error.into(),
            Denied::Instance(error) => error.into(),
            // The console's credentials are sessions: without a valid one the user signs in.
            Denied::Credentials(_) => Self::SignIn { next: "/console".into() },
            Denied::Path => Self::NoUrl,
            Denied::ProjectFormat { .. } | Denied::OtherProject => Self::NotFound("project"),
            Denied::SubjectFormat => Self::NotFound("page"),
            Denied::Role { needed, project_id } => Self::Forbidden { needed, project_id },
            Denied::NoInstance => Self::NotFound("instance"),
        }
    }
}

impl From<BodyError> for ConsoleError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl ConsoleError {
    /// Logs a failure of the service, and returns what the user learns of it.
    fn failed(error: &dyn std::error::Error, is_transient: bool) -> Self {
        tracing::error!(%error, "a request failed");
        if is_transient { Self::Unavailable } else { Self::Internal }
    }
}

impl From<IdentityError> for ConsoleError {
    fn from(error: IdentityError) -> Self {
        Self::failed(&error, error.is_transient())
    }
}

impl From<HoldError> for ConsoleError {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Policy(error) => Self::Conflict(error.to_string()),
            HoldError::Instance(error) => error.into(),
            HoldError::File(_) => Self::Conflict("restore.json cannot be read; the log says why".to_owned()),
        }
    }
}

impl From<InstanceError> for ConsoleError {
    fn from(error: InstanceError) -> Self {
        match error {
            InstanceError::Gone(what) => Self::NotFound(what),
            InstanceError::Unknown { what, .. } => Self::NotFound(what),
            InstanceError::InUse(_) | InstanceError::Held(_) | InstanceError::Unsupported { .. } => {
                Self::Conflict(error.to_string())
            }
            other => Self::failed(&other, other.is_transient()),
        }
    }
}

impl From<SurveyError> for ConsoleError {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Instance(error) => error.into(),
            other => Self::Conflict(other.to_string()),
        }
    }
}

impl From<TaskError> for ConsoleError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Paused | TaskError::Unsupported { .. } => Self::Conflict(error.to_string()),
            TaskError::NoInstance => Self::NotFound("instance"),
            TaskError::Store(error) => InstanceError::from(error).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::store::StoreError;

    #[test]
    fn a_database_that_is_away_or_busy_is_a_page_that_says_when_to_try_again() {
        for cause in [StoreError::Busy, StoreError::Unavailable("no answer within 3 s".into())] {
            let answer = ConsoleError::from(InstanceError::Store(cause)).into_response();
            assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
        }
        let answer = ConsoleError::from(TaskError::from(StoreError::Missing("instance"))).into_response();
        assert_eq!((answer.status().as_u16(), answer.headers().get("retry-after")), (404, None));
    }

    #[rstest]
    #[case::a_lock(SignInError::TooMany(Duration::from_secs(1)), "Too many attempts. Wait 1 s, then try again.")]
    #[case::a_queue(SignInError::Queue(Duration::from_secs(1)), "Too many sign-ins at the moment. Try again.")]
    fn the_last_second_of_a_lock_is_not_reported_as_a_queue(#[case] error: SignInError, #[case] sentence: &str) {
        let failure = sign_in_failure(error).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!((failure.status, failure.message.as_str()), (StatusCode::TOO_MANY_REQUESTS, sentence));
    }
}
