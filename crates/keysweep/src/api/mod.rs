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
mod inventory;
mod streams;
mod survey;
mod task;
mod tasks;

use axum::{Router, extract::Request};
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{error::ApiError, streams::Streams};
use crate::{
    auth::{Authenticator, Authorized},
    hold::Holds,
    identity::Identity,
    instances::Instances,
    model::{Instance, Role},
    task::Tasks,
};

/// State of the operations.
#[derive(Clone)]
pub struct ApiState {
    /// Instances and the audit trail.
    pub identity: Identity,
    pub instances: Instances,
    /// Scan tasks.
    pub tasks: Tasks,
    /// How stale shares are held.
    pub holds: Holds,
    /// Checks credentials and roles.
    pub auth: Authenticator,
    /// Ends event streams when the process shuts down, so that open streams do not delay it.
    pub shutdown: watch::Receiver<bool>,
    /// Event streams.
    pub streams: Streams,
}

impl ApiState {
    /// Authorizes a request on a project, or on a task of it whose existence the operation checks itself.
    async fn authorize(&self, request: Request, needed: Role) -> Result<Authorized, ApiError> {
        let repeatable = request.method().is_safe();
        Ok(self.auth.authorize(request, needed, repeatable).await?)
    }

    /// Authorizes a request on an instance.
    async fn authorize_instance(&self, request: Request, needed: Role) -> Result<(Authorized, Instance), ApiError> {
        let authorized = self.authorize(request, needed).await?;
        let instance = self.auth.instance(&authorized).await?;
        Ok((authorized, instance))
    }
}

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
}

/// Returns the routes of this surface.
pub fn router(state: ApiState) -> Router {
    Router::from(routes()).with_state(state)
}

/// Returns this surface's part of the OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}
