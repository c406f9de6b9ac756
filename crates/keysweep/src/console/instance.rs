//! An instance's page: what its server holds, the scan that runs, the auto-scan, the history; and what can be done there.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Redirect, Response},
};
use jiff::Timestamp;
use keysweep_engine::Report;

use super::{
    Door, Guest,
    auto_scan::AutoScanForm,
    chart::{Chart, Run},
    error::{ConsoleError, UNPROCESSABLE, rendered},
    instances::dead_of,
    live::LiveView,
    shell::{Notice, Shell, Tab},
    status::Chip,
    words::{self, Moment},
};
use crate::{
    fleet::{AutoScanFault, FleetError, InstanceChange, LookError, can_be_swept},
    model::{AutoScan, Instance, Role, ScanType, Task, TaskDetail},
    store::PageRequest,
    task::schedule::next_run,
    units,
};

/// Runs on one page of the history.
const PAGE: u64 = 20;

#[derive(Template)]
#[template(path = "console/instance.html")]
struct InstancePage {
    shell: Shell,
    path: String,
    name: String,
    url: String,
    chip: Chip,
    is_paused: bool,
    can_be_swept: bool,
    unreachable: Option<String>,
    facts: Option<FactsView>,
    pace: String,
    window: String,
    manages_lazyfree: bool,
    live: Option<LiveView>,
    last: Option<LastView>,
    next: Option<Moment>,
    form: AutoScanForm,
    /// `None`: this answer brings only the live part up to date.
    history: Option<History>,
}

struct FactsView {
    server: String,
    keys: String,
    with_ttl: String,
    memory: String,
    limit: Option<String>,
    dead: String,
    seen: Moment,
}

struct LastView {
    href: String,
    chip: Chip,
    ended: Moment,
    released: String,
    /// Why it failed.
    detail: Option<String>,
}

struct History {
    rows: Vec<HistoryRow>,
    chart: Option<Chart>,
    summary: String,
    newer: Option<String>,
    older: Option<String>,
}

struct HistoryRow {
    href: String,
    begun: Moment,
    chip: Chip,
    kind: &'static str,
    by: String,
    took: String,
    scanned: String,
    released: String,
    memory: String,
}

/// Bytes that a run released; less than nothing where clients wrote more meanwhile.
pub(super) fn memory_released(report: &Report) -> Option<i128> {
    Some(i128::from(report.totals.used_memory_before?) - i128::from(report.totals.used_memory_after?))
}

/// The same in words.
pub(super) fn memory_words(released: Option<i128>) -> String {
    match released {
        None => "–".to_owned(),
        Some(released) => {
            let bytes = units::size(released.unsigned_abs().try_into().unwrap_or(u64::MAX));
            if released < 0 { format!("−{bytes}") } else { bytes }
        }
    }
}

impl Door {
    /// One page of it, with so many newer runs left out.
    async fn history(
        &self,
        guest: &Guest,
        instance: &Instance,
        offset: u64,
        now: Timestamp,
    ) -> Result<History, ConsoleError> {
        let page = self.tasks.page(instance, &PageRequest { status: None, offset, limit: PAGE }).await?;
        let (mut rows, mut runs) = (Vec::new(), Vec::new());
        // One that is active is shown for itself, and stays for the next page.
        let active = page.tasks.iter().filter(|task| task.status.is_active()).count() as u64;
        let ended = page.tasks.iter().filter(|task| !task.status.is_active());
        for TaskDetail { task, report, .. } in &self.tasks.details(&instance.project_id, ended).await? {
            let report = report.as_deref().and_then(|text| serde_json::from_str::<Report>(text).ok());
            let memory = report.as_ref().and_then(memory_released);
            let begun = Moment::new(task.started_at.unwrap_or(task.created_at), now);
            if report.is_some() {
                runs.push(Run {
                    begun: begun.utc.clone(),
                    memory_released: memory.and_then(|bytes| bytes.try_into().ok()).unwrap_or(0),
                    keys_released: task.released,
                    result: Chip::of_task(task),
                });
            }
            rows.push(HistoryRow {
                href: guest.path(&format!("tasks/{}", task.id)),
                begun,
                chip: Chip::of_task(task),
                kind: task.scan_type.as_str(),
                by: who(task),
                took: words::seconds(task.used.as_secs_f64()),
                scanned: words::count(task.scanned),
                released: words::count(task.released),
                memory: memory_words(memory),
            });
        }
        runs.reverse();
        let link = |offset: u64| format!("{}?older={offset}#history", guest.instance_path(instance));
        Ok(History {
            chart: Chart::new(&runs),
            summary: match page.count.saturating_sub(active) {
                1 => format!("One scan released {} keys.", words::count(page.released)),
                runs => format!("{} scans released {} keys.", words::count(runs), words::count(page.released)),
            },
            newer: (offset > 0).then(|| link(offset.saturating_sub(PAGE))),
            older: (page.count > offset + page.tasks.len() as u64 && !rows.is_empty()).then(|| link(offset + PAGE)),
            rows,
        })
    }

