//! The page of a task: live progress while it runs, and its report once it has finished.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{Redirect, Response},
};
use jiff::Timestamp;
use keysweep_engine::{Outcome, Remaining, Report, ShardReport, Throttled};

use super::{
    ConsoleState,
    error::{ConsoleError, rendered},
    format::{self, RelativeTime},
    history::{bytes_reclaimed, format_reclaimed, triggered_by},
    live::LiveView,
    shell::{Shell, Tab},
    status::Badge,
};
use crate::{
    model::{Role, Status},
    units,
};

#[derive(Template)]
#[template(path = "console/task.html")]
struct TaskPage {
    shell: Shell,
    id: String,
    instance_name: String,
    instance_path: String,
    badge: Badge,
    kind: &'static str,
    by: String,
    created: RelativeTime,
    started: Option<RelativeTime>,
    finished: Option<RelativeTime>,
    used: String,
    timeout: String,
    attempts: u32,
    /// Whether the task has finished and has scanned anything or succeeded: else its counts are left out.
    has_counts: bool,
    reclaimed: String,
    scanned: String,
    is_exact: bool,
    reason: Option<(String, String)>,
    live: Option<LiveView>,
    report: Option<ReportView>,
    /// Why the stored report cannot be read.
    problem: Option<String>,
}

struct ReportView {
    /// Whether the scan ran at all: else its times are left out.
    has_slices: bool,
    memory: String,
    left: String,
    expiry_rate: Option<String>,
    memory_before: String,
    memory_after: String,
    rss: String,
    elapsed: String,
    pace: String,
    cpu_share: String,
    server_time: String,
    slices: String,
    slice_p50: String,
    slice_p99: String,
    slice_max: String,
    probe_before: String,
    probe_during: String,
    backoffs: String,
    /// Keys that SCAN returned twice, about; `None`: none.
    repeated: Option<String>,
    throttled: Vec<(&'static str, String)>,
    warnings: Vec<String>,
    shards: Vec<ShardView>,
    json: String,
}

struct ShardView {
    address: String,
    server: String,
    word: &'static str,
    class: &'static str,
    message: Option<String>,
    databases: String,
    scanned: String,
    reclaimed: String,
    elapsed: String,
    cpu_share: String,
    slice_p99: String,
    probe: String,
}

/// Returns how many stale keys a scan has left.
fn stale_left(left: &Remaining) -> String {
    match left.stale_keys {
        0 => "none".to_owned(),
        keys => format!("about {} ({})", format::count(keys), format::percent(left.share)),
    }
}

/// Returns the reasons for which the scan was throttled, with the time spent on each.
fn throttled(throttled: &Throttled) -> Vec<(&'static str, String)> {
    let all = [
        ("a replica lagged behind", throttled.replica_lag),
        ("a replica was missing or synchronising", throttled.replica_missing),
        ("a background save ran", throttled.fork),
        ("expiration was paused", throttled.paused),
    ];
    all.into_iter().filter(|(_, value)| *value > 0.0).map(|(why, value)| (why, format::seconds(value))).collect()
}

fn shard(shard: ShardReport) -> ShardView {
    let (word, class) = match shard.outcome {
        Outcome::Done => ("done", "good"),
        Outcome::Failed => ("failed", "bad"),
    };
    let databases: Vec<String> = shard.databases.iter().map(u32::to_string).collect();
    ShardView {
        address: shard.address.map(|address| address.to_string()).unwrap_or_default(),
        server: shard.server.unwrap_or_default(),
        word,
        class,
        message: shard.message,
        databases: if databases.is_empty() { "–".to_owned() } else { databases.join(", ") },
        scanned: format::count(shard.totals.keys_scanned),
        reclaimed: format::count(shard.totals.keys_reclaimed),
        elapsed: format::seconds(shard.totals.elapsed_seconds),
        cpu_share: format::percent(shard.totals.cpu_share),
        slice_p99: format::latency(shard.totals.slice_seconds.p99),
        probe: format::latency_or_dash(shard.totals.probe_seconds.during_p90),
    }
}

impl ReportView {
    fn new(report: Report) -> Self {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), units::size);
        let left = report.totals.remaining;
        let expired = left.and_then(|left| left.expired_per_second);
        Self {
            has_slices: report.totals.slices > 0,
            memory: format_reclaimed(bytes_reclaimed(&report)),
            left: left.map_or_else(|| "unknown".to_owned(), |left| stale_left(&left)),
            expiry_rate: expired.map(|rate| format!("about {} a second", format::count(rate.round() as u64))),
            memory_before: size(report.totals.used_memory_before),
            memory_after: size(report.totals.used_memory_after),
            rss: format!("{} → {}", size(report.totals.rss_before), size(report.totals.rss_after)),
            elapsed: format::seconds(report.totals.elapsed_seconds),
            pace: report.pace.clone(),
            cpu_share: format::percent(report.totals.cpu_share),
            server_time: format::seconds(report.totals.server_seconds),
            slices: format::count(report.totals.slices),
            slice_p50: format::latency(report.totals.slice_seconds.p50),
            slice_p99: format::latency(report.totals.slice_seconds.p99),
            slice_max: format::latency(report.totals.slice_seconds.max),
            probe_before: format::latency_or_dash(report.totals.probe_seconds.baseline_p90),
            probe_during: format::latency_or_dash(report.totals.probe_seconds.during_p90),
            backoffs: format::count(report.totals.backoffs),
            repeated: Some(report.totals.keys_repeated).filter(|keys| *keys > 0).map(format::count),
            throttled: throttled(&report.totals.throttled),
            json: serde_json::to_string_pretty(&report).unwrap_or_default(),
            warnings: report.warnings,
            shards: report.shards.into_iter().map(shard).collect(),
        }
    }
}

