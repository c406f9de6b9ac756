//! The DCS v2 API, as unmodified Huawei Cloud clients call it: one operation a file, all errors in one.

mod auto_scan;
mod body;
mod create_scan_task;
mod error;
mod histories;
mod instances;
mod nodes;
mod query;
mod task_body;

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequestParts, RawPathParams, Request},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{error::DcsError, query::Query};
use crate::{
    auth::{AuthError, Authenticator, Caller, Refusal},
    fleet::{Fleet, can_be_swept},
    http::{self, BodyError, RequestId},
    model::{Instance, Role},
    task::Tasks,
};

/// What the operations need.
#[derive(Clone)]
pub struct Door {
    /// Instances and people.
    pub fleet: Fleet,
    /// Tasks.
    pub tasks: Tasks,
    /// Who calls.
    pub auth: Authenticator,
}

/// What the document refers to without an operation that answers with it.
#[derive(OpenApi)]
#[openapi(components(schemas(error::ErrorView)))]
struct Shapes;

fn routes() -> OpenApiRouter<Door> {
    OpenApiRouter::with_openapi(Shapes::openapi())
        .routes(routes!(create_scan_task::create))
        .routes(routes!(create_scan_task::scan))
        .routes(routes!(histories::handle))
        .routes(routes!(auto_scan::show, auto_scan::update))
        .routes(routes!(instances::list))
        .routes(routes!(instances::show))
        .routes(routes!(nodes::topology))
        .routes(routes!(nodes::groups))
}

/// The routes of this door.
pub fn router(door: Door) -> Router {
    Router::from(routes()).with_state(door)
}

/// What this door adds to the OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The answer to a path that no door has.
pub fn no_url() -> impl axum::response::IntoResponse {
    DcsError::NoUrl
}

/// The answer, where nobody is asked for credentials, to a request that is not from this machine to this machine.
pub fn not_local() -> impl axum::response::IntoResponse {
    DcsError::NotLocal
}

/// The answer to a method that a path does not have.
pub fn no_method() -> impl axum::response::IntoResponse {
    DcsError::NoMethod
}

/// A request on a project that has passed every check that comes before its body.
struct AdmittedToProject {
    caller: Caller,
    project_id: String,
    instance_id: String,
    query: Query,
    body: Bytes,
}

/// A request on an instance that has passed every check that comes before its body.
struct Admitted {
    caller: Caller,
    instance: Instance,
    query: Query,
    body: Bytes,
}

impl Door {
    /// The checks in their documented order: credentials, project id format, project match, instance id format, role,
    /// existence. The order matters: nobody learns of an instance that is none of his business.
    async fn admit(&self, request: Request, role: Role) -> Result<Admitted, DcsError> {
        let repeatable = request.method().is_safe();
        self.admit_one(request, role, repeatable).await
    }

    /// The same for a create, which clients re-send as it is: doing it twice does no more than doing it once.
    async fn admit_create(&self, request: Request) -> Result<Admitted, DcsError> {
        self.admit_one(request, Role::Operator, true).await
    }

    async fn admit_one(&self, request: Request, role: Role, repeatable: bool) -> Result<Admitted, DcsError> {
        let passed = self.pass(request, role, true, repeatable).await?;
        let AdmittedToProject { caller, project_id, instance_id, query, body } = passed;
        let instance = self.fleet.instance(&project_id, &instance_id).await?.ok_or(DcsError::NoInstance)?;
        Ok(Admitted { caller, instance, query, body })
    }

    /// The same, as far as it does not concern a certain instance.
    async fn admit_to_project(&self, request: Request, role: Role) -> Result<AdmittedToProject, DcsError> {
        self.pass(request, role, false, true).await
    }

    async fn pass(
        &self,
        request: Request,
        role: Role,
        on_instance: bool,
        repeatable: bool,
    ) -> Result<AdmittedToProject, DcsError> {
        let (mut parts, body) = request.into_parts();
        let request_id = parts.extensions.get::<RequestId>().cloned().unwrap_or_default();
        let body = http::read_body(body).await.map_err(|error| match error {
            BodyError::TooLarge => DcsError::TooLarge,
            BodyError::Broken => DcsError::Body,
        })?;
        let identified = self.auth.identify(http::signed(&parts, &body, repeatable)).await;
        let caller = identified.map_err(|error: AuthError| DcsError::from_auth(error, &request_id))?;

        let params = RawPathParams::from_request_parts(&mut parts, &()).await.map_err(|_| DcsError::NoUrl)?;
        let param = |name: &str| params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value).to_owned();
        let (project_id, instance_id) = (param("project_id"), param("instance_id"));
        let subject = on_instance.then_some(instance_id.as_str());
        caller.pass(&project_id, subject, role).map_err(|refusal| match refusal {
            Refusal::ProjectFormat => DcsError::ProjectFormat(project_hint(&project_id)),
            Refusal::OtherProject => DcsError::OtherProject,
            Refusal::SubjectFormat => DcsError::InstanceFormat,
            Refusal::Role => DcsError::Forbidden,
        })?;
        let query = Query(parts.uri.query().unwrap_or_default().to_owned());
        Ok(AdmittedToProject { caller, project_id, instance_id, query, body })
    }
}

/// Whether the instance's server can be swept at all, as far as it has said what it is.
fn supported(instance: &Instance) -> Result<(), DcsError> {
    if can_be_swept(instance) { Ok(()) } else { Err(DcsError::Unsupported) }
}

/// Clients that were given no project id send the placeholder itself.
fn project_hint(project_id: &str) -> String {
    match project_id.starts_with('{') {
        true => " The path holds a placeholder where the project ID belongs: give your client the project ID.".into(),
        false => String::new(),
    }
}

/// The answer when a handler panicked.
pub fn internal() -> impl axum::response::IntoResponse {
    DcsError::Internal
}
