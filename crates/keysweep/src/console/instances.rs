//! The list of a project's instances with status, stale share, reclaimable bytes and the times of the last and next scan.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{Redirect, Response},
};
use jiff::{Timestamp, ToSpan};

use super::{
    ConsoleState,
    error::{ConsoleError, rendered},
    fields::Fields,
    format::{self, RelativeTime},
    labels::LabelLink,
    listed::{Listed, Stale},
    live::LiveView,
    selection::{Choice, Selection, State as Shown},
    shell::{Notice, Shell, Tab},
    state::PageContext,
    status::{Badge, NextStep},
};
use crate::{
    budget::BudgetShare,
    instances::Totals,
    model::{AutoScan, Instance, LatestShare, Role, Task, TaskDetail},
    task::schedule::next_run,
    units,
};

/// Instances on one page, and most that one action is applied to.
pub(super) const PAGE: usize = 50;
/// Number of instances up to which the page needs no search field.
const FEW: usize = 8;
/// Hours over which reclaimed keys are summed.
const WEEK: i64 = 7 * 24;

#[derive(Template)]
#[template(path = "console/instances.html")]
struct InstancesPage {
    shell: Shell,
    /// Path of the project's pages.
    path: String,
    rows: Vec<InstanceRow>,
    /// Totals of the instances that match the search and have the labels and the state, on all pages.
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
    /// Query of this page, to which the actions return.
    view: String,
    /// Which of the instances are on this page, as `1–50 of 300`.
    range: String,
    has_any: bool,
    can_search: bool,
    earlier: Option<String>,
    later: Option<String>,
}

struct Total {
    instances: String,
    /// Instances whose last poll has failed.
    unreachable: String,
    keys: String,
    memory: String,
    reclaimable: String,
    reclaimed: String,
}

struct InstanceRow {
    id: String,
    href: String,
    name: String,
    url: String,
    labels: Vec<LabelLink>,
    badge: Badge,
    /// What the instance waits for, or what to do about its failure; empty: neither.
    note: String,
    /// Progress of the active scan, 0–100.
    percent: Option<u64>,
    keys: String,
    memory: String,
    /// The stale share as text, and in percent for its bar.
    share: Option<(String, String)>,
    reclaimable: String,
    last: Option<LastScan>,
    next: Option<RelativeTime>,
}

struct LastScan {
    finished: RelativeTime,
    /// What it reclaimed, or why it failed.
    result: String,
    has_failed: bool,
}

/// Formats the stale keys of an instance with their share of all keys, as `≈ 208,481 (20.4 %)`; a dash if their number is unknown.
pub(super) fn format_stale(instance: &Instance, latest: Option<LatestShare>) -> String {
    let stale = Stale::new(instance, latest).zip(instance.stats.as_ref());
    stale.map_or_else(dash, |(stale, stats)| {
        let keys = format::count((stale.share * stats.keys as f64).round() as u64);
        format!("{}{keys} ({})", mark(stale), format::percent(stale.share))
    })
}

fn dash() -> String {
    "–".to_owned()
}

/// Active tasks and auto-scans of the instances on one page, by instance id.
struct Activity {
    active: HashMap<String, TaskDetail>,
    auto_scans: HashMap<String, AutoScan>,
}

impl ConsoleState {
    /// Returns the instances of a project with their newest tasks and latest stale shares, by name, and the memory that is counted
    /// for them.
    async fn listed(&self, project_id: &str) -> Result<(Vec<Listed>, Option<BudgetShare>), ConsoleError> {
        let (instances, memory) = self.instances.list(project_id).await?.into_parts();
        let newest = self.tasks.newest(&instances).await?.into_iter();
        let mut newest: HashMap<String, Task> = newest.map(|task| (task.instance_id.clone(), task)).collect();
        let mut shares = self.latest_shares(&instances).await?;
        let listed = instances.into_iter().map(|instance| {
            let (newest, share) = (newest.remove(&instance.id), shares.remove(&instance.id));
            Listed::new(instance, newest, share)
        });
        Ok((listed.collect(), memory))
    }

    /// Returns the stale shares of instances that were found within the last day, by id: the pages do not say of when they are.
    pub(super) async fn latest_shares(
        &self,
        instances: &[Instance],
    ) -> Result<HashMap<String, LatestShare>, ConsoleError> {
        let (mut shares, now) = (self.instances.latest_shares(instances).await?, Timestamp::now());
        shares.retain(|_, share| share.is_recent(now));
        Ok(shares)
    }

    async fn activity(&self, project_id: &str, shown: &[Listed]) -> Result<Activity, ConsoleError> {
        let active = shown.iter().filter_map(|one| one.newest.as_ref()).filter(|task| task.status.is_active());
        let active = self.tasks.details(project_id, active).await?;
        let instances: Vec<Instance> = shown.iter().map(|one| one.instance.clone()).collect();
        let auto_scans = self.instances.auto_scans(&instances).await?;
        Ok(Activity {
            active: active.into_iter().map(|detail| (detail.task.instance_id.clone(), detail)).collect(),
            auto_scans: auto_scans.into_iter().map(|config| (config.instance_id.clone(), config)).collect(),
        })
    }

