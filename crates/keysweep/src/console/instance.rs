//! The page of an instance: stats, active scan, auto-scan and history, with the actions on them.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Redirect, Response},
};
use jiff::Timestamp;
use keysweep_engine::{HoldLevel, Report};

use super::{
    ConsoleState, PageContext,
    auto_scan::{AdaptiveView, AutoScanForm, describe},
    chart::{Chart, Run},
    error::{ConsoleError, UNPROCESSABLE, rendered},
    estimate::EstimateView,
    format::{self, RelativeTime},
    hold::{HoldForm, HoldPart},
    instances::format_stale,
    labels::LabelLink,
    live::LiveView,
    selection::Selection,
    shell::{Notice, Shell, Tab},
    status::Badge,
};
use crate::{
    instances::{AutoScanFault, InstanceChange, InstanceError, PollError},
    model::{AutoScan, Instance, Role, ScanType, Stored, Task},
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
    badge: Badge,
    is_paused: bool,
    can_be_scanned: bool,
    unreachable: Option<String>,
    problems: Vec<String>,
    stats: Option<StatsView>,
    pace: String,
    window: String,
    manages_lazyfree: bool,
    labels: Vec<LabelLink>,
    estimate: EstimateView,
    live: Option<LiveView>,
    last: Option<LastView>,
    next: Option<RelativeTime>,
    form: AutoScanForm,
    adaptive: Option<AdaptiveView>,
    hold: HoldPart,
    /// `None`: the request refreshes the live parts only.
    history: Option<History>,
}

/// Forms to show instead of saved settings, since they were not saved.
#[derive(Default)]
struct Typed {
    auto_scan: Option<AutoScanForm>,
    hold: Option<HoldForm>,
}

struct StatsView {
    server: String,
    keys: String,
    with_ttl: String,
    memory: String,
    limit: Option<String>,
    stale: String,
    polled: RelativeTime,
}

struct LastView {
    href: String,
    badge: Badge,
    finished: RelativeTime,
    reclaimed: String,
    /// Why the scan failed.
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
    started: RelativeTime,
    badge: Badge,
    kind: &'static str,
    by: String,
    took: String,
    scanned: String,
    reclaimed: String,
    memory: String,
}

/// Returns the bytes that a scan reclaimed; negative if clients wrote more meanwhile.
pub(super) fn bytes_reclaimed(report: &Report) -> Option<i128> {
    Some(i128::from(report.totals.used_memory_before?) - i128::from(report.totals.used_memory_after?))
}

/// Formats reclaimed bytes; a dash if they are unknown.
pub(super) fn format_reclaimed(bytes: Option<i128>) -> String {
    match bytes {
        None => "–".to_owned(),
        Some(bytes) => {
            let size = units::size(bytes.unsigned_abs().try_into().unwrap_or(u64::MAX));
            if bytes < 0 { format!("−{size}") } else { size }
        }
    }
}

impl ConsoleState {
    /// Returns a page of the history that skips the `offset` newest scans.
    async fn history(
        &self,
        context: &PageContext,
        instance: &Instance,
        offset: u64,
        now: Timestamp,
    ) -> Result<History, ConsoleError> {
        let page = self.tasks.page(instance, &PageRequest { status: None, offset, limit: PAGE }).await?;
        let (mut rows, mut runs) = (Vec::new(), Vec::new());
        // The page shows an active scan in a section of its own.
        let active = page.tasks.iter().filter(|task| task.status.is_active()).count() as u64;
        let finished = page.tasks.iter().filter(|task| !task.status.is_active());
        for detail in &self.tasks.details(&instance.project_id, finished).await? {
            let (task, report) = (&detail.task, detail.read_report());
            let is_unreadable = report.is_err();
            let report = report.unwrap_or(None);
            let memory = report.as_ref().and_then(bytes_reclaimed);
            let started = RelativeTime::new(task.started_at.unwrap_or(task.created_at), now);
            if report.is_some() {
                runs.push(Run {
                    started: started.utc.clone(),
                    bytes_reclaimed: memory.and_then(|bytes| bytes.try_into().ok()).unwrap_or(0),
                    keys_reclaimed: task.reclaimed,
                    result: Badge::of_task(task),
                });
            }
            rows.push(HistoryRow {
                href: context.path(&format!("tasks/{}", task.id)),
                started,
                badge: Badge::of_task(task),
                kind: task.scan_type.as_str(),
                by: triggered_by(task),
                took: format::seconds(task.used.as_secs_f64()),
                scanned: format::count(task.scanned),
                reclaimed: format::count(task.reclaimed),
                memory: if is_unreadable { "report unreadable".to_owned() } else { format_reclaimed(memory) },
            });
        }
        runs.reverse();
        let link = |offset: u64| format!("{}?older={offset}#history", context.instance_path(instance));
        Ok(History {
            chart: Chart::new(&runs),
            summary: match page.count.saturating_sub(active) {
                1 => format!("One scan reclaimed {} keys.", format::count(page.reclaimed)),
                runs => format!("{} scans reclaimed {} keys.", format::count(runs), format::count(page.reclaimed)),
            },
            newer: (offset > 0).then(|| link(offset.saturating_sub(PAGE))),
            older: (page.count > offset + page.tasks.len() as u64 && !rows.is_empty()).then(|| link(offset + PAGE)),
            rows,
        })
    }

