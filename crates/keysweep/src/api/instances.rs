//! Instances: register, change, pause, resume, test and remove.

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
};
use jiff::Timestamp;
use keysweep_engine::Preset;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Admitted, Door, body,
    error::{ApiError, CREATED, NO_CONTENT, OnChange, OnProject, OnSubject},
};
use crate::{
    fleet::{FleetError, InstanceChange, LookError, NewInstance, Reach},
    model::{Facts, Instance, Role},
};

/// An instance. Its password is never shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceView {
    id: String,
    project_id: String,
    name: String,
    /// Without user and password.
    url: String,
    /// ACL user; null: the default user.
    username: Option<String>,
    has_password: bool,
    /// How its nodes are reached beside its URL.
    reach: ReachView,
    /// Pace of manual scans: gentle, normal, fast or max.
    pace: String,
    /// Whether sweeps turn `lazyfree-lazy-expire` on while they run.
    manage_lazyfree: bool,
    /// Off-peak window, as `02:00-05:00 Europe/Paris`; null: any time.
    window: Option<String>,
    /// Whether the window binds manual scans, too.
    window_binds_manual: bool,
    /// Whether it accepts no new tasks.
    paused: bool,
    /// What was last seen of its server.
    facts: Option<FactsView>,
    /// Why its server could not be looked at the last time, or cannot be swept; null where it could.
    unreachable: Option<String>,
    created_at: Timestamp,
}

/// How an instance's nodes are reached beside its URL. Of secrets and certificates only whether they are there.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReachView {
    /// User on the Sentinels.
    sentinel_username: Option<String>,
    has_sentinel_password: bool,
    /// Whether certain authorities are trusted instead of the system's.
    has_ca: bool,
    /// Whether we show a certificate.
    has_certificate: bool,
    has_key: bool,
    /// The name that the servers' certificates must carry; null: the host's.
    server_name: Option<String>,
    /// Where nodes that announce other addresses are reached.
    address_map: Option<String>,
}

impl From<&Instance> for ReachView {
    fn from(instance: &Instance) -> Self {
        Self {
            sentinel_username: instance.sentinel_username.clone(),
            has_sentinel_password: instance.sentinel_password.is_some(),
            has_ca: instance.ca_pem.is_some(),
            has_certificate: instance.cert_pem.is_some(),
            has_key: instance.client_key.is_some(),
            server_name: instance.server_name.clone(),
            address_map: instance.address_map.clone(),
        }
    }
}

/// What a server said of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct FactsView {
    /// redis, valkey, or other: not to be swept.
    engine: String,
    engine_version: String,
    /// standalone, sentinel or cluster.
    mode: String,
    keys: u64,
    keys_with_ttl: u64,
    /// Keys that are probably dead, by the servers' own running average, which lags behind by minutes; null where they do
    /// not tell.
    dead_keys: Option<u64>,
    /// Bytes.
    used_memory: u64,
    /// Bytes; 0: no limit.
    max_memory: u64,
    /// The primaries, as `host:port`.
    primaries: Vec<String>,
    seen_at: Timestamp,
}

/// The instances of a project.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstancesView {
    instances: Vec<InstanceView>,
}

/// A server to be registered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInstanceBody {
    /// Unique in the project; 1 to 64 characters.
    name: String,
    /// `redis://host:port` or `redis://user:password@host:port`; the password is kept encrypted.
    url: String,
    /// How its nodes are reached beside that.
    reach: Option<ReachBody>,
    /// Its id, where it must be a certain one: 32 hexadecimal digits or a UUID.
    id: Option<String>,
    /// Pace of manual scans: gentle, normal, fast or max [default: normal].
    pace: Option<String>,
    /// Whether sweeps turn `lazyfree-lazy-expire` on while they run [default: false].
    manage_lazyfree: Option<bool>,
    /// Off-peak window of scheduled scans, as `02:00-05:00 Europe/Paris` [default: any time].
    window: Option<String>,
    /// Whether the window binds manual scans, too [default: false].
    window_binds_manual: Option<bool>,
}

/// What is to change; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceChangeBody {
    /// Unique in the project; 1 to 64 characters.
    name: Option<String>,
    /// User and password are replaced by those in the URL, and forgotten where it has none; so is how its nodes are reached.
    url: Option<String>,
    /// How its nodes are reached beside that; only together with the url.
    reach: Option<ReachBody>,
    /// Pace of manual scans: gentle, normal, fast or max.
    pace: Option<String>,
    /// Whether sweeps turn `lazyfree-lazy-expire` on while they run.
    manage_lazyfree: Option<bool>,
    /// Off-peak window of scheduled scans, as `02:00-05:00 Europe/Paris`; empty: any time.
    window: Option<String>,
    /// Whether the window binds manual scans, too.
    window_binds_manual: Option<bool>,
}

