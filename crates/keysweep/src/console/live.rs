//! A scan under way, as a page shows it.

use jiff::Timestamp;
use keysweep_engine::{Progress, ShardProgress, ShardStatus};

use super::words;
use crate::model::{Instance, ScanType, Status, TaskDetail};

/// A scan that waits or runs.
pub(super) struct LiveView {
    pub(super) task_id: String,
    /// For whoever does not see the bar; changes only when something happens.
    pub(super) announcement: &'static str,
    /// 0–100.
    pub(super) percent: u64,
    pub(super) has_begun: bool,
    pub(super) released: String,
    pub(super) scanned: String,
    pub(super) rate: String,
    pub(super) left: String,
    pub(super) elapsed: String,
    pub(super) is_exact: bool,
    pub(super) is_stopping: bool,
    /// Why it waits, where that is known.
    pub(super) waits_for: String,
    pub(super) shards: Vec<ShardRow>,
}

/// One primary of it.
pub(super) struct ShardRow {
    pub(super) address: String,
    pub(super) state: String,
    /// 0–100.
    pub(super) percent: u64,
    pub(super) released: String,
    pub(super) scanned: String,
    pub(super) rate: String,
    pub(super) left: String,
    pub(super) slice: String,
    pub(super) probe: String,
}

impl LiveView {
    /// `None`: the task has ended.
    pub(super) fn new(detail: &TaskDetail, instance: &Instance, now: Timestamp) -> Option<Self> {
        let task = Some(&detail.task).filter(|task| task.status.is_active())?;
        // Another version's progress is shown as none: the numbers of the task itself are there in any case.
        let progress = detail.progress.as_deref().and_then(|text| serde_json::from_str::<Progress>(text).ok());
        let has_begun = task.status == Status::Running && progress.is_some();
        let progress = progress.unwrap_or_default();
        let closed = instance.closed_until(task.scan_type, now);
        let waits_for = match (task.status, closed) {
            (Status::Waiting, Some(opens)) => {
                format!("its off-peak window, which opens {}", words::Moment::new(opens, now).relative)
            }
            (Status::Waiting, None) => "a free worker, and for other scans of its host to end".to_owned(),
            _ => String::new(),
        };
        let announcement = match (task.status, task.cancel_requested, task.scan_type) {
            (Status::Waiting, _, ScanType::Manual) => "The scan waits.",
            (Status::Waiting, _, ScanType::Auto) => "The scheduled scan waits.",
            (_, true, _) => "The scan stops after its slice.",
            (_, _, ScanType::Manual) => "The scan runs.",
            (_, _, ScanType::Auto) => "The scheduled scan runs.",
        };
        Some(Self {
            task_id: task.id.clone(),
            announcement,
            percent: percent(progress.fraction),
            has_begun,
            released: words::count(task.released),
            scanned: words::count(task.scanned),
            rate: words::count(progress.keys_per_second as u64),
            left: progress.eta_seconds.map_or_else(|| "–".to_owned(), words::seconds),
            elapsed: words::seconds(task.used.as_secs_f64()),
            is_exact: task.exact,
            is_stopping: task.cancel_requested,
            waits_for,
            shards: progress.shards.into_iter().map(shard).collect(),
        })
    }
}

fn shard(shard: ShardProgress) -> ShardRow {
    let has_slices = shard.slice_p50_seconds > 0.0;
    let state = match (shard.state, shard.database) {
        (ShardStatus::Sweeping, Some(database)) => format!("sweeping db {database}"),
        (state, _) => state.as_str().to_owned(),
    };
    ShardRow {
        address: shard.address.map(|address| address.to_string()).unwrap_or_default(),
        state,
        percent: percent(shard.fraction),
        released: words::count(shard.keys_reclaimed),
        scanned: words::count(shard.keys_scanned),
        rate: words::count(shard.keys_per_second as u64),
        left: shard.eta_seconds.map_or_else(|| "–".to_owned(), words::seconds),
        slice: words::latency_or_dash(Some(shard.slice_p50_seconds).filter(|_| has_slices)),
        probe: words::latency_or_dash(shard.probe_p90_seconds),
    }
}

/// Never 100 before the end.
fn percent(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * 100.0) as u64
}
