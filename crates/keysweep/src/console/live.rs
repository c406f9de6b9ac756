//! The live view of an active scan, which several pages show.

use jiff::Timestamp;
use keysweep_engine::{ShardProgress, ShardStatus};

use super::format;
use crate::model::{Instance, ScanType, Status, TaskDetail};

/// A waiting or running scan.
pub(super) struct LiveView {
    pub(super) task_id: String,
    /// Status for screen readers. Changes rarely, because each change is read aloud.
    pub(super) announcement: &'static str,
    /// 0–100.
    pub(super) percent: u64,
    pub(super) has_started: bool,
    pub(super) reclaimed: String,
    pub(super) scanned: String,
    pub(super) rate: String,
    pub(super) left: String,
    pub(super) elapsed: String,
    pub(super) is_exact: bool,
    pub(super) is_stopping: bool,
    /// What the scan waits for; empty if it runs.
    pub(super) waits_for: String,
    pub(super) shards: Vec<ShardRow>,
    /// Why the stored progress cannot be read.
    pub(super) problem: Option<String>,
}

/// A shard of the scan: one primary.
pub(super) struct ShardRow {
    pub(super) address: String,
    pub(super) state: String,
    /// 0–100.
    pub(super) percent: u64,
    pub(super) reclaimed: String,
    pub(super) scanned: String,
    pub(super) rate: String,
    pub(super) left: String,
    pub(super) slice: String,
    pub(super) probe: String,
}

impl LiveView {
    /// Returns the view of a task; `None` if the task has finished.
    pub(super) fn new(detail: &TaskDetail, instance: &Instance, now: Timestamp) -> Option<Self> {
        let task = Some(&detail.task).filter(|task| task.status.is_active())?;
        // Progress of another version may be unreadable. The counts of the task itself are always shown.
        let (progress, problem) = match detail.read_progress() {
            Ok(progress) => (progress, None),
            Err(problem) => (None, Some(problem)),
        };
        let has_started = task.status == Status::Running && progress.is_some();
        let progress = progress.unwrap_or_default();
        let closed = instance.closed_until(task.scan_type, now);
        let waits_for = match (task.status, closed) {
            (Status::Waiting, Some(opens)) => {
                format!("its maintenance window, which opens {}", format::RelativeTime::new(opens, now).relative)
            }
            (Status::Waiting, None) => "a free worker and for other scans of its host to finish".to_owned(),
            _ => String::new(),
        };
        let announcement = match (task.status, task.cancel_requested, task.scan_type) {
            (Status::Waiting, _, ScanType::Manual) => "The scan is waiting.",
            (Status::Waiting, _, ScanType::Auto) => "The scheduled scan is waiting.",
            (_, true, _) => "The scan stops after its current slice.",
            (_, _, ScanType::Manual) => "The scan is running.",
            (_, _, ScanType::Auto) => "The scheduled scan is running.",
        };
        Some(Self {
            task_id: task.id.clone(),
            announcement,
            percent: percent(progress.fraction),
            has_started,
            reclaimed: format::count(task.reclaimed),
            scanned: format::count(task.scanned),
            rate: format::count(progress.keys_per_second as u64),
            left: progress.eta_seconds.map_or_else(|| "–".to_owned(), format::seconds),
            elapsed: format::seconds(task.used.as_secs_f64()),
            is_exact: task.exact,
            is_stopping: task.cancel_requested,
            waits_for,
            shards: progress.shards.into_iter().map(shard).collect(),
            problem,
        })
    }
}

fn shard(shard: ShardProgress) -> ShardRow {
    let has_slices = shard.slice_p50_seconds > 0.0;
    let state = match (shard.state, shard.database) {
        (ShardStatus::Scanning, Some(database)) => format!("scanning db {database}"),
        (state, _) => state.as_str().to_owned(),
    };
    ShardRow {
        address: shard.address.map(|address| address.to_string()).unwrap_or_default(),
        state,
        percent: percent(shard.fraction),
        reclaimed: format::count(shard.keys_reclaimed),
        scanned: format::count(shard.keys_scanned),
        rate: format::count(shard.keys_per_second as u64),
        left: shard.eta_seconds.map_or_else(|| "–".to_owned(), format::seconds),
        slice: format::latency_or_dash(Some(shard.slice_p50_seconds).filter(|_| has_slices)),
        probe: format::latency_or_dash(shard.probe_p90_seconds),
    }
}

/// Formats a share of 0–1 in whole percent, rounded down so that 100 means finished.
fn percent(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * 100.0) as u64
}