    async fn total(&self, project_id: &str, listed: &[Listed], now: Timestamp) -> Result<Total, ConsoleError> {
        let totals = Totals::of(listed.iter().map(|one| (&one.instance, one.bytes())));
        let instances = listed.iter().map(|one| &one.instance);
        let reclaimed = self.tasks.reclaimed_since(project_id, instances, now - WEEK.hours()).await?;
        let unreachable = listed.iter().filter(|one| one.instance.unreachable.is_some()).count();
        Ok(Total {
            instances: format::count(listed.len() as u64),
            unreachable: format::count(unreachable as u64),
            keys: format::count(totals.keys),
            memory: units::size(totals.used_memory),
            reclaimable: units::size(totals.reclaimable),
            reclaimed: format::count(reclaimed),
        })
    }

    /// Renders the part of the list that a query selects.
    pub(super) async fn list_page(
        &self,
        context: &PageContext,
        query: &Fields,
        notice: Option<Notice>,
    ) -> Result<Response, ConsoleError> {
        let now = Timestamp::now();
        let selection = Selection::new(context.path("instances"), query);
        let (mut listed, _share) = self.listed(&context.project.id).await?;
        let (has_any, can_search) = (!listed.is_empty(), listed.len() > FEW);
        let states = selection.apply(&mut listed);
        let total = self.total(&context.project.id, &listed, now).await?;
        let page = query.text("page").parse::<usize>().unwrap_or(0).min(listed.len().saturating_sub(1) / PAGE);
        let shown = listed.chunks(PAGE).nth(page).unwrap_or_default();
        let activity = self.activity(&context.project.id, shown).await?;
        let rows: Vec<InstanceRow> =
            shown.iter().map(|one| InstanceRow::new(context, &selection, one, &activity, now)).collect();
        let address = |page: usize| selection.href(&selection.labels, page);
        // A task that waits for its window changes too rarely for a request a second.
        let is_active = shown
            .iter()
            .filter_map(|one| Some((one, one.newest.as_ref()?)))
            .any(|(one, task)| task.status.is_active() && one.instance.closed_until(task.scan_type, now).is_none());
        let shell = context.shell("Instances", Tab::Instances, address(page)).live(is_active).with_notice(notice);
        Ok(rendered(&InstancesPage {
            path: context.path(""),
            total,
            filters: selection.filters(),
            states,
            orders: selection.orders(),
            state: selection.state,
            kept: selection.kept(),
            view: address(page).split_once('?').map_or_else(String::new, |(_, query)| query.to_owned()),
            range: format!("{}–{} of {}", page * PAGE + 1, page * PAGE + rows.len(), listed.len()),
            has_any,
            can_search,
            earlier: page.checked_sub(1).map(address),
            later: (listed.len() > (page + 1) * PAGE).then(|| address(page + 1)),
            search: selection.search.clone(),
            shell,
            rows,
        }))
    }
}

impl InstanceRow {
    fn new(context: &PageContext, selection: &Selection, listed: &Listed, activity: &Activity, now: Timestamp) -> Self {
        let Listed { instance, newest, stale } = listed;
        let live = activity.active.get(&instance.id).and_then(|detail| LiveView::new(detail, instance, now));
        let last_end = newest.as_ref().and_then(|task| task.finished_at);
        let config = activity.auto_scans.get(&instance.id);
        let next = config.and_then(|config| next_run(now, config, instance, last_end));
        let stats = instance.stats.as_ref();
        let known = |format: fn(u64) -> String, value: Option<u64>| value.map_or_else(|| "–".to_owned(), format);
        let last = newest.as_ref().filter(|task| !task.status.is_active()).map(|task| LastScan {
            finished: RelativeTime::new(task.finished_at.unwrap_or(task.created_at), now),
            result: match &task.reason {
                Some(reason) => reason.to_string(),
                None => format!("{} reclaimed", format::count(task.reclaimed)),
            },
            has_failed: listed.has_failed(),
        });
        Self {
            id: instance.id.clone(),
            href: context.instance_path(instance),
            name: instance.name.clone(),
            url: instance.url.to_string(),
            labels: selection.with(instance),
            badge: Badge::of_instance(instance, newest.as_ref()),
            note: note(instance, live.as_ref()),
            percent: live.filter(|live| live.has_started).map(|live| live.percent),
            keys: known(format::count, stats.map(|stats| stats.keys)),
            memory: known(units::size, stats.map(|stats| stats.used_memory)),
            share: stale.map(|stale| (share_text(stale), format!("{:.1}", stale.share.clamp(0.0, 1.0) * 100.0))),
            reclaimable: stale.map_or_else(|| "–".to_owned(), bytes_text),
            last,
            next: next.map(|next| RelativeTime::new(next, now)),
        }
    }
}

/// Returns what an instance waits for, or what to do about its failed poll.
fn note(instance: &Instance, live: Option<&LiveView>) -> String {
    match (live, &instance.unreachable) {
        (Some(live), _) if !live.waits_for.is_empty() => format!("waits for {}", live.waits_for),
        (None, Some(failure)) if !instance.paused => NextStep::of(failure.code).short.to_owned(),
        _ => String::new(),
    }
}

/// Returns the mark of what was not measured, and the space after it.
fn mark(stale: Stale) -> &'static str {
    if stale.is_approximate { "≈\u{a0}" } else { "" }
}

fn share_text(stale: Stale) -> String {
    format!("{}{}", mark(stale), format::percent(stale.share))
}

fn bytes_text(stale: Stale) -> String {
    stale.bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{}{}", mark(stale), units::size(bytes)))
}

pub(super) async fn enter(State(state): State<ConsoleState>, request: Request) -> Result<Redirect, ConsoleError> {
    let context = state.authorize(request, Role::Reader).await?;
    Ok(Redirect::to(&context.path("instances")))
}

pub(super) async fn list(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Reader).await?;
    state.list_page(&context, &context.query, None).await
}
