//! The part of IAM v3 that clients of DCS need: tokens for passwords, and the projects of a caller.

mod error;
mod projects;
mod tokens;

use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::error::IamError;
use crate::{auth::Authenticator, identity::Identity};

/// State of the operations.
#[derive(Clone)]
pub struct IamState {
    /// Users and their tokens.
    pub identity: Identity,
    /// Checks passwords and credentials.
    pub auth: Authenticator,
}

/// Schemas that the document refers to although no operation returns them.
#[derive(OpenApi)]
#[openapi(components(schemas(error::ErrorView)))]
struct Shapes;

fn routes() -> OpenApiRouter<IamState> {
    OpenApiRouter::with_openapi(Shapes::openapi())
        .routes(routes!(tokens::issue, tokens::revoke))
        .routes(routes!(projects::list))
}

/// Returns the routes of this surface.
pub fn router(state: IamState) -> Router {
    Router::from(routes()).with_state(state)
}

/// Returns this surface's part of the OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}
