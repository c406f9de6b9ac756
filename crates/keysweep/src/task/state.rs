//! The state table: what a task becomes when its sweep ends. One total match, in one place.

use keysweep_engine::{FailureKind, Report};

use crate::model::Reason;

/// Why a worker told its sweep to stop, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// It did not.
    None,
    /// Somebody cancelled the task.
    Cancelled,
    /// The instance's off-peak window closed.
    Closed,
    /// The worker is shutting down.
    Shutdown,
    /// The lease could not be renewed in time: it may expire, and somebody else may be sweeping soon.
    Beatless,
    /// The lease is somebody else's.
    Lost,
}

/// What is to become of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// It ends.
    End(Result<(), (Reason, String)>),
    /// It stays running; the next worker goes on from the checkpoint, once the instance's window is open.
    GiveBack,
    /// It is not ours any more.
    LetGo,
}

/// What a cancelled task says of itself.
pub(super) const CANCELLED: &str = "the task was cancelled; what was released stays released";

/// Concludes from the sweep's report and from why the worker stopped it.
pub fn conclude(halt: Halt, report: &Report) -> Conclusion {
    let fail = |reason| {
        let sentence = report.message.clone().unwrap_or_default();
        Conclusion::End(Err((reason, sentence)))
    };
    match (halt, report.reason) {
        (Halt::Lost, _) => Conclusion::LetGo,
        // What was done before the request to stop got through is done.
        (_, None) => Conclusion::End(Ok(())),
        (Halt::Cancelled, Some(FailureKind::Interrupted)) => {
            Conclusion::End(Err((Reason::Cancelled, CANCELLED.into())))
        }
        (Halt::Shutdown | Halt::Beatless | Halt::Closed, Some(FailureKind::Interrupted)) => Conclusion::GiveBack,
        (Halt::None, Some(FailureKind::Interrupted)) | (_, Some(FailureKind::Internal)) => fail(Reason::Internal),
        (_, Some(FailureKind::Unreachable)) => fail(Reason::Unreachable),
        (_, Some(FailureKind::Denied)) => fail(Reason::Denied),
        (_, Some(FailureKind::Unsupported)) => fail(Reason::Unsupported),
        (_, Some(FailureKind::Refused)) => fail(Reason::Refused),
        (_, Some(FailureKind::Timeout)) => fail(Reason::Timeout),
    }
}
