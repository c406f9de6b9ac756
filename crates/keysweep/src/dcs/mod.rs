//! The DCS v2 API, as unmodified Huawei Cloud clients call it: one operation a file, all errors in one.

mod auto_scan;
mod body;
mod configurations;
mod create_scan_task;
mod error;
mod histories;
mod instances;
mod nodes;
mod query;
mod task_body;
mod whitelist;

use axum::{Router, extract::Request, routing::any};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::error::DcsError;
use crate::{
    auth::{Authenticator, Authorized},
    instances::Instances,
    model::{Instance, Role},
    request::RequestId,
    task::Tasks,
};

/// State of the operations.
#[derive(Clone)]
pub struct DcsState {
    /// Instances and their auto-scans.
    pub instances: Instances,
    /// Scan tasks.
    pub tasks: Tasks,
    /// Checks credentials and roles.
    pub auth: Authenticator,
}

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

impl DcsState {
    /// Authorizes a request on a project. `repeatable`: whether sending it twice has the effect of sending it once.
    async fn authorize(&self, request: Request, needed: Role, repeatable: bool) -> Result<Authorized, DcsError> {
        let request_id = RequestId::of(request.extensions());
        let authorized = self.auth.authorize(request, needed, repeatable).await;
        authorized.map_err(|denied| DcsError::from_denied(denied, request_id))
    }

    /// Authorizes a request on an instance.
    async fn authorize_instance(&self, request: Request, needed: Role) -> Result<(Authorized, Instance), DcsError> {
        let repeatable = request.method().is_safe();
        self.with_instance(self.authorize(request, needed, repeatable).await?).await
    }

    /// Authorizes a create. Clients send it again unchanged, and a second create returns the active task.
    async fn authorize_create(&self, request: Request) -> Result<(Authorized, Instance), DcsError> {
        self.with_instance(self.authorize(request, Role::Operator, true).await?).await
    }

    async fn with_instance(&self, authorized: Authorized) -> Result<(Authorized, Instance), DcsError> {
        let found = self.auth.instance(&authorized).await;
        let instance = found.map_err(|denied| DcsError::from_denied(denied, RequestId::default()))?;
        Ok((authorized, instance))
    }
}
