//! The part of IAM v3 that clients of DCS need: tokens for passwords, and the projects of a caller.

mod error;
mod projects;
mod tokens;

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    http::request::Parts,
    routing::{get, post},
};

use self::error::IamError;
use crate::{
    auth::{Authenticator, Caller, Signed},
    fleet::Fleet,
    http::{Peer, read_body},
};

/// What the operations need.
#[derive(Clone)]
pub struct Door {
    /// People and their tokens.
    pub fleet: Fleet,
    /// Who calls.
    pub auth: Authenticator,
}

/// The routes of this door.
pub fn router(door: Door) -> Router {
    Router::new()
        .route("/v3/auth/tokens", post(tokens::issue).delete(tokens::revoke))
        .route("/v3/projects", get(projects::list))
        .with_state(door)
}

/// The answer to a path that this door does not have.
pub fn no_url() -> impl axum::response::IntoResponse {
    IamError::NoUrl
}

/// The answer to a method that a path does not have.
pub fn no_method() -> impl axum::response::IntoResponse {
    IamError::NoMethod
}

impl Door {
    async fn identify(&self, request: Request) -> Result<(Caller, Parts, Bytes), IamError> {
        let (parts, body) = request.into_parts();
        let body = read_body(body).await?;
        let (method, uri, headers, peer) = (&parts.method, &parts.uri, &parts.headers, Peer::of(&parts.extensions));
        // Revoking a token twice does no more than revoking it once.
        let signed = Signed { method, uri, headers, body: &body, peer, repeatable: true };
        let caller = self.auth.identify(signed).await?;
        Ok((caller, parts, body))
    }
}
