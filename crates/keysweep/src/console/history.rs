//! The finished scans of an instance, page by page.

use jiff::Timestamp;
use keysweep_engine::Report;

use super::{
    ConsoleState,
    error::ConsoleError,
    format::{self, RelativeTime},
    state::PageContext,
    status::Badge,
};
use crate::{
    model::{Instance, ScanType, Task},
    store::PageRequest,
    units,
};

/// Scans on one page.
const PAGE: u64 = 20;

/// A page of the finished scans of an instance.
pub(super) struct History {
    pub(super) rows: Vec<HistoryRow>,
    pub(super) summary: String,
    pub(super) newer: Option<String>,
    pub(super) older: Option<String>,
}

/// A finished scan.
pub(super) struct HistoryRow {
    pub(super) href: String,
    pub(super) started: RelativeTime,
    pub(super) badge: Badge,
    pub(super) kind: &'static str,
    pub(super) by: String,
    pub(super) took: String,
    pub(super) scanned: String,
    pub(super) reclaimed: String,
    pub(super) memory: String,
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
    pub(super) async fn history(
        &self,
        context: &PageContext,
        instance: &Instance,
        offset: u64,
        now: Timestamp,
    ) -> Result<History, ConsoleError> {
        let page = self.tasks.page(instance, &PageRequest { status: None, offset, limit: PAGE }).await?;
        let mut rows = Vec::new();
        // The page shows an active scan in a section of its own.
        let active = page.tasks.iter().filter(|task| task.status.is_active()).count() as u64;
        let finished = page.tasks.iter().filter(|task| !task.status.is_active());
        for detail in &self.tasks.details(&instance.project_id, finished).await? {
            let (task, report) = (&detail.task, detail.read_report());
            let is_unreadable = report.is_err();
            let report = report.unwrap_or(None);
            let memory = report.as_ref().and_then(bytes_reclaimed);
            let started = RelativeTime::new(task.started_at.unwrap_or(task.created_at), now);
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
        let link = |offset: u64| format!("{}?older={offset}#history", context.instance_path(instance));
        Ok(History {
            summary: match page.count.saturating_sub(active) {
                1 => format!("One scan reclaimed {} keys.", format::count(page.reclaimed)),
                runs => format!("{} scans reclaimed {} keys.", format::count(runs), format::count(page.reclaimed)),
            },
            newer: (offset > 0).then(|| link(offset.saturating_sub(PAGE))),
            older: (page.count > offset + page.tasks.len() as u64 && !rows.is_empty()).then(|| link(offset + PAGE)),
            rows,
        })
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
