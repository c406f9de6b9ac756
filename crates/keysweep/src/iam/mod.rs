//! The part of IAM v3 that clients of DCS need: tokens for passwords, and the projects of a caller.

mod error;
mod projects;
mod tokens;

use axum::{Router, body::Bytes, extract::Request, http::request::Parts};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::error::IamError;
use crate::{
    auth::{Authenticator, Caller},
    fleet::Fleet,
    http::{read_body, signed},
};

/// What the operations need.
#[derive(Clone)]
pub struct Door {
    /// People and their tokens.
    pub fleet: Fleet,
    /// Who calls.
    pub auth: Authenticator,
}

/// What the document refers to without an operation that answers with it.
#[derive(OpenApi)]
#[openapi(components(schemas(error::ErrorView)))]
struct Shapes;

fn routes() -> OpenApiRouter<Door> {
    OpenApiRouter::with_openapi(Shapes::openapi())
        .routes(routes!(tokens::issue, tokens::revoke))
        .routes(routes!(projects::list))
}

/// The routes of this door.
pub fn router(door: Door) -> Router {
    Router::from(routes()).with_state(door)
}

/// What this door adds to the OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The answer to a path that this door does not have.
pub fn no_url() -> impl axum::response::IntoResponse {
    IamError::NoUrl
}

/// The answer, where nobody is asked for credentials, to a request that is not from this machine to this machine.
pub fn not_local() -> impl axum::response::IntoResponse {
    IamError::NotLocal
}

/// The answer to a method that a path does not have.
pub fn no_method() -> impl axum::response::IntoResponse {
    IamError::NoMethod
}

impl Door {
    async fn identify(&self, request: Request) -> Result<(Caller, Parts, Bytes), IamError> {
        let (parts, body) = request.into_parts();
        let body = read_body(body).await?;
        // Revoking a token twice does no more than revoking it once.
        let caller = self.auth.identify(signed(&parts, &body, true)).await?;
        Ok((caller, parts, body))
    }
}
