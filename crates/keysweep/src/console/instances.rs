//! The list of a project's instances with status, stats and the times of the last and next scan.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{Redirect, Response},
};
use jiff::Timestamp;

use super::{
    ConsoleState,
    error::{ConsoleError, rendered},
    format::{self, RelativeTime},
    labels::LabelLink,
    live::LiveView,
    selection::{Choice, Selection, State as Shown},
    shell::{Shell, Tab},
    state::PageContext,
    status::Badge,
};
use crate::{
    instances::Totals,
    model::{AutoScan, Instance, Label, Role, Task, TaskDetail},
    task::schedule::next_run,
    units,
};

/// Instances on one page.
const PAGE: usize = 50;
/// Number of instances up to which the page needs no search field.
const FEW: usize = 8;

#[derive(Template)]
#[template(path = "console/instances.html")]
struct InstancesPage {
    shell: Shell,
    rows: Vec<InstanceRow>,
    /// Totals of the servers of all instances that match the search, on all pages.
    total: Total,
    search: String,
    /// Labels by which the page selects instances.
    filters: Vec<LabelLink>,
    states: Vec<Choice>,
    orders: Vec<Choice>,
    /// The state that is shown.
    state: Shown,
    /// Parameters of the address that a search keeps.
    kept: Vec<(&'static str, &'static str)>,
    /// Which of the instances are on this page, as `1–50 of 300`.
    range: String,
    has_any: bool,
    can_search: bool,
    earlier: Option<String>,
    later: Option<String>,
}

struct Total {
    instances: String,
    keys: String,
    stale: String,
    memory: String,
}

struct InstanceRow {
    href: String,
    name: String,
    url: String,
    labels: Vec<LabelLink>,
    badge: Badge,
    /// Progress of the active scan, 0–100.
    percent: Option<u64>,
    keys: String,
    with_ttl: String,
    memory: String,
    stale: String,
    last: Option<(RelativeTime, String)>,
    next: Option<RelativeTime>,
}

/// Formats stale keys with their share of all keys, as `208,481 (20.4 %)`; a dash if their number is unknown.
pub(super) fn format_stale(stale: Option<u64>, keys: u64) -> String {
    match stale {
        None => "–".to_owned(),
        Some(0) => "0".to_owned(),
        Some(stale) => format!("{} ({})", format::count(stale), format::percent(stale as f64 / keys.max(1) as f64)),
    }
}

/// Tasks and auto-scans of the instances on one page, by instance id.
struct Activity {
    newest: HashMap<String, Task>,
    /// The active ones among the newest tasks.
    active: HashMap<String, TaskDetail>,
    auto_scans: HashMap<String, AutoScan>,
}

impl ConsoleState {
    async fn activity(&self, project_id: &str, instances: &[Instance]) -> Result<Activity, ConsoleError> {
        let newest = self.tasks.newest(instances).await?;
        let active = self.tasks.details(project_id, newest.iter().filter(|task| task.status.is_active())).await?;
        let auto_scans = self.instances.auto_scans(instances).await?;
        Ok(Activity {
            active: active.into_iter().map(|detail| (detail.task.instance_id.clone(), detail)).collect(),
            newest: newest.into_iter().map(|task| (task.instance_id.clone(), task)).collect(),
            auto_scans: auto_scans.into_iter().map(|config| (config.instance_id.clone(), config)).collect(),
        })
    }
}

impl InstanceRow {
    fn new(
        context: &PageContext,
        selection: &Selection<'_>,
        instance: &Instance,
        activity: &Activity,
        now: Timestamp,
    ) -> Self {
        let newest = activity.newest.get(&instance.id);
        let live = activity.active.get(&instance.id).and_then(|detail| LiveView::new(detail, instance, now));
        let last_end = newest.and_then(|task| task.finished_at);
        let config = activity.auto_scans.get(&instance.id);
        let next = config.and_then(|config| next_run(now, config, instance, last_end));
        let stats = instance.stats.as_ref();
        let known = |format: fn(u64) -> String, value: Option<u64>| value.map_or_else(|| "–".to_owned(), format);
        let last = newest.filter(|task| !task.status.is_active()).map(|task| {
            let reclaimed = format!("{} reclaimed", format::count(task.reclaimed));
            (RelativeTime::new(task.finished_at.unwrap_or(task.created_at), now), reclaimed)
        });
        Self {
            href: context.instance_path(instance),
            name: instance.name.clone(),
            url: instance.url.to_string(),
            labels: selection.with(instance),
            badge: Badge::of_instance(instance, newest),
            percent: live.map(|live| live.percent),
            keys: known(format::count, stats.map(|stats| stats.keys)),
            with_ttl: known(format::count, stats.map(|stats| stats.keys_with_ttl)),
            memory: known(units::size, stats.map(|stats| stats.used_memory)),
            stale: stats.map_or_else(|| "–".to_owned(), |stats| format_stale(stats.stale_keys, stats.keys)),
            last,
            next: next.map(|next| RelativeTime::new(next, now)),
        }
    }
}

pub(super) async fn enter(State(state): State<ConsoleState>, request: Request) -> Result<Redirect, ConsoleError> {
    let context = state.authorize(request, Role::Reader).await?;
    Ok(Redirect::to(&context.path("instances")))
}

pub(super) async fn list(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Reader).await?;
    let (now, search) = (Timestamp::now(), context.query.text("search").to_owned());
    // A label that nothing can have selects nothing, and a link with one is not followed.
    let labels: Vec<Label> = context.query.all("label").filter_map(|label| label.parse().ok()).collect();
    let (state_word, sort_word) = (context.query.text("state"), context.query.text("sort"));
    let selection = Selection::new(context.path("instances"), &search, labels, state_word, sort_word);
    let mut instances = state.instances.list(&context.project.id).await?;
    let (has_any, can_search) = (!instances.is_empty(), instances.len() > FEW);
    let states = selection.apply(&mut instances);
    let Totals { keys, stale_keys, used_memory } = Totals::of(&instances);
    let total = Total {
        instances: format::count(instances.len() as u64),
        keys: format::count(keys),
        stale: format_stale(Some(stale_keys), keys),
        memory: units::size(used_memory),
    };
    let page = context.query.text("page").parse::<usize>().unwrap_or(0).min(instances.len().saturating_sub(1) / PAGE);
    let shown = instances.chunks(PAGE).nth(page).unwrap_or_default();
    let activity = state.activity(&context.project.id, shown).await?;
    let rows: Vec<InstanceRow> =
        shown.iter().map(|instance| InstanceRow::new(&context, &selection, instance, &activity, now)).collect();
    let query = |page: usize| selection.href(&selection.labels, page);
    let earlier = page.checked_sub(1).map(query);
    let later = (instances.len() > (page + 1) * PAGE).then(|| query(page + 1));
    let is_active = rows.iter().any(|row| row.percent.is_some());
    let shell = context.shell("Instances", Tab::Instances, query(page)).live(is_active);
    let (filters, orders) = (selection.filters(), selection.orders());
    let (state, kept) = (selection.state, selection.kept());
    let range = format!("{}–{} of {}", page * PAGE + 1, page * PAGE + rows.len(), instances.len());
    Ok(rendered(&InstancesPage {
        shell,
        rows,
        total,
        search,
        filters,
        states,
        orders,
        state,
        kept,
        range,
        has_any,
        can_search,
        earlier,
        later,
    }))
}
