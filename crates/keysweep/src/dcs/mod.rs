//! The DCS v2 API, as unmodified Huawei Cloud clients call it: one operation a file, all errors in one.

mod create_scan_task;
mod error;
mod histories;
mod task_body;

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequestParts, RawPathParams, Request},
    routing::{get, post},
};

use self::error::DcsError;
use crate::{
    auth::{AuthError, Authenticator, Caller},
    fleet::{Fleet, is_id},
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

/// The routes of this door.
pub fn router(door: Door) -> Router {
    Router::new()
        .route("/v2/{project_id}/instances/{instance_id}/scan-expire-keys-task", post(create_scan_task::handle))
        .route("/v2/{project_id}/instances/{instance_id}/auto-expire/scan", post(create_scan_task::handle))
        .route("/v2/{project_id}/instances/{instance_id}/auto-expire/histories", get(histories::handle))
        .with_state(door)
}

/// The answer to a path that no door has.
pub async fn no_url() -> impl axum::response::IntoResponse {
    DcsError::NoUrl
}

/// The answer to a method that a path does not have.
pub async fn no_method() -> impl axum::response::IntoResponse {
    DcsError::NoMethod
}

/// A request that has passed every check that comes before its body.
struct Admitted {
    caller: Caller,
    instance: Instance,
    query: String,
    #[allow(dead_code, reason = "read by the operations that take one, which come with the rest of the contract")]
    body: Bytes,
}

impl Door {
    /// The checks in their documented order: credentials, project id format, project match, instance id format, role,
    /// existence. The order matters: nobody learns of an instance that is none of his business.
    async fn admit(&self, request: Request, role: Role) -> Result<Admitted, DcsError> {
        let (mut parts, body) = request.into_parts();
        let request_id = parts.extensions.get::<RequestId>().cloned().unwrap_or_default();
        let body = http::read_body(body).await.map_err(|error| match error {
            BodyError::TooLarge => DcsError::TooLarge,
            BodyError::Broken => DcsError::Body,
        })?;
        let identified = self.auth.identify(&parts.method, &parts.uri, &parts.headers, &body).await;
        let caller = identified.map_err(|error: AuthError| DcsError::from_auth(error, &request_id))?;

        let params = RawPathParams::from_request_parts(&mut parts, &()).await.map_err(|_| DcsError::NoUrl)?;
        let param = |name: &str| params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        let (project_id, instance_id) = (param("project_id"), param("instance_id"));
        if !is_id(project_id) {
            return Err(DcsError::ProjectFormat(project_hint(project_id)));
        }
        let held = caller.role_on(project_id).ok_or(DcsError::OtherProject)?;
        if !is_id(instance_id) {
            return Err(DcsError::InstanceFormat);
        }
        if held < role {
            return Err(DcsError::Forbidden);
        }
        let instance = self.fleet.instance(project_id, instance_id).await?.ok_or(DcsError::NoInstance)?;
        let query = parts.uri.query().unwrap_or_default().to_owned();
        Ok(Admitted { caller, instance, query, body })
    }
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