    /// The page, whatever led to it.
    async fn instance_page(
        &self,
        guest: &Guest,
        instance: &Instance,
        form: Option<AutoScanForm>,
        notice: Option<Notice>,
    ) -> Result<Response, ConsoleError> {
        let now = Timestamp::now();
        let newest = self.tasks.newest(std::slice::from_ref(instance)).await?.pop();
        let detail = match &newest {
            Some(task) => self.tasks.detail(&task.project_id, &task.id).await?,
            None => None,
        };
        let live = detail.as_ref().and_then(|detail| LiveView::new(detail, instance, now));
        let config = self.fleet.auto_scan(instance).await?.unwrap_or_else(|| AutoScan::unset(&instance.id));
        let last_end = newest.as_ref().and_then(|task| task.finished_at);
        let path = guest.instance_path(instance);
        let older = guest.query.text("older").parse::<u64>().unwrap_or(0);
        let page = if older == 0 { path.clone() } else { format!("{path}?older={older}") };
        let shell = guest.shell(instance.name.clone(), Tab::Instances, page);
        let history = match guest.query.text("part") {
            "live" => None,
            _ => Some(self.history(guest, instance, older, now).await?),
        };
        Ok(rendered(&InstancePage {
            shell: shell.live(live.is_some()).with_notice(notice),
            name: instance.name.clone(),
            url: instance.url.clone(),
            chip: Chip::of_instance(instance, newest.as_ref()),
            is_paused: instance.paused,
            can_be_swept: can_be_swept(instance),
            unreachable: instance.unreachable.clone(),
            facts: instance.facts.as_ref().map(|facts| FactsView {
                server: format!("{} {}, {}", facts.engine, facts.engine_version, facts.mode),
                keys: words::count(facts.keys),
                with_ttl: words::count(facts.keys_with_ttl),
                memory: units::size(facts.used_memory),
                limit: Some(facts.max_memory).filter(|limit| *limit > 0).map(units::size),
                dead: dead_of(facts.dead_keys, facts.keys),
                seen: Moment::new(facts.seen_at, now),
            }),
            pace: instance.pace.clone(),
            window: instance.window.clone().unwrap_or_else(|| "any time".to_owned()),
            manages_lazyfree: instance.manage_lazyfree,
            last: newest.as_ref().filter(|task| !task.status.is_active()).map(|task| LastView {
                href: guest.path(&format!("tasks/{}", task.id)),
                chip: Chip::of_task(task),
                ended: Moment::new(task.finished_at.unwrap_or(task.created_at), now),
                released: words::count(task.released),
                detail: task.reason_detail.clone(),
            }),
            next: next_run(now, &config, instance, last_end).map(|next| Moment::new(next, now)),
            form: form.unwrap_or_else(|| AutoScanForm::kept(&config, now)),
            live,
            history,
            path,
        }))
    }

    /// Looks at the server and shows what came of it.
    pub(super) async fn look_and_show(
        &self,
        guest: &Guest,
        instance: &Instance,
        done: &str,
        otherwise: &str,
    ) -> Result<Response, ConsoleError> {
        let failure = match self.fleet.look(instance).await {
            Ok(_) => return Ok(to_page(guest, instance, done).into_response()),
            Err(LookError::Server(failure)) => failure.to_string(),
            Err(LookError::Fleet(error @ (FleetError::Target { .. } | FleetError::Reach(_)))) => error.to_string(),
            Err(LookError::Fleet(error)) => return Err(error.into()),
        };
        let notice = Notice { is_good: false, text: format!("{otherwise}{failure}.") };
        // What was seen, even of one that cannot be swept, is kept by now.
        let seen = self.fleet.instance(&instance.project_id, &instance.id).await?;
        self.instance_page(guest, seen.as_ref().unwrap_or(instance), None, Some(notice)).await
    }
}

