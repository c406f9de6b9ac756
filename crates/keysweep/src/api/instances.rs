//! Operations on instances: register, change, pause, resume, test and remove.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};
use keysweep_engine::Preset;

use super::{
    ApiState, activity, body,
    error::{ApiError, CREATED, NO_CONTENT, OnChange, OnPoll, OnProject, OnSubject},
    instance::{InstanceChangeBody, InstanceView, InstancesView, NewInstanceBody, StatsView, TestView},
    instances_body::InstancesBody,
};
use crate::{
    instances::{Connection, InstanceChange, InstanceError, NewInstance, POLL_TIMEOUT, PollError},
    model::{Instance, InvalidField, Label, Labels, Role, Sampling},
    request::query_values,
};

fn preset(pace: Option<&str>) -> Result<Option<Preset>, ApiError> {
    let read = |name: &str| {
        let unknown = || ApiError::Invalid(format!("pace {name:?} is none of gentle, normal, fast and max"));
        name.parse().map_err(|_| unknown())
    };
    pace.map(read).transpose()
}

fn labels(labels: Option<BTreeMap<String, String>>) -> Result<Option<Labels>, ApiError> {
    Ok(labels.map(Labels::new).transpose()?)
}

fn sampling(sampling: Option<&str>) -> Result<Option<Sampling>, ApiError> {
    Ok(sampling.map(str::parse).transpose()?)
}

/// Returns the labels by which a query selects instances.
pub(super) fn wanted_labels(query: &str) -> Result<Vec<Label>, ApiError> {
    let labels = query_values(query, "label");
    Ok(labels.iter().map(|label| label.parse()).collect::<Result<_, InvalidField>>()?)
}

impl ApiState {
    /// Polls an instance's server and waits for the answer, which registering and testing an instance do.
    async fn test(&self, instance: &Instance) -> Result<TestView, ApiError> {
        match self.instances.poll_on_request(instance).await {
            Ok(stats) => Ok(TestView { ok: true, stats: Some(StatsView::from(&stats)), message: None }),
            Err(PollError::Server(failure)) => {
                Ok(TestView { ok: false, stats: None, message: Some(failure.to_string()) })
            }
            Err(PollError::Instance(error @ (InstanceError::Unreadable { .. } | InstanceError::Connection(_)))) => {
                Ok(TestView { ok: false, stats: None, message: Some(error.to_string()) })
            }
            Err(error @ PollError::Busy(_)) => Err(ApiError::TooMany(error.to_string(), POLL_TIMEOUT)),
            Err(PollError::Instance(error)) => Err(error.into()),
        }
    }
}

/// List a project's instances by name
///
/// With labels, only the instances that have all of them.
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/instances", tag = "instances", operation_id = "list_registered_instances",
    params(
        ("project_id" = String, Path, description = "Project"),
        ("label" = Option<Vec<String>>, Query, description = "A label that the instances have, as name=value; repeatable"),
        ("activity" = Option<bool>, Query, description = "Whether each instance has its `activity` [default: false]"),
    ),
    responses((status = 200, body = InstancesView), OnProject)
)]
pub(super) async fn list(State(state): State<ApiState>, request: Request) -> Result<impl IntoResponse, ApiError> {
    let authorized = state.authorize(request, Role::Reader).await?;
    let labels = wanted_labels(&authorized.query)?;
    let is_activity_wanted = activity::is_wanted(&authorized.query)?;
    let body = InstancesBody::new(state, authorized.project_id, labels, is_activity_wanted).read().await?;
    Ok(([(CONTENT_TYPE, "application/json")], body))
}

/// Register a server
///
/// The server is polled at once, and may be down. While two others of the project are polled on request, it is polled later.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances", tag = "instances", operation_id = "register_instance",
    params(("project_id" = String, Path, description = "Project")), request_body = NewInstanceBody,
    responses((status = 201, body = InstanceView), OnChange)
)]
pub(super) async fn add(
    State(state): State<ApiState>,
    request: Request,
) -> Result<(StatusCode, Json<InstanceView>), ApiError> {
    let authorized = state.authorize(request, Role::Admin).await?;
    let wanted: NewInstanceBody = body::read(&authorized.body)?;
    let connection = wanted.connection.map(Connection::from);
    let labels = labels(wanted.labels)?;
    let new = NewInstance {
        name: &wanted.name,
        url: &wanted.url,
        password: None,
        connection: connection.as_ref(),
        // Ids are unique over all projects: whether one is taken would tell that another project has it. Only the operator,
        // to whom all projects are open, chooses them.
        id: None,
        pace: preset(wanted.pace.as_deref())?.unwrap_or_default(),
        manage_lazyfree: wanted.manage_lazyfree.unwrap_or_default(),
        window: wanted.window.as_deref(),
        window_binds_manual: wanted.window_binds_manual.unwrap_or_default(),
        labels: labels.as_ref(),
        sampling: sampling(wanted.sampling.as_deref())?.unwrap_or_default(),
        by: authorized.caller.name.as_deref(),
    };
    let mut instance = state.instances.add(&authorized.project_id, new).await?;
    match state.test(&instance).await {
        // The instance is registered, and a worker polls it within seconds.
        Ok(_) | Err(ApiError::TooMany(..)) => {}
        Err(error) => return Err(error),
    }
    if let Some(seen) = state.instances.get(&instance.project_id, &instance.id).await? {
        instance = seen;
    }
    Ok((CREATED, Json(InstanceView::from(&instance))))
}

