//! The DCS v2 API, as unmodified Huawei Cloud clients call it: one operation a file, all errors in one.

mod auto_scan;
mod body;
mod configurations;
mod create_scan_task;
mod described;
mod error;
mod histories;
mod instances;
mod nodes;
mod query;
mod state;
mod task_body;
mod whitelist;

use axum::{Router, routing::any};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{error::DcsError, state::DcsState};

/// Schemas that the document refers to although no operation returns them.
#[derive(OpenApi)]
#[openapi(components(schemas(error::ErrorView)))]
struct Shapes;

fn routes() -> OpenApiRouter<DcsState> {
    OpenApiRouter::with_openapi(Shapes::openapi())
        .routes(routes!(create_scan_task::create))
        .routes(routes!(create_scan_task::scan))
        .routes(routes!(histories::handle))
        .routes(routes!(auto_scan::show, auto_scan::update))
        .routes(routes!(instances::list))
        .routes(routes!(instances::show))
        .routes(routes!(nodes::topology))
        .routes(routes!(nodes::groups))
        .routes(routes!(configurations::list))
        .routes(routes!(whitelist::show))
}

/// Returns the routes of this surface.
pub fn router(state: DcsState) -> Router {
    // Operations of DCS that keysweep lacks, whose last segment would otherwise be taken for an instance ID.
    let unknown = || async { DcsError::NoUrl };
    Router::from(routes())
        .route("/v2/{project_id}/instances/status", any(unknown))
        .route("/v2/{project_id}/instances/statistic", any(unknown))
        .with_state(state)
}

/// Returns this surface's part of the OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}
