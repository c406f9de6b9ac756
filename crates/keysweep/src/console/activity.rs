//! The tasks of all instances of a project, newest first, with the progress of those that have not finished.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Request, State},
    response::Response,
};
use jiff::Timestamp;

use super::{
    ConsoleState,
    error::{ConsoleError, rendered},
    format::{self, RelativeTime},
    history::triggered_by,
    live::LiveView,
    selection::Choice,
    shell::{Shell, Tab},
    state::PageContext,
    status::Badge,
};
use crate::{
    instances::InstanceList,
    model::{Instance, Role, Status},
    store::{ProjectPageRequest, ProjectTask},
};

/// Tasks on one page.
const PAGE: u64 = 25;

#[derive(Template)]
#[template(path = "console/activity.html")]
struct ActivityPage {
    shell: Shell,
    rows: Vec<TaskRow>,
    /// Links to the tasks of one status.
    statuses: Vec<Choice>,
    /// The status that is shown; empty: all.
    status: &'static str,
    is_active: bool,
    newest: Option<String>,
    older: Option<String>,
}

struct TaskRow {
    href: String,
    instance: String,
    instance_href: String,
    badge: Badge,
    /// Progress of a running scan, 0–100.
    percent: Option<u64>,
    kind: &'static str,
    by: String,
    created: RelativeTime,
    took: String,
    scanned: String,
    reclaimed: String,
    /// Why the task failed, or what it waits for; empty: neither.
    why: String,
}

impl TaskRow {
    fn new(context: &PageContext, found: &ProjectTask, live: Option<LiveView>, now: Timestamp) -> Self {
        let task = &found.task;
        let failure = task.reason.as_ref().map(|reason| match &task.reason_detail {
            Some(detail) => format!("{reason}: {detail}"),
            None => reason.to_string(),
        });
        let waits = live.as_ref().filter(|live| !live.waits_for.is_empty());
        Self {
            href: context.path(&format!("tasks/{}", task.id)),
            instance: found.instance_name.clone(),
            instance_href: context.path(&format!("instances/{}", task.instance_id)),
            badge: Badge::of_task(task),
            why: failure.or_else(|| waits.map(|live| format!("waits for {}", live.waits_for))).unwrap_or_default(),
            percent: live.filter(|live| live.has_started).map(|live| live.percent),
            kind: task.scan_type.as_str(),
            by: triggered_by(task),
            created: RelativeTime::new(task.created_at, now),
            took: format::seconds(task.used.as_secs_f64()),
            scanned: format::count(task.scanned),
            reclaimed: format::count(task.reclaimed),
        }
    }
}

/// Returns the address of a part of the list.
fn href(context: &PageContext, status: Option<Status>, before: Option<i64>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(status.map(|status| ("status", status.as_str())));
    query.extend_pairs(before.map(|before| ("before", before.to_string())));
    let (path, query) = (context.path("activity"), query.finish());
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// Returns links to all tasks and to those of each status.
fn statuses(context: &PageContext, current: Option<Status>) -> Vec<Choice> {
    let all = [None].into_iter().chain(Status::ALL.iter().copied().map(Some));
    let choice = |status: Option<Status>| Choice {
        text: status.map_or("all", Status::as_str).to_owned(),
        href: href(context, status, None),
        is_current: status == current,
    };
    all.map(choice).collect()
}

pub(super) async fn list(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Reader).await?;
    // An unknown status, or a place that is no number, counts as none: a link with one is not followed.
    let status: Option<Status> = context.query.text("status").parse().ok();
    let before = context.query.text("before").parse::<i64>().ok();
    let page = ProjectPageRequest { status, before, limit: PAGE, ..ProjectPageRequest::default() };
    let found = state.tasks.in_project(&context.project.id, &page).await?;
    let active = found.iter().map(|found| &found.task).filter(|task| task.status.is_active());
    let details = state.tasks.details(&context.project.id, active).await?;
    let is_active = !details.is_empty();
    let instances = if is_active { state.instances.list(&context.project.id).await? } else { InstanceList::default() };
    let instances: HashMap<&str, &Instance> =
        instances.iter().map(|instance| (instance.id.as_str(), instance)).collect();
    let now = Timestamp::now();
    let mut live: HashMap<&str, LiveView> = HashMap::new();
    for detail in &details {
        let view = instances.get(detail.task.instance_id.as_str()).and_then(|of| LiveView::new(detail, of, now));
        live.extend(view.map(|view| (detail.task.id.as_str(), view)));
    }
    let rows = found.iter().map(|found| TaskRow::new(&context, found, live.remove(found.task.id.as_str()), now));
    let rows: Vec<TaskRow> = rows.collect();
    let older = found.last().filter(|_| found.len() as u64 == PAGE).map(|last| last.task.seq);
    let shell = context.shell("Activity", Tab::Activity, href(&context, status, before)).live(is_active);
    Ok(rendered(&ActivityPage {
        shell,
        rows,
        statuses: statuses(&context, status),
        status: status.map_or("", Status::as_str),
        is_active,
        newest: before.map(|_| href(&context, status, None)),
        older: older.map(|seq| href(&context, status, Some(seq))),
    }))
}
