//! The part of IAM v3 that clients of DCS need: tokens, the projects and the domain of a caller, and where the service is.

mod catalog;
mod domains;
mod error;
mod projects;
mod settings;
mod sign_in_body;
mod state;
mod tokens;
mod versions;

use axum::{Router, routing::get};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{error::IamError, settings::CatalogSettings, state::IamState};

/// Schemas that the document refers to although no operation returns them.
#[derive(OpenApi)]
#[openapi(components(schemas(error::ErrorView)))]
struct Shapes;

fn routes() -> OpenApiRouter<IamState> {
    OpenApiRouter::with_openapi(Shapes::openapi())
        .routes(routes!(tokens::issue, tokens::show, tokens::revoke))
        .routes(routes!(projects::list))
        .routes(routes!(projects::list_of_token))
        .routes(routes!(domains::list))
        .routes(routes!(catalog::show))
        .routes(routes!(versions::show))
}

/// Returns the routes of this surface.
pub fn router(state: IamState) -> Router {
    // Clients write the configured URL with and without a slash at its end.
    Router::from(routes()).route("/v3/", get(versions::show)).with_state(state)
}

/// Returns this surface's part of the OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}