/// How an instance's nodes are reached beside its URL. Secrets are kept encrypted and never shown.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReachBody {
    /// User on the Sentinels.
    sentinel_username: Option<String>,
    /// Password on the Sentinels.
    sentinel_password: Option<String>,
    /// Certificates of the authorities to trust instead of the system's, PEM.
    ca: Option<String>,
    /// Our own certificate, PEM.
    certificate: Option<String>,
    /// Its key, PEM.
    key: Option<String>,
    /// The name that the servers' certificates must carry, where it is not the host's.
    server_name: Option<String>,
    /// Where nodes that announce other addresses are reached: `host:port=host:port` or `host=host`, separated by commas.
    address_map: Option<String>,
}

impl From<ReachBody> for Reach {
    fn from(body: ReachBody) -> Self {
        Self {
            sentinel_username: body.sentinel_username,
            sentinel_password: body.sentinel_password.map(Into::into),
            ca: body.ca,
            certificate: body.certificate,
            key: body.key.map(Into::into),
            server_name: body.server_name,
            address_map: body.address_map,
        }
    }
}

/// Whether a server can be swept.
#[derive(Debug, Serialize, ToSchema)]
pub struct TestView {
    /// Whether it was reached, let itself be looked at, and can be swept.
    ok: bool,
    /// What it said; null where it cannot be swept.
    facts: Option<FactsView>,
    /// Why not.
    message: Option<String>,
}

impl From<&Facts> for FactsView {
    fn from(facts: &Facts) -> Self {
        Self {
            engine: facts.engine.clone(),
            engine_version: facts.engine_version.clone(),
            mode: facts.mode.clone(),
            keys: facts.keys,
            keys_with_ttl: facts.keys_with_ttl,
            dead_keys: facts.dead_keys,
            used_memory: facts.used_memory,
            max_memory: facts.max_memory,
            primaries: facts.primaries.clone(),
            seen_at: facts.seen_at,
        }
    }
}

impl From<&Instance> for InstanceView {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            project_id: instance.project_id.clone(),
            name: instance.name.clone(),
            url: instance.url.clone(),
            username: instance.username.clone(),
            has_password: instance.password.is_some(),
            reach: ReachView::from(instance),
            pace: instance.pace.clone(),
            manage_lazyfree: instance.manage_lazyfree,
            window: instance.window.clone(),
            window_binds_manual: instance.window_binds_manual,
            paused: instance.paused,
            facts: instance.facts.as_ref().map(FactsView::from),
            unreachable: instance.unreachable.clone(),
            created_at: instance.created_at,
        }
    }
}

fn preset(pace: Option<&str>) -> Result<Option<Preset>, ApiError> {
    let read = |name: &str| {
        let unknown = || ApiError::Invalid(format!("pace {name:?} is none of gentle, normal, fast and max"));
        name.parse().map_err(|_| unknown())
    };
    pace.map(read).transpose()
}

impl Door {
    pub(super) async fn admit_to_instance(
        &self,
        request: Request,
        needed: Role,
    ) -> Result<(Admitted, Instance), ApiError> {
        let admitted = self.admit(request, needed).await?;
        let found = self.fleet.instance(&admitted.project_id, &admitted.subject_id).await?;
        Ok((admitted, found.ok_or(ApiError::NotFound("instance"))?))
    }

    /// Asks the server what it is, and waits for it: registering and testing are for that.
    async fn look(&self, instance: &Instance) -> Result<TestView, ApiError> {
        match self.fleet.look(instance).await {
            Ok(facts) => Ok(TestView { ok: true, facts: Some(FactsView::from(&facts)), message: None }),
            Err(LookError::Server(failure)) => {
                Ok(TestView { ok: false, facts: None, message: Some(failure.to_string()) })
            }
            Err(LookError::Fleet(error @ (FleetError::Target { .. } | FleetError::Reach(_)))) => {
                Ok(TestView { ok: false, facts: None, message: Some(error.to_string()) })
            }
            Err(LookError::Fleet(error)) => Err(error.into()),
        }
    }
}

/// List a project's instances by name
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/instances", tag = "instances", operation_id = "list_instances",
    params(("project_id" = String, Path, description = "Project")),
    responses((status = 200, body = InstancesView), OnProject)
)]
pub(super) async fn list(State(door): State<Door>, request: Request) -> Result<Json<InstancesView>, ApiError> {
    let admitted = door.admit(request, Role::Reader).await?;
    let instances = door.fleet.instances_of(&admitted.project_id).await?;
    Ok(Json(InstancesView { instances: instances.iter().map(InstanceView::from).collect() }))
}