    /// Renders the page.
    async fn instance_page(
        &self,
        context: &PageContext,
        instance: &Instance,
        typed: Typed,
        notice: Option<Notice>,
    ) -> Result<Response, ConsoleError> {
        let now = Timestamp::now();
        let newest = self.tasks.newest(std::slice::from_ref(instance)).await?.pop();
        let detail = match &newest {
            Some(task) => self.tasks.detail(&task.project_id, &task.id).await?,
            None => None,
        };
        let live = detail.as_ref().and_then(|detail| LiveView::new(detail, instance, now));
        let config = self.instances.auto_scan(instance).await?.unwrap_or_else(|| AutoScan::unset(&instance.id));
        let last_end = newest.as_ref().and_then(|task| task.finished_at);
        let path = context.instance_path(instance);
        let older = context.query.text("older").parse::<u64>().unwrap_or(0);
        let page = if older == 0 { path.clone() } else { format!("{path}?older={older}") };
        let shell = context.shell(instance.name.clone(), Tab::Instances, page);
        let history = match context.query.text("part") {
            "live" => None,
            _ => Some(self.history(context, instance, older, now).await?),
        };
        Ok(rendered(&InstancePage {
            shell: shell.live(live.is_some()).with_notice(notice),
            name: instance.name.clone(),
            url: instance.url.to_string(),
            badge: Badge::of_instance(instance, newest.as_ref()),
            is_paused: instance.paused,
            can_be_scanned: instance.unsupported().is_none(),
            unreachable: instance.unreachable.clone(),
            problems: instance.problems(),
            stats: instance.stats.as_ref().map(|stats| StatsView {
                server: format!("{} {}, {}", stats.engine, stats.engine_version, stats.mode()),
                keys: format::count(stats.keys),
                with_ttl: format::count(stats.keys_with_ttl),
                memory: units::size(stats.used_memory),
                limit: Some(stats.max_memory).filter(|limit| *limit > 0).map(units::size),
                stale: format_stale(stats.stale_keys, stats.keys),
                polled: RelativeTime::new(stats.seen_at, now),
            }),
            pace: instance.pace.to_string(),
            window: instance.window.as_ref().map_or_else(|| "any time".to_owned(), Stored::to_string),
            manages_lazyfree: instance.manage_lazyfree,
            labels: Selection::all(context.path("instances")).with(instance),
            estimate: EstimateView::new(self.instances.latest_estimate(instance).await?, instance.sampling, now),
            last: newest.as_ref().filter(|task| !task.status.is_active()).map(|task| LastView {
                href: context.path(&format!("tasks/{}", task.id)),
                badge: Badge::of_task(task),
                finished: RelativeTime::new(task.finished_at.unwrap_or(task.created_at), now),
                reclaimed: format::count(task.reclaimed),
                detail: task.reason_detail.clone(),
            }),
            next: next_run(now, &config, instance, last_end).map(|next| RelativeTime::new(next, now)),
            adaptive: describe(&config),
            form: typed.auto_scan.unwrap_or_else(|| AutoScanForm::saved(&config, now)),
            hold: HoldPart::new(self.holds.get(instance).await?, typed.hold),
            live,
            history,
            path,
        }))
    }

    /// Polls the server and shows the result. `otherwise`: the notice that precedes the cause of a failure.
    pub(super) async fn poll_and_show(
        &self,
        context: &PageContext,
        instance: &Instance,
        done: &str,
        otherwise: &str,
    ) -> Result<Response, ConsoleError> {
        let failure = match self.instances.poll(instance).await {
            Ok(_) => return Ok(to_page(context, instance, done).into_response()),
            Err(PollError::Server(failure)) => failure.to_string(),
            Err(PollError::Instance(error @ (InstanceError::Unreadable { .. } | InstanceError::Connection(_)))) => {
                error.to_string()
            }
            Err(PollError::Instance(error)) => return Err(error.into()),
        };
        let notice = Notice { is_good: false, text: format!("{otherwise}{failure}.") };
        // The poll has saved its result, also for a server that cannot be scanned.
        let polled = self.instances.get(&instance.project_id, &instance.id).await?;
        self.instance_page(context, polled.as_ref().unwrap_or(instance), Typed::default(), Some(notice)).await
    }
}

