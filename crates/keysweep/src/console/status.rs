//! The status of an instance or a task as a coloured badge.

use crate::model::{Instance, Reason, Status, Task};

/// A word in a coloured frame. The colour adds no information that the word does not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Badge {
    pub(super) word: &'static str,
    pub(super) class: &'static str,
}

const fn badge(word: &'static str, class: &'static str) -> Badge {
    Badge { word, class }
}

impl Badge {
    pub(super) fn of_task(task: &Task) -> Self {
        match (task.status, &task.reason) {
            (Status::Waiting, _) => badge("waiting", "busy"),
            (Status::Running, _) if task.cancel_requested => badge("stopping", "busy"),
            (Status::Running, _) => badge("scanning", "busy"),
            (Status::Success, _) => badge("success", "good"),
            (Status::Failed, Some(Reason::Cancelled)) => badge("cancelled", "plain"),
            (Status::Failed, _) => badge("failed", "bad"),
        }
    }

    /// Returns the badge of an instance. An active task comes first, then what prevents scans.
    pub(super) fn of_instance(instance: &Instance, newest: Option<&Task>) -> Self {
        match newest {
            Some(task) if task.status.is_active() => Self::of_task(task),
            _ if instance.paused => badge("paused", "plain"),
            _ if !instance.unreadable_fields().is_empty() => badge("unreadable", "bad"),
            _ if instance.unsupported().is_some() => badge("unsupported", "bad"),
            _ if instance.unreachable.is_some() => badge("unreachable", "bad"),
            _ if instance.stats.is_none() => badge("not polled yet", "plain"),
            _ => badge("ready", "good"),
        }
    }
}