/// Register a server
///
/// It is looked at; it need not be up.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances", tag = "instances", operation_id = "register_instance",
    params(("project_id" = String, Path, description = "Project")), request_body = NewInstanceBody,
    responses((status = 201, body = InstanceView), OnChange)
)]
pub(super) async fn add(
    State(door): State<Door>,
    request: Request,
) -> Result<(StatusCode, Json<InstanceView>), ApiError> {
    let admitted = door.admit(request, Role::Admin).await?;
    let wanted: NewInstanceBody = body::read(&admitted.body)?;
    let reach = wanted.reach.map(Reach::from);
    let new = NewInstance {
        name: &wanted.name,
        url: &wanted.url,
        password: None,
        reach: reach.as_ref(),
        id: wanted.id.as_deref(),
        pace: preset(wanted.pace.as_deref())?.unwrap_or_default(),
        manage_lazyfree: wanted.manage_lazyfree.unwrap_or_default(),
        window: wanted.window.as_deref(),
        window_binds_manual: wanted.window_binds_manual.unwrap_or_default(),
        by: admitted.caller.name.as_deref(),
    };
    let mut instance = door.fleet.add_instance(&admitted.project_id, new).await?;
    door.look(&instance).await?;
    if let Some(seen) = door.fleet.instance(&instance.project_id, &instance.id).await? {
        instance = seen;
    }
    Ok((CREATED, Json(InstanceView::from(&instance))))
}

/// Show an instance
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/instances/{instance_id}", tag = "instances", operation_id = "show_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = InstanceView), OnSubject)
)]
pub(super) async fn show(State(door): State<Door>, request: Request) -> Result<Json<InstanceView>, ApiError> {
    let (_, instance) = door.admit_to_instance(request, Role::Reader).await?;
    Ok(Json(InstanceView::from(&instance)))
}

/// Change an instance
#[utoipa::path(
    patch, path = "/api/v1/projects/{project_id}/instances/{instance_id}", tag = "instances", operation_id = "change_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    request_body = InstanceChangeBody,
    responses((status = 200, body = InstanceView), OnChange)
)]
pub(super) async fn change(State(door): State<Door>, request: Request) -> Result<Json<InstanceView>, ApiError> {
    let (admitted, instance) = door.admit_to_instance(request, Role::Admin).await?;
    let wanted: InstanceChangeBody = body::read(&admitted.body)?;
    let change = InstanceChange {
        name: wanted.name,
        url: wanted.url,
        reach: wanted.reach.map(Into::into),
        pace: preset(wanted.pace.as_deref())?,
        manage_lazyfree: wanted.manage_lazyfree,
        window: wanted.window,
        window_binds_manual: wanted.window_binds_manual,
        paused: None,
    };
    let changed = door.fleet.change_instance(&instance, change, admitted.caller.name.as_deref()).await?;
    Ok(Json(InstanceView::from(&changed)))
}

/// Remove an instance and its tasks
///
/// Refused while a task of it is active.
#[utoipa::path(
    delete, path = "/api/v1/projects/{project_id}/instances/{instance_id}", tag = "instances", operation_id = "remove_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 204), OnChange)
)]
pub(super) async fn remove(State(door): State<Door>, request: Request) -> Result<StatusCode, ApiError> {
    let (admitted, instance) = door.admit_to_instance(request, Role::Admin).await?;
    door.fleet.remove_instance(&instance, admitted.caller.name.as_deref()).await?;
    Ok(NO_CONTENT)
}

/// Pause an instance
///
/// The active task goes on; new ones are refused with DCS.4049.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/pause", tag = "instances", operation_id = "pause_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = InstanceView), OnSubject)
)]
pub(super) async fn pause(State(door): State<Door>, request: Request) -> Result<Json<InstanceView>, ApiError> {
    set_paused(door, request, true).await
}

/// Accept tasks for a paused instance again
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/resume", tag = "instances", operation_id = "resume_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = InstanceView), OnSubject)
)]
pub(super) async fn resume(State(door): State<Door>, request: Request) -> Result<Json<InstanceView>, ApiError> {
    set_paused(door, request, false).await
}

async fn set_paused(door: Door, request: Request, paused: bool) -> Result<Json<InstanceView>, ApiError> {
    let (admitted, instance) = door.admit_to_instance(request, Role::Admin).await?;
    let change = InstanceChange { paused: Some(paused), ..InstanceChange::default() };
    let changed = door.fleet.change_instance(&instance, change, admitted.caller.name.as_deref()).await?;
    Ok(Json(InstanceView::from(&changed)))
}

/// Look at an instance's server now
///
/// Waits for the server, up to five seconds. What it says is kept, and so is why it says nothing.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/test", tag = "instances", operation_id = "test_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = TestView), OnSubject)
)]
pub(super) async fn test(State(door): State<Door>, request: Request) -> Result<Json<TestView>, ApiError> {
    let (_, instance) = door.admit_to_instance(request, Role::Admin).await?;
    Ok(Json(door.look(&instance).await?))
}
