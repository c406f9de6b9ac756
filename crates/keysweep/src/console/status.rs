//! How an instance, or a task, stands: a word and its colour.

use crate::{
    fleet::can_be_swept,
    model::{Instance, Reason, Status, Task},
};

/// A word in a coloured frame. The word says everything, the colour repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chip {
    pub(super) word: &'static str,
    pub(super) class: &'static str,
}

const fn chip(word: &'static str, class: &'static str) -> Chip {
    Chip { word, class }
}

impl Chip {
    pub(super) fn of_task(task: &Task) -> Self {
        match (task.status, task.reason) {
            (Status::Waiting, _) => chip("waiting", "busy"),
            (Status::Running, _) if task.cancel_requested => chip("stopping", "busy"),
            (Status::Running, _) => chip("scanning", "busy"),
            (Status::Success, _) => chip("success", "good"),
            (Status::Failed, Some(Reason::Cancelled)) => chip("cancelled", "plain"),
            (Status::Failed, _) => chip("failed", "bad"),
        }
    }

    /// Of an instance with its newest task. What is going on comes first, then what stands in the way.
    pub(super) fn of_instance(instance: &Instance, newest: Option<&Task>) -> Self {
        match newest {
            Some(task) if task.status.is_active() => Self::of_task(task),
            _ if instance.paused => chip("paused", "plain"),
            _ if !can_be_swept(instance) => chip("unsupported", "bad"),
            _ if instance.unreachable.is_some() => chip("unreachable", "bad"),
            _ if instance.facts.is_none() => chip("not seen yet", "plain"),
            _ => chip("ready", "good"),
        }
    }
}
