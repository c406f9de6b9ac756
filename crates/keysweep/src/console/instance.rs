//! The page of an instance: its last 30 days, stats, active scan, auto-scan and history, with the actions on them.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Redirect, Response},
};
use jiff::{Timestamp, ToSpan};
use keysweep_engine::HoldLevel;

use super::{
    ConsoleState,
    auto_scan::{AdaptiveView, AutoScanForm, Unsaved, describe},
    error::{ConsoleError, UNPROCESSABLE, rendered},
    estimate::{EstimateView, Headline},
    format::{self, RelativeTime},
    history::History,
    hold::{HoldForm, HoldPart},
    instances::format_stale,
    labels::LabelLink,
    live::LiveView,
    selection::Selection,
    shell::{Notice, Shell, Tab},
    state::PageContext,
    status::{Badge, Trouble, has_failed},
    trend::{self, Trend},
};
use crate::{
    instances::{AutoScanFault, InstanceChange, InstanceError, PollError},
    model::{AutoScan, Instance, Role, ScanType, Stored},
    task::schedule::{next_run, next_runs},
    units,
};

/// Runs that the form of an auto-scan announces.
const PREVIEWED_RUNS: usize = 3;

#[derive(Template)]
#[template(path = "console/instance.html")]
struct InstancePage {
    shell: Shell,
    path: String,
    name: String,
    url: String,
    badge: Badge,
    is_paused: bool,
    /// Whether a scan could start at all: keysweep supports the server, as far as it is known.
    can_be_scanned: bool,
    /// Whether a scan is likely to succeed: the last poll did, and no setting that scans depend on is unreadable.
    is_ready: bool,
    /// Why the last poll failed, and what to do.
    trouble: Option<Trouble>,
    problems: Vec<String>,
    stats: Option<StatsView>,
    pace: String,
    window: String,
    manages_lazyfree: bool,
    labels: Vec<LabelLink>,
    headline: Headline,
    /// `None`: the request refreshes the live parts of a scan only.
    trend: Option<Trend>,
    estimate: EstimateView,
    live: Option<LiveView>,
    last: Option<LastView>,
    next: Option<RelativeTime>,
    form: AutoScanForm,
    adaptive: Option<AdaptiveView>,
    runs: Vec<RelativeTime>,
    /// Whether the runs are those of typed settings, which are not saved.
    is_preview: bool,
    hold: HoldPart,
    /// `None` as the trend is.
    history: Option<History>,
}

/// Forms to show instead of saved settings, since they were not saved.
#[derive(Default)]
struct Typed {
    auto_scan: Option<AutoScanForm>,
    /// Valid settings whose runs are shown.
    previewed: Option<AutoScan>,
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
    /// Why the scan failed, a code and a sentence.
    failure: Option<(String, String)>,
}

