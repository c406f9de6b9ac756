//! Signing in and out.

use askama::Template;
use axum::{
    extract::{Request, State},
    http::header::SET_COOKIE,
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};

use super::{
    ConsoleState,
    assets::assets_version,
    cookies::{self, Cookies},
    error::{ConsoleError, rendered, sign_in_failure},
    fields::Fields,
    form_key::{FormKey, verified_form},
    protection::is_secure,
};
use crate::{
    request::{Peer, read_body},
    secrets::Secret,
};

#[derive(Template)]
#[template(path = "console/sign_in.html")]
struct SignInPage {
    assets: &'static str,
    form_token: String,
    next: String,
    name: String,
    error: String,
}

/// Returns the page to show after the sign-in: always one of the console, never another site.
fn next(fields: &Fields) -> String {
    let next = fields.text("next");
    let is_page = next == "/console" || next.starts_with("/console/");
    let is_plain = next.chars().all(|c| c.is_ascii_alphanumeric() || "/-_".contains(c));
    if is_page && is_plain && !next.starts_with("/console/sign-") { next.to_owned() } else { "/console".to_owned() }
}

fn form_key(request: &axum::http::Extensions) -> FormKey {
    request.get::<FormKey>().cloned().unwrap_or_default()
}

pub(super) async fn show(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let next = next(&Fields::parse(request.uri().query().unwrap_or_default().as_bytes()));
    let cookies = Cookies::of(request.headers());
    if state.auth.session_caller(cookies.session.as_deref()).await?.is_some() {
        return Ok(Redirect::to(&next).into_response());
    }
    let form_token = form_key(request.extensions()).token();
    Ok(rendered(&SignInPage { assets: assets_version(), form_token, next, name: String::new(), error: String::new() }))
}

pub(super) async fn submit(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (parts, body) = request.into_parts();
    let key = form_key(&parts.extensions);
    let body = read_body(body, Peer::of(&parts.extensions)).await?;
    let form = match verified_form(&parts.headers, &key, &body) {
        Ok(form) => form,
        Err(error) => {
            // The form is stale if the user signed in in another tab meanwhile. The redirect changes nothing.
            let session = Cookies::of(&parts.headers).session;
            return match state.auth.session_caller(session.as_deref()).await? {
                Some(_) => Ok(Redirect::to(&next(&Fields::parse(&body))).into_response()),
                None => Err(error),
            };
        }
    };
    let (name, next) = (form.text("name").to_owned(), next(&form));
    let password = Secret::from(form.verbatim("password").to_owned());
    match state.auth.begin_session(name.clone(), password, Peer::of(&parts.extensions)).await {
        Ok(session) => {
            let cookie = cookies::session(session.token.expose(), &parts.headers, is_secure(&state, &parts.headers));
            let cookie = cookie.ok_or(ConsoleError::Internal)?;
            Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to(&next)).into_response())
        }
        Err(error) => {
            let failure = sign_in_failure(error)?;
            let error = failure.message.clone();
            let page = SignInPage { assets: assets_version(), form_token: key.token(), next, name, error };
            Ok(failure.on(rendered(&page)))
        }
    }
}

pub(super) async fn leave(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (parts, body) = request.into_parts();
    let body = read_body(body, Peer::of(&parts.extensions)).await?;
    verified_form(&parts.headers, &form_key(&parts.extensions), &body)?;
    if let Some(session) = Cookies::of(&parts.headers).session {
        state.identity.end_session(session.as_bytes()).await?;
    }
    let cookie =
        cookies::no_session(&parts.headers, is_secure(&state, &parts.headers)).ok_or(ConsoleError::Internal)?;
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to("/console/sign-in")).into_response())
}
