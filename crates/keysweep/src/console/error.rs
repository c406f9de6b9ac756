//! The errors of the console: the one place of this door that knows status codes.

use std::time::Duration;

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
};
use url::form_urlencoded;

use super::shell::assets_version;
use crate::{
    auth::{NOT_LOCAL, SignInError},
    fleet::FleetError,
    http::{BodyError, retry_after},
    model::Role,
    task::TaskError,
    units::whole_seconds,
};

/// The status of a form that is shown again because a field of it is not good.
pub(super) const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// An answer other than the page that was asked for.
#[derive(Debug)]
pub(super) enum ConsoleError {
    /// Nobody has signed in, or the session has ended; goes on to a path afterwards.
    SignIn {
        /// Where to go on.
        next: String,
    },
    /// A form that is not from this browser's session, or not from our pages.
    Stale,
    /// The body is larger than any form, or broke off.
    Body(BodyError),
    /// The user has no role anywhere, or there is no project.
    NoProject,
    /// No such thing in this project, or the project is none of the caller's business.
    NotFound(&'static str),
    /// The role does not suffice.
    Forbidden {
        /// The role that would.
        needed: Role,
        /// Where.
        project_id: String,
    },
    /// Something stands in the way; says what, and what to do.
    Conflict(String),
    /// No such path.
    NoUrl,
    /// The path exists, the method does not.
    NoMethod,
    /// The service runs without authentication, and the request is not for or from this machine.
    NotLocal,
    /// Our own fault; the log says more.
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
        let (status, title, message, back) = match self {
            Self::SignIn { next } => {
                let next: String = form_urlencoded::Serializer::new(String::new()).append_pair("next", &next).finish();
                return Redirect::to(&format!("/console/sign-in?{next}")).into_response();
            }
            Self::Stale => (
                StatusCode::FORBIDDEN,
                "This form is out of date",
                "It was made for another session, or does not come from this console. Nothing was changed. Go back, \
                 reload the page and try again."
                    .into(),
                home(),
            ),
            Self::Body(BodyError::TooLarge) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "Too much",
                "What was sent is larger than 1 MiB. Nothing was changed.".into(),
                home(),
            ),
            Self::Body(BodyError::Broken) => (
                StatusCode::BAD_REQUEST,
                "The form broke off",
                "The connection ended before all of it was there. Nothing was changed; try again.".into(),
                home(),
            ),
            Self::NoProject => (
                StatusCode::NOT_FOUND,
                "No project yet",
                "There is no project that you have a role on. An operator adds one with: keysweep admin project add \
                 NAME, and grants roles with: keysweep admin user grant"
                    .into(),
                home(),
            ),
            Self::NotFound(what) => (
                StatusCode::NOT_FOUND,
                "Not found",
                format!("There is no such {what}, or you have no role on its project."),
                home(),
            ),
            Self::Forbidden { needed, project_id } => (
                StatusCode::FORBIDDEN,
                "Not with your role",
                format!(
                    "This needs the role {needed} on the project. Nothing was changed. An admin can grant it with: \
                     keysweep admin user grant"
                ),
                format!("/console/{project_id}/instances"),
            ),
            Self::Conflict(message) => (StatusCode::CONFLICT, "That does not go now", message, home()),
            Self::NoUrl => {
                (StatusCode::NOT_FOUND, "Not found", "The console has no page at this address.".into(), home())
            }
            Self::NoMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Not like that",
                "This address of the console takes no such request.".into(),
                home(),
            ),
            Self::NotLocal => (StatusCode::FORBIDDEN, "This machine only", NOT_LOCAL.into(), home()),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something failed on our side",
                "The service's log says more, under the request id in the answer's X-Request-Id. Reload to try again."
                    .into(),
                home(),
            ),
        };
        let page = ErrorPage { assets: assets_version(), title, message, back };
        (status, rendered(&page)).into_response()
    }
}

/// A page as an answer.
pub(super) fn rendered(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Why nobody was signed in, for the page that asks again.
pub(super) struct Unsigned {
    status: StatusCode,
    /// The sentence.
    pub(super) message: String,
    wait: Option<Duration>,
}

impl Unsigned {
    /// What it is answered with, on this page.
    pub(super) fn on(self, page: Response) -> Response {
        retry_after(self.wait, (self.status, page))
    }
}

/// Why nobody was signed in.
pub(super) fn refused(error: SignInError) -> Result<Unsigned, ConsoleError> {
    let told = |status, message: &str| Ok(Unsigned { status, message: message.to_owned(), wait: None });
    let later = |message, wait| Ok(Unsigned { status: StatusCode::TOO_MANY_REQUESTS, message, wait: Some(wait) });
    match error {
        SignInError::Wrong => told(StatusCode::UNAUTHORIZED, "The user name or the password is wrong."),
        SignInError::TooMany(wait) => {
            later(format!("Too many attempts. Wait {} s, then try again.", whole_seconds(wait)), wait)
        }
        SignInError::Queue(wait) => later("Too many people sign in at this moment. Try again.".to_owned(), wait),
        SignInError::NoScope | SignInError::OtherProject => told(
            StatusCode::FORBIDDEN,
            "You have no role on any project. An admin can grant one with: keysweep admin user grant",
        ),
        SignInError::Fleet(error) => Err(error.into()),
    }
}

impl From<BodyError> for ConsoleError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<FleetError> for ConsoleError {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Gone(what) => Self::NotFound(what),
            FleetError::Unknown { what, .. } => Self::NotFound(what),
            FleetError::InUse { .. } => Self::Conflict(error.to_string()),
            other => {
                tracing::error!(error = %other, "a request failed");
                Self::Internal
            }
        }
    }
}

impl From<TaskError> for ConsoleError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Paused => Self::Conflict(error.to_string()),
            TaskError::Store(error) => FleetError::from(error).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_lock(SignInError::TooMany(Duration::from_secs(1)), "Too many attempts. Wait 1 s, then try again.")]
    #[case::a_queue(SignInError::Queue(Duration::from_secs(1)), "Too many people sign in at this moment. Try again.")]
    fn a_lock_in_its_last_second_is_not_taken_for_a_queue(#[case] error: SignInError, #[case] sentence: &str) {
        let unsigned = refused(error).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!((unsigned.status, unsigned.message.as_str()), (StatusCode::TOO_MANY_REQUESTS, sentence));
    }
}
