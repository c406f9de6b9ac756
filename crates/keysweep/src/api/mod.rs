//! keysweep's own REST API, for what DCS has no words for.

mod audit;
mod body;
mod error;
mod estimate;
mod events;
mod instances;
mod task;

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequestParts, RawPathParams, Request},
};
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::error::ApiError;
use crate::{
    auth::{Authenticator, Caller},
    fleet::Fleet,
    http::{read_body, signed},
    model::Role,
    task::Tasks,
};

/// What the operations need.
#[derive(Clone)]
pub struct Door {
    /// Instances and the audit trail.
    pub fleet: Fleet,
    /// Tasks.
    pub tasks: Tasks,
    /// Who calls.
    pub auth: Authenticator,
    /// Tells streams when the process is to end: nobody waits for those who listen.
    pub shutdown: watch::Receiver<bool>,
}

/// A request that has passed every check that comes before its body.
struct Admitted {
    caller: Caller,
    project_id: String,
    /// Of the task or the instance; empty where the path names none.
    subject_id: String,
    query: String,
    body: Bytes,
}

impl Door {
    /// The same checks in the same order as at the DCS API: credentials, project, ids, role. What stands behind the
    /// project in the path is looked up by whoever asks.
    async fn admit(&self, request: Request, needed: Role) -> Result<Admitted, ApiError> {
        let (mut parts, body) = request.into_parts();
        let body = read_body(body).await?;
        let caller = self.auth.identify(signed(&parts, &body, parts.method.is_safe())).await?;
        let params = RawPathParams::from_request_parts(&mut parts, &()).await.map_err(|_| ApiError::NoUrl)?;
        let params: Vec<String> = params.iter().map(|(_, value)| value.to_owned()).collect();
        let (project_id, subject_id) = (params.first().cloned().unwrap_or_default(), params.get(1).cloned());
        caller
            .pass(&project_id, subject_id.as_deref(), needed)
            .map_err(|refusal| ApiError::from_refusal(refusal, needed))?;
        let query = parts.uri.query().unwrap_or_default().to_owned();
        Ok(Admitted { caller, project_id, subject_id: subject_id.unwrap_or_default(), query, body })
    }
}

/// The answer to a path that this door does not have.
pub fn no_url() -> impl axum::response::IntoResponse {
    error::ApiError::NoUrl
}

/// The answer, where nobody is asked for credentials, to a request that is not from this machine to this machine.
pub fn not_local() -> impl axum::response::IntoResponse {
    error::ApiError::NotLocal
}

/// The answer to a method that a path does not have.
pub fn no_method() -> impl axum::response::IntoResponse {
    error::ApiError::NoMethod
}

/// What the document refers to without an operation that answers with it.
#[derive(OpenApi)]
#[openapi(components(schemas(error::ErrorView)))]
struct Shapes;

fn routes() -> OpenApiRouter<Door> {
    OpenApiRouter::with_openapi(Shapes::openapi())
        .routes(routes!(instances::list, instances::add))
        .routes(routes!(instances::show, instances::change, instances::remove))
        .routes(routes!(instances::pause))
        .routes(routes!(instances::resume))
        .routes(routes!(instances::test))
        .routes(routes!(estimate::make))
        .routes(routes!(task::show))
        .routes(routes!(task::cancel))
        .routes(routes!(events::follow))
        .routes(routes!(audit::list))
}

/// The routes of this door.
pub fn router(door: Door) -> Router {
    Router::from(routes()).with_state(door)
}

/// What this door adds to the OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}
