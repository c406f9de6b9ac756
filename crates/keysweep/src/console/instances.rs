//! The instances of a project: how each stands, what its server holds, when it was and will be scanned.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{Redirect, Response},
};
use jiff::Timestamp;

use super::{
    Door, Guest,
    error::{ConsoleError, rendered},
    live::LiveView,
    shell::{Shell, Tab},
    status::Chip,
    words::{self, Moment},
};
use crate::{
    model::{AutoScan, Instance, Role, Task, TaskDetail},
    task::schedule::next_run,
    units,
};

/// Instances on one page.
const PAGE: usize = 50;
/// Instances that are overlooked without a search.
const FEW: usize = 8;

#[derive(Template)]
#[template(path = "console/instances.html")]
struct InstancesPage {
    shell: Shell,
    rows: Vec<Row>,
    /// Of all that fit the search, not only of this page.
    total: Total,
    search: String,
    has_any: bool,
    /// A search of a few would be in the way.
    can_search: bool,
    earlier: Option<String>,
    later: Option<String>,
}

struct Total {
    instances: String,
    keys: String,
    dead: String,
    memory: String,
}

struct Row {
    href: String,
    name: String,
    url: String,
    chip: Chip,
    /// Of the scan that runs, 0–100.
    percent: Option<u64>,
    keys: String,
    with_ttl: String,
    memory: String,
    dead: String,
    last: Option<(Moment, String)>,
    next: Option<Moment>,
}

/// A number and its share of another: `208,481 (20.4 %)`; a dash where it is not known.
pub(super) fn dead_of(dead: Option<u64>, keys: u64) -> String {
    match dead {
        None => "–".to_owned(),
        Some(0) => "0".to_owned(),
        Some(dead) => format!("{} ({})", words::count(dead), words::percent(dead as f64 / keys.max(1) as f64)),
    }
}

/// What is known of the instances on one page, by their ids.
struct Standings {
    newest: HashMap<String, Task>,
    /// Of the newest tasks, those that are active.
    active: HashMap<String, TaskDetail>,
    auto_scans: HashMap<String, AutoScan>,
}

impl Door {
    async fn standings(&self, project_id: &str, instances: &[Instance]) -> Result<Standings, ConsoleError> {
        let newest = self.tasks.newest(instances).await?;
        let active = self.tasks.details(project_id, newest.iter().filter(|task| task.status.is_active())).await?;
        let auto_scans = self.fleet.auto_scans(instances).await?;
        Ok(Standings {
            active: active.into_iter().map(|detail| (detail.task.instance_id.clone(), detail)).collect(),
            newest: newest.into_iter().map(|task| (task.instance_id.clone(), task)).collect(),
            auto_scans: auto_scans.into_iter().map(|config| (config.instance_id.clone(), config)).collect(),
        })
    }
}

impl Row {
    fn new(guest: &Guest, instance: &Instance, standings: &Standings, now: Timestamp) -> Self {
        let newest = standings.newest.get(&instance.id);
        let live = standings.active.get(&instance.id).and_then(|detail| LiveView::new(detail, instance, now));
        let last_end = newest.and_then(|task| task.finished_at);
        let config = standings.auto_scans.get(&instance.id);
        let next = config.and_then(|config| next_run(now, config, instance, last_end));
        let facts = instance.facts.as_ref();
        let known = |words: fn(u64) -> String, value: Option<u64>| value.map_or_else(|| "–".to_owned(), words);
        let last = newest.filter(|task| !task.status.is_active()).map(|task| {
            let released = format!("{} released", words::count(task.released));
            (Moment::new(task.finished_at.unwrap_or(task.created_at), now), released)
        });
        Self {
            href: guest.instance_path(instance),
            name: instance.name.clone(),
            url: instance.url.clone(),
            chip: Chip::of_instance(instance, newest),
            percent: live.map(|live| live.percent),
            keys: known(words::count, facts.map(|facts| facts.keys)),
            with_ttl: known(words::count, facts.map(|facts| facts.keys_with_ttl)),
            memory: known(units::size, facts.map(|facts| facts.used_memory)),
            dead: facts.map_or_else(|| "–".to_owned(), |facts| dead_of(facts.dead_keys, facts.keys)),
            last,
            next: next.map(|next| Moment::new(next, now)),
        }
    }
}

pub(super) async fn enter(State(door): State<Door>, request: Request) -> Result<Redirect, ConsoleError> {
    let guest = door.admit(request, Role::Reader).await?;
    Ok(Redirect::to(&guest.path("instances")))
}

pub(super) async fn list(State(door): State<Door>, request: Request) -> Result<Response, ConsoleError> {
    let guest = door.admit(request, Role::Reader).await?;
    let (now, search) = (Timestamp::now(), guest.query.text("search").to_owned());
    let mut instances = door.fleet.instances_of(&guest.project.id).await?;
    let (has_any, can_search) = (!instances.is_empty(), instances.len() > FEW);
    let wanted = search.to_lowercase();
    instances.retain(|found| found.name.to_lowercase().contains(&wanted) || found.url.contains(&wanted));
    let sum = |part: fn(&crate::model::Facts) -> u64| {
        instances.iter().filter_map(|found| found.facts.as_ref()).map(part).fold(0, u64::saturating_add)
    };
    let keys = sum(|facts| facts.keys);
    let total = Total {
        instances: words::count(instances.len() as u64),
        keys: words::count(keys),
        dead: dead_of(Some(sum(|facts| facts.dead_keys.unwrap_or(0))), keys),
        memory: units::size(sum(|facts| facts.used_memory)),
    };
    let page = guest.query.text("page").parse::<usize>().unwrap_or(0).min(instances.len().saturating_sub(1) / PAGE);
    let shown = instances.chunks(PAGE).nth(page).unwrap_or_default();
    let standings = door.standings(&guest.project.id, shown).await?;
    let rows: Vec<Row> = shown.iter().map(|instance| Row::new(&guest, instance, &standings, now)).collect();
    let query = |page: usize| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if !search.is_empty() {
            query.append_pair("search", &search);
        }
        format!("{}?{}", guest.path("instances"), query.append_pair("page", &page.to_string()).finish())
    };
    let earlier = page.checked_sub(1).map(query);
    let later = (instances.len() > (page + 1) * PAGE).then(|| query(page + 1));
    let is_lively = rows.iter().any(|row| row.percent.is_some());
    let shell = guest.shell("Instances", Tab::Instances, query(page)).live(is_lively);
    Ok(rendered(&InstancesPage { shell, rows, total, search, has_any, can_search, earlier, later }))
}