impl ConsoleState {
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
        let (hold, latest) = (self.holds.get(instance).await?, self.instances.latest_estimate(instance).await?);
        let share = self.latest_shares(std::slice::from_ref(instance)).await?.remove(&instance.id);
        let (trend, history) = match context.query.text("part") {
            "live" => (None, None),
            _ => {
                let (points, marks) = self.instances.estimates_since(instance, now - trend::HOURS.hours()).await?;
                let trend = Trend::new(&points, &marks, &hold.policy, &config, now);
                (Some(trend), Some(self.history(context, instance, older, now).await?))
            }
        };
        Ok(rendered(&InstancePage {
            shell: shell.live(live.is_some()).with_notice(notice),
            name: instance.name.clone(),
            url: instance.url.to_string(),
            badge: Badge::of_instance(instance, newest.as_ref()),
            is_paused: instance.paused,
            can_be_scanned: instance.unsupported().is_none(),
            is_ready: instance.unreachable.is_none() && instance.blocking_field(ScanType::Manual).is_none(),
            trouble: instance.unreachable.as_ref().map(Trouble::new),
            problems: instance.problems(),
            stats: instance.stats.as_ref().map(|stats| StatsView {
                server: format!("{} {}, {}", stats.engine, stats.engine_version, stats.mode()),
                keys: format::count(stats.keys),
                with_ttl: format::count(stats.keys_with_ttl),
                memory: units::size(stats.used_memory),
                limit: Some(stats.max_memory).filter(|limit| *limit > 0).map(units::size),
                stale: format_stale(instance, share),
                polled: RelativeTime::new(stats.seen_at, now),
            }),
            pace: instance.pace.to_string(),
            window: instance.window.as_ref().map_or_else(|| "any time".to_owned(), Stored::to_string),
            manages_lazyfree: instance.manage_lazyfree,
            labels: Selection::all(context.path("instances")).with(instance),
            headline: Headline::new(&latest, &hold, instance.sampling),
            trend,
            estimate: EstimateView::new(latest, instance.sampling, now),
            last: newest.as_ref().filter(|task| !task.status.is_active()).map(|task| LastView {
                href: context.path(&format!("tasks/{}", task.id)),
                badge: Badge::of_task(task),
                finished: RelativeTime::new(task.finished_at.unwrap_or(task.created_at), now),
                reclaimed: format::count(task.reclaimed),
                failure: Some(task).filter(|task| has_failed(task)).map(|task| {
                    let reason = task.reason.as_ref().map_or_else(String::new, ToString::to_string);
                    (reason, task.reason_detail.clone().unwrap_or_default())
                }),
            }),
            next: next_run(now, &config, instance, last_end).map(|next| RelativeTime::new(next, now)),
            adaptive: describe(&config),
            runs: match (&typed.previewed, &typed.auto_scan) {
                // The form shows settings that are not valid, which have no runs.
                (None, Some(_)) => Vec::new(),
                (previewed, _) => {
                    let config = previewed.as_ref().unwrap_or(&config);
                    let runs = next_runs(now, config, instance, last_end, PREVIEWED_RUNS);
                    runs.into_iter().map(|run| RelativeTime::new(run, now)).collect()
                }
            },
            is_preview: typed.previewed.is_some(),
            form: typed.auto_scan.unwrap_or_else(|| AutoScanForm::saved(&config, now)),
            hold: HoldPart::new(hold, typed.hold, instance.paused, now),
            live,
            history,
            path,
        }))
    }

    /// Shows when the scans of typed settings would run, without saving the settings.
    async fn preview(
        &self,
        context: &PageContext,
        instance: &Instance,
        form: AutoScanForm,
        now: Timestamp,
    ) -> Result<Response, ConsoleError> {
        let before = self.instances.auto_scan(instance).await?.unwrap_or_else(|| AutoScan::unset(&instance.id));
        match form.update(&before, now).check(before, now) {
            Ok(previewed) => {
                let typed = Typed { auto_scan: Some(form), previewed: Some(previewed), ..Typed::default() };
                self.instance_page(context, instance, typed, None).await
            }
            Err(faults) => self.with_faults(context, instance, form, &faults).await,
        }
    }

    /// Shows an auto-scan form again, with an error beside each invalid field.
    async fn with_faults(
        &self,
        context: &PageContext,
        instance: &Instance,
        form: AutoScanForm,
        faults: &[AutoScanFault],
    ) -> Result<Response, ConsoleError> {
        let typed = Typed { auto_scan: Some(form.with_faults(faults)), ..Typed::default() };
        let notice = Some(Notice::bad("The auto-scan is not saved: see the errors beside the fields."));
        Ok((UNPROCESSABLE, self.instance_page(context, instance, typed, notice).await?).into_response())
    }

    /// Polls the server and shows the result. `otherwise`: the notice that precedes the cause of a failure.
    pub(super) async fn poll_and_show(
        &self,
        context: &PageContext,
        instance: &Instance,
        done: &str,
        otherwise: &str,
    ) -> Result<Response, ConsoleError> {
        let failure = match self.instances.poll_on_request(instance).await {
            Ok(_) => return Ok(to_page(context, instance, done).into_response()),
            Err(error @ (PollError::Server(_) | PollError::Busy(_))) => error.to_string(),
            Err(PollError::Instance(error @ (InstanceError::Unreadable { .. } | InstanceError::Connection(_)))) => {
                error.to_string()
            }
            Err(PollError::Instance(error)) => return Err(error.into()),
        };
        let notice = Notice::bad(format!("{otherwise}{failure}."));
        // The poll has saved its result, also for a server that cannot be scanned.
        let polled = self.instances.get(&instance.project_id, &instance.id).await?;
        self.instance_page(context, polled.as_ref().unwrap_or(instance), Typed::default(), Some(notice)).await
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
        let notice = Some(Notice::bad("Nothing was removed: tick the box beside the button first."));
        return state.instance_page(&context, &instance, Typed::default(), notice).await;
    }
    state.instances.remove(&instance, context.user()).await?;
    Ok(Redirect::to(&format!("{}?done=remove", context.path("instances"))).into_response())
}

pub(super) async fn set_auto_scan(
    State(state): State<ConsoleState>,
    request: Request,
) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Operator).await?;
    let (now, form) = (Timestamp::now(), AutoScanForm::typed(&context.form));
    if context.form.is_ticked("preview") {
        return state.preview(&context, &instance, form, now).await;
    }
    let saved = state.instances.set_auto_scan(&instance, context.user(), |before| {
        form.update(&before, now).check(before, now).map_err(Unsaved::Faults)
    });
    match saved.await {
        Ok(_) => Ok(to_page(&context, &instance, "auto-scan").into_response()),
        Err(Unsaved::Failed(error)) => Err(error.into()),
        Err(Unsaved::Faults(faults)) => state.with_faults(&context, &instance, form, &faults).await,
    }
}

pub(super) async fn restore(State(state): State<ConsoleState>, request: Request) -> Result<Redirect, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Operator).await?;
    state.holds.restore(&instance, context.user()).await?;
    Ok(to_page(&context, &instance, "restore"))
}

pub(super) async fn set_hold(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Admin).await?;
    let form = HoldForm::typed(&context.form);
    let form = match form.policy(state.holds.get(&instance).await?.policy) {
        Ok(policy) => {
            state.holds.set(&instance, policy, context.user()).await?;
            return Ok(to_page(&context, &instance, "hold").into_response());
        }
        Err(form) => *form,
    };
    let typed = Typed { hold: Some(form), ..Typed::default() };
    let notice = Notice::bad("The target is not saved: see the errors beside the fields.");
    Ok((UNPROCESSABLE, state.instance_page(&context, &instance, typed, Some(notice)).await?).into_response())
}
