//! The native API: keysweep's own REST API, for what the DCS API has no operations for.

mod activity;
mod audit;
mod auto_scan;
mod body;
mod error;
mod estimate;
mod estimates;
mod events;
mod hold;
mod instance;
mod instances;
mod instances_body;
mod inventory;
mod state;
mod streams;
mod survey;
mod task;
mod tasks;

use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{error::ApiError, state::ApiState, streams::Streams};

/// Schemas that the document refers to although no operation returns them.
#[derive(OpenApi)]
#[openapi(components(schemas(error::ErrorView)))]
struct Shapes;

fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Shapes::openapi())
        .routes(routes!(instances::list, instances::add))
        .routes(routes!(instances::show, instances::change, instances::remove))
        .routes(routes!(instances::pause))
        .routes(routes!(instances::resume))
        .routes(routes!(instances::test))
        .routes(routes!(inventory::apply))
        .routes(routes!(estimate::estimate))
        .routes(routes!(auto_scan::show, auto_scan::change))
        .routes(routes!(estimates::list))
        .routes(routes!(survey::create))
        .routes(routes!(survey::show))
        .routes(routes!(hold::show, hold::set))
        .routes(routes!(hold::restore))
        .routes(routes!(tasks::list))
        .routes(routes!(task::show))
        .routes(routes!(task::cancel))
        .routes(routes!(events::follow))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
}

/// Returns the routes of this surface.
pub fn router(state: ApiState) -> Router {
    Router::from(routes()).with_state(state)
}

/// Returns this surface's part of the OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}