pub(super) async fn show(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Reader).await?;
    let (project_id, task_id) = (&context.project.id, &context.authorized.subject_id);
    let detail = state.tasks.detail(project_id, task_id).await?.ok_or(ConsoleError::NotFound("task"))?;
    let instance = state.instances.get(project_id, &detail.task.instance_id).await?;
    let instance = instance.ok_or(ConsoleError::NotFound("instance"))?;
    let (now, task) = (Timestamp::now(), &detail.task);
    let live = LiveView::new(&detail, &instance, now);
    let (report, problem) = match detail.read_report() {
        Ok(report) => (report, None),
        // The live view names what an active task has.
        Err(problem) => (None, Some(problem).filter(|_| live.is_none())),
    };
    let shell =
        context.shell(format!("Scan of {}", instance.name), Tab::Instances, context.path(&format!("tasks/{task_id}")));
    let moment = |time: Timestamp| RelativeTime::new(time, now);
    Ok(rendered(&TaskPage {
        // A finished task does not change, so its page needs no refresh.
        shell: if live.is_some() { shell.live(true) } else { shell },
        id: task.id.clone(),
        instance_name: instance.name.clone(),
        instance_path: context.instance_path(&instance),
        badge: Badge::of_task(task),
        kind: task.scan_type.as_str(),
        by: triggered_by(task),
        created: moment(task.created_at),
        started: task.started_at.map(moment),
        finished: task.finished_at.map(moment),
        used: format::seconds(task.used.as_secs_f64()),
        timeout: format::seconds(task.timeout.as_secs_f64()),
        attempts: task.attempts,
        has_counts: live.is_none() && (task.scanned > 0 || task.status == Status::Success),
        reclaimed: format::count(task.reclaimed),
        scanned: format::count(task.scanned),
        is_exact: task.exact,
        reason: task.reason.as_ref().map(|reason| (reason.to_string(), task.reason_detail.clone().unwrap_or_default())),
        live,
        report: report.map(ReportView::new),
        problem,
    }))
}

pub(super) async fn cancel(State(state): State<ConsoleState>, request: Request) -> Result<Redirect, ConsoleError> {
    let context = state.authorize(request, Role::Operator).await?;
    let cancelled = state.tasks.cancel(&context.project.id, &context.authorized.subject_id, context.user()).await?;
    let task = cancelled.ok_or(ConsoleError::NotFound("task"))?.task;
    let page = match context.form.text("from") {
        "task" => context.path(&format!("tasks/{}", task.id)),
        _ => context.path(&format!("instances/{}", task.instance_id)),
    };
    Ok(Redirect::to(&format!("{page}?done=cancel")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_scan_has_left_are_shown_with_their_share() {
        let left =
            |stale_keys, share| stale_left(&Remaining { keys: 10_000, stale_keys, share, ..Remaining::default() });
        assert_eq!((left(0, 0.0), left(1_234, 0.1234)), ("none".into(), "about 1,234 (12.3\u{a0}%)".into()));
    }
}
