//! The status of an instance or a task as a coloured badge, and what to do about an instance that is not reached.

use crate::model::{Instance, PollCode, PollFailure, Reason, Status, Task};

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

    /// Returns the badge of an instance. An active task comes first, then what prevents scans, then a failed last scan.
    pub(super) fn of_instance(instance: &Instance, newest: Option<&Task>) -> Self {
        match (newest, &instance.unreachable) {
            (Some(task), _) if task.status.is_active() => Self::of_task(task),
            _ if instance.paused => badge("paused", "plain"),
            _ if !instance.unreadable_fields().is_empty() => badge("unreadable", "bad"),
            _ if instance.unsupported().is_some() => badge("unsupported", "bad"),
            (_, Some(failure)) => Self::of_poll(failure.code),
            (Some(task), None) if has_failed(task) => badge("scan failed", "bad"),
            _ if instance.stats.is_none() => badge("not polled yet", "plain"),
            _ => badge("ready", "good"),
        }
    }

    fn of_poll(code: PollCode) -> Self {
        let word = match code {
            PollCode::Authentication => "authentication failed",
            PollCode::Permission => "permission denied",
            PollCode::Tls => "TLS error",
            PollCode::Unreachable => "unreachable",
            PollCode::Unsupported => "unsupported",
            PollCode::Settings => "settings unusable",
            PollCode::Refused => "refused",
        };
        badge(word, "bad")
    }
}

/// Returns whether a task has failed, other than by being cancelled.
pub(super) fn has_failed(task: &Task) -> bool {
    task.status == Status::Failed && task.reason != Some(Reason::Cancelled)
}

/// Why an instance is not reached, and what to do.
pub(super) struct Trouble {
    /// A few words, the first one in upper case.
    pub(super) title: &'static str,
    /// The cause with its remedy, a sentence without its full stop.
    pub(super) cause: String,
    pub(super) next: NextStep,
}

/// What to do about a failed poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextStep {
    /// One sentence.
    pub(super) sentence: &'static str,
    /// The same for a cell of a table.
    pub(super) short: &'static str,
    /// Whether it is done in the form of the connection.
    pub(super) edits: bool,
}

impl NextStep {
    pub(super) fn of(code: PollCode) -> Self {
        let (sentence, short, edits) = match code {
            PollCode::Authentication => (
                "Type the current user and password in the connection. The server itself is reached.",
                "check user and password",
                true,
            ),
            PollCode::Permission => (
                "Grant the user the commands that keysweep needs, or let this host connect; then test again.",
                "grant the missing rights",
                false,
            ),
            PollCode::Tls => (
                "Check the CA bundle, the client certificate and the server name in the connection, and whether the port speaks TLS.",
                "check certificates and scheme",
                true,
            ),
            PollCode::Unreachable => (
                "Check that the server is running, and that its address and port can be reached from this service.",
                "check address and firewall",
                true,
            ),
            PollCode::Unsupported => ("Name a Redis or Valkey server in the connection.", "name another server", true),
            PollCode::Settings => ("Type the connection again.", "type the connection again", true),
            PollCode::Refused => ("Follow what the server answered, then test again.", "see its answer", false),
        };
        Self { sentence, short, edits }
    }
}

impl Trouble {
    pub(super) fn new(failure: &PollFailure) -> Self {
        let title = match failure.code {
            PollCode::Authentication => "Authentication failed",
            PollCode::Permission => "Permission denied",
            PollCode::Tls => "TLS error",
            PollCode::Unreachable => "Unreachable",
            PollCode::Unsupported => "Unsupported",
            PollCode::Settings => "Settings unusable",
            PollCode::Refused => "Refused",
        };
        Self { title, cause: failure.cause.clone(), next: NextStep::of(failure.code) }
    }

    /// Returns what stands where nothing was asked of the server, since others are being asked.
    pub(super) fn busy(cause: String) -> Self {
        let (sentence, short) = ("Test the connection again in a few seconds.", "test again");
        let next = NextStep { sentence, short, edits: false };
        Self { title: "Not tested", cause, next }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_of_failed_poll_has_a_badge_and_a_next_step_of_its_own() {
        let badges: HashSet<&str> = PollCode::ALL.iter().map(|code| Badge::of_poll(*code).word).collect();
        let steps: HashSet<&str> = PollCode::ALL.iter().map(|code| NextStep::of(*code).short).collect();
        assert_eq!((badges.len(), steps.len()), (PollCode::ALL.len(), PollCode::ALL.len()));
    }
}