/// Show an instance
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/instances/{instance_id}", tag = "instances", operation_id = "show_registered_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = InstanceView), OnSubject)
)]
pub(super) async fn show(State(state): State<ApiState>, request: Request) -> Result<Json<InstanceView>, ApiError> {
    let (_, instance) = state.authorize_instance(request, Role::Reader).await?;
    Ok(Json(InstanceView::from(&instance)))
}

/// Change an instance
#[utoipa::path(
    patch, path = "/api/v1/projects/{project_id}/instances/{instance_id}", tag = "instances", operation_id = "change_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    request_body = InstanceChangeBody,
    responses((status = 200, body = InstanceView), OnChange)
)]
pub(super) async fn change(State(state): State<ApiState>, request: Request) -> Result<Json<InstanceView>, ApiError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Admin).await?;
    let wanted: InstanceChangeBody = body::read(&authorized.body)?;
    let change = InstanceChange {
        name: wanted.name,
        url: wanted.url,
        connection: wanted.connection.map(Into::into),
        pace: preset(wanted.pace.as_deref())?,
        manage_lazyfree: wanted.manage_lazyfree,
        window: wanted.window,
        window_binds_manual: wanted.window_binds_manual,
        labels: labels(wanted.labels)?,
        sampling: sampling(wanted.sampling.as_deref())?,
        paused: None,
    };
    let changed = state.instances.change(&instance, change, authorized.caller.name.as_deref()).await?;
    Ok(Json(InstanceView::from(&changed)))
}

/// Remove an instance and its tasks
///
/// Refused while a task of the instance is active, and while its servers may have settings that keysweep wrote to hold their stale
/// share.
#[utoipa::path(
    delete, path = "/api/v1/projects/{project_id}/instances/{instance_id}", tag = "instances", operation_id = "remove_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 204), OnChange)
)]
pub(super) async fn remove(State(state): State<ApiState>, request: Request) -> Result<StatusCode, ApiError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Admin).await?;
    state.instances.remove(&instance, authorized.caller.name.as_deref()).await?;
    Ok(NO_CONTENT)
}

/// Pause an instance
///
/// An active task continues; new tasks are refused with DCS.4049.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/pause", tag = "instances", operation_id = "pause_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = InstanceView), OnSubject)
)]
pub(super) async fn pause(State(state): State<ApiState>, request: Request) -> Result<Json<InstanceView>, ApiError> {
    set_paused(state, request, true).await
}

/// Resume a paused instance
///
/// The instance accepts tasks again.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/resume", tag = "instances", operation_id = "resume_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = InstanceView), OnSubject)
)]
pub(super) async fn resume(State(state): State<ApiState>, request: Request) -> Result<Json<InstanceView>, ApiError> {
    set_paused(state, request, false).await
}

async fn set_paused(state: ApiState, request: Request, paused: bool) -> Result<Json<InstanceView>, ApiError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Admin).await?;
    let change = InstanceChange { paused: Some(paused), ..InstanceChange::default() };
    let changed = state.instances.change(&instance, change, authorized.caller.name.as_deref()).await?;
    Ok(Json(InstanceView::from(&changed)))
}

/// Poll an instance's server now
///
/// Waits up to five seconds for the server. The stats, or the reason why there are none, are saved. Two servers of a project are
/// polled so at a time.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/test", tag = "instances", operation_id = "test_instance",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = TestView), OnPoll)
)]
pub(super) async fn test(State(state): State<ApiState>, request: Request) -> Result<Json<TestView>, ApiError> {
    let (_, instance) = state.authorize_instance(request, Role::Admin).await?;
    Ok(Json(state.test(&instance).await?))
}
