//! A task's page: how it goes while it runs, and its report once it has ended.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{Redirect, Response},
};
use jiff::Timestamp;
use keysweep_engine::{Outcome, Report, ShardReport, Throttled};

use super::{
    Door,
    error::{ConsoleError, rendered},
    instance::{memory_released, memory_words, who},
    live::LiveView,
    shell::{Shell, Tab},
    status::Chip,
    words::{self, Moment},
};
use crate::{model::Role, units};

#[derive(Template)]
#[template(path = "console/task.html")]
struct TaskPage {
    shell: Shell,
    id: String,
    instance_name: String,
    instance_path: String,
    chip: Chip,
    kind: &'static str,
    by: String,
    created: Moment,
    started: Option<Moment>,
    finished: Option<Moment>,
    used: String,
    timeout: String,
    attempts: u32,
    released: String,
    scanned: String,
    is_exact: bool,
    reason: Option<(&'static str, String)>,
    live: Option<LiveView>,
    report: Option<ReportView>,
}

struct ReportView {
    memory: String,
    memory_before: String,
    memory_after: String,
    rss: String,
    elapsed: String,
    pace: String,
    duty: String,
    server_time: String,
    slices: String,
    slice_p50: String,
    slice_p99: String,
    slice_max: String,
    probe_before: String,
    probe_during: String,
    backoffs: String,
    held: Vec<(&'static str, String)>,
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
    released: String,
    elapsed: String,
    duty: String,
    slice_p99: String,
    probe: String,
}

fn held(held: &Throttled) -> Vec<(&'static str, String)> {
    let all = [
        ("a replica lagged behind", held.replica_lag),
        ("a replica was missing or synchronising", held.replica_missing),
        ("the server was saving in a child process", held.fork),
        ("expiry was paused", held.paused),
    ];
    all.into_iter().filter(|(_, value)| *value > 0.0).map(|(why, value)| (why, words::seconds(value))).collect()
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
        scanned: words::count(shard.totals.keys_scanned),
        released: words::count(shard.totals.keys_reclaimed),
        elapsed: words::seconds(shard.totals.elapsed_seconds),
        duty: words::percent(shard.totals.cpu_share),
        slice_p99: words::latency(shard.totals.slice_seconds.p99),
        probe: words::latency_or_dash(shard.totals.probe_seconds.during_p90),
    }
}

impl ReportView {
    /// `None`: it is another version's, or none.
    fn read(text: &str) -> Option<Self> {
        let report: Report = serde_json::from_str(text).ok()?;
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), units::size);
        Some(Self {
            memory: memory_words(memory_released(&report)),
            memory_before: size(report.totals.used_memory_before),
            memory_after: size(report.totals.used_memory_after),
            rss: format!("{} → {}", size(report.totals.rss_before), size(report.totals.rss_after)),
            elapsed: words::seconds(report.totals.elapsed_seconds),
            pace: report.pace.clone(),
            duty: words::percent(report.totals.cpu_share),
            server_time: words::seconds(report.totals.server_seconds),
            slices: words::count(report.totals.slices),
            slice_p50: words::latency(report.totals.slice_seconds.p50),
            slice_p99: words::latency(report.totals.slice_seconds.p99),
            slice_max: words::latency(report.totals.slice_seconds.max),
            probe_before: words::latency_or_dash(report.totals.probe_seconds.baseline_p90),
            probe_during: words::latency_or_dash(report.totals.probe_seconds.during_p90),
            backoffs: words::count(report.totals.backoffs),
            held: held(&report.totals.throttled),
            json: serde_json::to_string_pretty(&report).unwrap_or_default(),
            warnings: report.warnings,
            shards: report.shards.into_iter().map(shard).collect(),
        })
    }
}

pub(super) async fn show(State(door): State<Door>, request: Request) -> Result<Response, ConsoleError> {
    let guest = door.admit(request, Role::Reader).await?;
    let (project_id, task_id) = (&guest.project.id, &guest.subject_id);
    let detail = door.tasks.detail(project_id, task_id).await?.ok_or(ConsoleError::NotFound("task"))?;
    let instance = door.fleet.instance(project_id, &detail.task.instance_id).await?;
    let instance = instance.ok_or(ConsoleError::NotFound("instance"))?;
    let (now, task) = (Timestamp::now(), &detail.task);
    let live = LiveView::new(&detail, &instance, now);
    let shell =
        guest.shell(format!("Scan of {}", instance.name), Tab::Instances, guest.path(&format!("tasks/{task_id}")));
    let moment = |time: Timestamp| Moment::new(time, now);
    Ok(rendered(&TaskPage {
        // Once it has ended nothing changes any more.
        shell: if live.is_some() { shell.live(true) } else { shell },
        id: task.id.clone(),
        instance_name: instance.name.clone(),
        instance_path: guest.instance_path(&instance),
        chip: Chip::of_task(task),
        kind: task.scan_type.as_str(),
        by: who(task),
        created: moment(task.created_at),
        started: task.started_at.map(moment),
        finished: task.finished_at.map(moment),
        used: words::seconds(task.used.as_secs_f64()),
        timeout: words::seconds(task.timeout.as_secs_f64()),
        attempts: task.attempts,
        released: words::count(task.released),
        scanned: words::count(task.scanned),
        is_exact: task.exact,
        reason: task.reason.map(|reason| (reason.as_str(), task.reason_detail.clone().unwrap_or_default())),
        live,
        report: detail.report.as_deref().and_then(ReportView::read),
    }))
}

pub(super) async fn cancel(State(door): State<Door>, request: Request) -> Result<Redirect, ConsoleError> {
    let guest = door.admit(request, Role::Operator).await?;
    let cancelled = door.tasks.cancel(&guest.project.id, &guest.subject_id, guest.by()).await?;
    let task = cancelled.ok_or(ConsoleError::NotFound("task"))?.task;
    let page = match guest.form.text("from") {
        "task" => guest.path(&format!("tasks/{}", task.id)),
        _ => guest.path(&format!("instances/{}", task.instance_id)),
    };
    Ok(Redirect::to(&format!("{page}?done=cancel")))
}