/// Returns the user or schedule that created a task.
pub(super) fn triggered_by(task: &Task) -> String {
    match (&task.triggered_by, task.scan_type) {
        (Some(name), _) => name.clone(),
        (None, ScanType::Auto) => "the schedule".to_owned(),
        (None, ScanType::Manual) => "–".to_owned(),
    }
}

/// Redirects to the page, which shows a notice of the action.
fn to_page(context: &PageContext, instance: &Instance, done: &str) -> Redirect {
    Redirect::to(&format!("{}?done={done}", context.instance_path(instance)))
}

pub(super) async fn show(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Reader).await?;
    state.instance_page(&context, &instance, Typed::default(), None).await
}

pub(super) async fn scan(State(state): State<ConsoleState>, request: Request) -> Result<Redirect, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Operator).await?;
    state.tasks.submit(&instance, context.authorized.caller.name.clone()).await?;
    Ok(to_page(&context, &instance, "scan"))
}

pub(super) async fn test(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Admin).await?;
    state.poll_and_show(&context, &instance, "test", "The server could not be polled: ").await
}

pub(super) async fn pause(State(state): State<ConsoleState>, request: Request) -> Result<Redirect, ConsoleError> {
    set_paused(state, request, true, "pause").await
}

pub(super) async fn resume(State(state): State<ConsoleState>, request: Request) -> Result<Redirect, ConsoleError> {
    set_paused(state, request, false, "resume").await
}

async fn set_paused(state: ConsoleState, request: Request, paused: bool, done: &str) -> Result<Redirect, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Admin).await?;
    let change = InstanceChange { paused: Some(paused), ..InstanceChange::default() };
    state.instances.change(&instance, change, context.user()).await?;
    Ok(to_page(&context, &instance, done))
}

pub(super) async fn remove(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Admin).await?;
    if !context.form.is_ticked("sure") {
        let text = "Nothing was removed: tick the box beside the button first.".to_owned();
        let notice = Some(Notice { is_good: false, text });
        return state.instance_page(&context, &instance, Typed::default(), notice).await;
    }
    state.instances.remove(&instance, context.user()).await?;
    Ok(Redirect::to(&format!("{}?done=remove", context.path("instances"))).into_response())
}

/// Why auto-scan settings were not saved.
enum Unsaved {
    /// Fields of the form are invalid.
    Faults(Vec<AutoScanFault>),
    Failed(InstanceError),
}

impl From<InstanceError> for Unsaved {
    fn from(error: InstanceError) -> Self {
        Self::Failed(error)
    }
}

pub(super) async fn set_auto_scan(
    State(state): State<ConsoleState>,
    request: Request,
) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Operator).await?;
    let (now, form) = (Timestamp::now(), AutoScanForm::typed(&context.form));
    let saved = state.instances.set_auto_scan(&instance, context.user(), |before| {
        form.update(&before, now).check(before, now).map_err(Unsaved::Faults)
    });
    match saved.await {
        Ok(_) => Ok(to_page(&context, &instance, "auto-scan").into_response()),
        Err(Unsaved::Failed(error)) => Err(error.into()),
        Err(Unsaved::Faults(faults)) => {
            let typed = Typed { auto_scan: Some(form.with_faults(&faults)), ..Typed::default() };
            let text = "The auto-scan is not saved: see the errors beside the fields.".to_owned();
            let notice = Some(Notice { is_good: false, text });
            Ok((UNPROCESSABLE, state.instance_page(&context, &instance, typed, notice).await?).into_response())
        }
    }
}

pub(super) async fn set_hold(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Admin).await?;
    let form = HoldForm::typed(&context.form);
    let error = match form.policy(state.holds.get(&instance).await?.policy) {
        Ok(policy) => {
            state.holds.set(&instance, policy, context.user()).await?;
            return Ok(to_page(&context, &instance, "hold").into_response());
        }
        Err(error) => error,
    };
    let typed = Typed { hold: Some(HoldForm { error, ..form }), ..Typed::default() };
    let notice = Notice { is_good: false, text: "The target is not saved: see the error in the form.".to_owned() };
    Ok((UNPROCESSABLE, state.instance_page(&context, &instance, typed, Some(notice)).await?).into_response())
}