/// Who asked for a task.
pub(super) fn who(task: &Task) -> String {
    match (&task.requested_by, task.scan_type) {
        (Some(name), _) => name.clone(),
        (None, ScanType::Auto) => "the schedule".to_owned(),
        (None, ScanType::Manual) => "–".to_owned(),
    }
}

/// On to the page, which says what was done.
fn to_page(guest: &Guest, instance: &Instance, done: &str) -> Redirect {
    Redirect::to(&format!("{}?done={done}", guest.instance_path(instance)))
}

pub(super) async fn show(State(door): State<Door>, request: Request) -> Result<Response, ConsoleError> {
    let (guest, instance) = door.admit_to_instance(request, Role::Reader).await?;
    door.instance_page(&guest, &instance, None, None).await
}

pub(super) async fn scan(State(door): State<Door>, request: Request) -> Result<Redirect, ConsoleError> {
    let (guest, instance) = door.admit_to_instance(request, Role::Operator).await?;
    if !can_be_swept(&instance) {
        return Err(ConsoleError::Conflict("This server is no Redis or Valkey that keysweep can sweep.".into()));
    }
    door.tasks.submit(&instance, guest.caller.name.clone()).await?;
    Ok(to_page(&guest, &instance, "scan"))
}

pub(super) async fn test(State(door): State<Door>, request: Request) -> Result<Response, ConsoleError> {
    let (guest, instance) = door.admit_to_instance(request, Role::Admin).await?;
    door.look_and_show(&guest, &instance, "test", "The server could not be looked at: ").await
}

pub(super) async fn pause(State(door): State<Door>, request: Request) -> Result<Redirect, ConsoleError> {
    set_paused(door, request, true, "pause").await
}

pub(super) async fn resume(State(door): State<Door>, request: Request) -> Result<Redirect, ConsoleError> {
    set_paused(door, request, false, "resume").await
}

async fn set_paused(door: Door, request: Request, paused: bool, done: &str) -> Result<Redirect, ConsoleError> {
    let (guest, instance) = door.admit_to_instance(request, Role::Admin).await?;
    let change = InstanceChange { paused: Some(paused), ..InstanceChange::default() };
    door.fleet.change_instance(&instance, change, guest.by()).await?;
    Ok(to_page(&guest, &instance, done))
}

pub(super) async fn remove(State(door): State<Door>, request: Request) -> Result<Response, ConsoleError> {
    let (guest, instance) = door.admit_to_instance(request, Role::Admin).await?;
    if !guest.form.is_ticked("sure") {
        let text = "Nothing was removed: tick the box beside the button first.".to_owned();
        return door.instance_page(&guest, &instance, None, Some(Notice { is_good: false, text })).await;
    }
    door.fleet.remove_instance(&instance, guest.by()).await?;
    Ok(Redirect::to(&format!("{}?done=remove", guest.path("instances"))).into_response())
}

/// Why an auto-scan is as it was.
enum Unsaved {
    Faults(Vec<AutoScanFault>),
    Failed(FleetError),
}

impl From<FleetError> for Unsaved {
    fn from(error: FleetError) -> Self {
        Self::Failed(error)
    }
}

pub(super) async fn set_auto_scan(State(door): State<Door>, request: Request) -> Result<Response, ConsoleError> {
    let (guest, instance) = door.admit_to_instance(request, Role::Operator).await?;
    let (now, form) = (Timestamp::now(), AutoScanForm::typed(&guest.form));
    let kept = door.fleet.set_auto_scan(&instance, guest.by(), |before| {
        form.wish(&before, now).check(before, now).map_err(Unsaved::Faults)
    });
    match kept.await {
        Ok(_) => Ok(to_page(&guest, &instance, "auto-scan").into_response()),
        Err(Unsaved::Failed(error)) => Err(error.into()),
        Err(Unsaved::Faults(faults)) => {
            let form = form.with_faults(&faults);
            let text = "The auto-scan is not saved: see beside the fields.".to_owned();
            let notice = Some(Notice { is_good: false, text });
            Ok((UNPROCESSABLE, door.instance_page(&guest, &instance, Some(form), notice).await?).into_response())
        }
    }
}
