//! The tasks of all instances of a project, newest first.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    ApiState,
    error::{ApiError, OnProject},
    instances::wanted_labels,
    task::ListedTaskView,
};
use crate::{
    model::{Role, Status, UnknownName},
    request::query_value,
    store::ProjectPageRequest,
};

const DEFAULT_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 1000;

/// A page of tasks, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct TasksView {
    tasks: Vec<ListedTaskView>,
}

/// List the tasks of all instances, newest first
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/tasks", tag = "tasks", operation_id = "list_tasks",
    params(
        ("project_id" = String, Path, description = "Project"),
        ("status" = Option<Status>, Query, description = "Only tasks with this status"),
        ("since" = Option<String>, Query, description = "Only tasks that are active, or finished at this time or later, as 2026-01-31T12:00:00Z"),
        ("label" = Option<Vec<String>>, Query, description = "Only tasks of instances that have this label now, as name=value; repeatable"),
        ("before" = Option<i64>, Query, description = "Only tasks with a smaller seq"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Largest number of tasks to return [default: 100]"),
    ),
    responses((status = 200, body = TasksView), OnProject)
)]
pub(super) async fn list(State(state): State<ApiState>, request: Request) -> Result<Json<TasksView>, ApiError> {
    let authorized = state.authorize(request, Role::Reader).await?;
    let mut page = page_request(&authorized.query)?;
    let labels = wanted_labels(&authorized.query)?;
    if !labels.is_empty() {
        let instances = state.instances.select(&authorized.project_id, &labels).await?;
        page.instance_ids = Some(instances.iter().map(|instance| instance.id.clone()).collect());
    }
    let tasks = state.tasks.in_project(&authorized.project_id, &page).await?;
    Ok(Json(TasksView { tasks: tasks.into_iter().map(ListedTaskView::from).collect() }))
}

fn page_request(query: &str) -> Result<ProjectPageRequest, ApiError> {
    let value = |name: &str| query_value(query, name);
    let invalid = |name: &str, text: &str, remedy: &str| {
        let text: String = text.chars().take(80).collect();
        ApiError::Invalid(format!("invalid parameter {name} {text:?}: {remedy}"))
    };
    let status = value("status").map(|text| {
        text.parse().map_err(|error: UnknownName| invalid("status", &text, &format!("expected {}", error.known)))
    });
    let since = value("since")
        .map(|text| text.parse().map_err(|_| invalid("since", &text, "write a time such as 2026-01-31T12:00:00Z")));
    let before = value("before")
        .map(|text| text.parse().map_err(|_| invalid("before", &text, "write the seq of a task of this list")));
    let limit = value("limit").map_or(Ok(DEFAULT_LIMIT), |text| {
        let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.ok_or_else(|| invalid("limit", &text, "write a number from 1 to 1000"))
    })?;
    Ok(ProjectPageRequest {
        status: status.transpose()?,
        since: since.transpose()?,
        instance_ids: None,
        before: before.transpose()?,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_parameter_is_named_with_value_and_remedy() {
        for (query, start, remedy) in [
            ("status=done", "invalid parameter status \"done\"", "expected waiting, running, success, failed"),
            ("since=yesterday", "invalid parameter since \"yesterday\"", "2026-01-31T12:00:00Z"),
            ("before=x", "invalid parameter before \"x\"", "seq"),
            ("limit=0", "invalid parameter limit \"0\"", "1 to 1000"),
            ("limit=1001", "invalid parameter limit \"1001\"", "1 to 1000"),
        ] {
            let Err(ApiError::Invalid(message)) = page_request(query) else { panic!("{query}") };
            assert!(message.starts_with(start) && message.contains(remedy), "{message}");
        }
        let page = page_request("since=2026-01-31T12:00:00%2B01:00&status=failed&before=7").expect("a page");
        assert_eq!((page.status, page.before, page.limit), (Some(Status::Failed), Some(7), 100));
        assert_eq!(page.since, "2026-01-31T11:00:00Z".parse().ok());
    }
}
