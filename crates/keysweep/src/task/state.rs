//! The state table: what a task becomes when its scan returns. One total match, in one place.

use keysweep_engine::{FailureKind, Report};

use crate::model::Reason;

/// Why a worker stopped its scan, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// It did not.
    None,
    /// A user cancelled the task.
    Cancelled,
    /// The instance's maintenance window closed, or was replaced by one that cannot be read.
    WindowClosed,
    /// The worker is shutting down.
    Shutdown,
    /// The lease could not be renewed in time: it may expire, and another worker may take over soon.
    LeaseAtRisk,
    /// Another worker has taken over the lease.
    LeaseLost,
}

/// What becomes of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// It finishes: success, or failed with a reason and a sentence.
    Finish(Result<(), (Reason, String)>),
    /// It stays running, and the lease is released: the next worker resumes from the checkpoint, once the instance's window
    /// is open.
    Release,
    /// Another worker decides.
    Abandon,
}

/// The reason detail of a cancelled task.
pub(super) const CANCELLED: &str = "the task was cancelled; keys reclaimed before stay reclaimed";

/// Concludes from the scan's report and from why the worker stopped it.
pub fn conclude(halt: Halt, report: &Report) -> Conclusion {
    let fail = |reason| {
        let sentence = report.message.clone().unwrap_or_default();
        Conclusion::Finish(Err((reason, sentence)))
    };
    match (halt, report.reason) {
        (Halt::LeaseLost, _) => Conclusion::Abandon,
        // The scan was complete before the stop took effect.
        (_, None) => Conclusion::Finish(Ok(())),
        (Halt::Cancelled, Some(FailureKind::Interrupted)) => {
            Conclusion::Finish(Err((Reason::Cancelled, CANCELLED.into())))
        }
        (Halt::Shutdown | Halt::LeaseAtRisk | Halt::WindowClosed, Some(FailureKind::Interrupted)) => {
            Conclusion::Release
        }
        (Halt::None, Some(FailureKind::Interrupted)) | (_, Some(FailureKind::Internal)) => fail(Reason::Internal),
        (_, Some(FailureKind::Unreachable)) => fail(Reason::Unreachable),
        (_, Some(FailureKind::Denied)) => fail(Reason::Denied),
        (_, Some(FailureKind::Unsupported)) => fail(Reason::Unsupported),
        (_, Some(FailureKind::Refused)) => fail(Reason::Refused),
        (_, Some(FailureKind::Timeout)) => fail(Reason::Timeout),
        (_, Some(FailureKind::Incomplete)) => fail(Reason::Incomplete),
    }
}
