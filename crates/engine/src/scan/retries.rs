//! One shard to its end, over as many connections as that takes: reconnects after every error that may be temporary.

use std::time::{Duration, Instant};

use super::sweeper::ShardSweeper;
use crate::{
    failure::{Failure, FailureKind, ShardError},
    record::ShardStatus,
    topology::SlotSet,
};

/// First and longest wait before a server that cannot be reached is tried again.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

impl ShardSweeper<'_> {
    /// Sweeps to the end, or to the failure that ends the shard.
    pub fn run(mut self) {
        let result = self.run_with_retries();
        let mut state = self.state();
        state.database = None;
        match result {
            Ok(()) => (state.status, state.checkpoint.done) = (ShardStatus::Done, true),
            Err(failure) => {
                // An interrupted shard can be resumed.
                let interrupted = failure.kind == FailureKind::Interrupted;
                state.status = if interrupted { ShardStatus::Waiting } else { ShardStatus::Failed };
                state.failure = Some(failure);
            }
        }
    }

    /// Retries until an attempt succeeds, the reconnect timeout has passed, or retrying would not help.
    fn run_with_retries(&mut self) -> Result<(), Failure> {
        let mut lost_since: Option<Instant> = None;
        let mut delay = RETRY_DELAY.0;
        // The furthest that a sweep of one process ever got. Not the keys: where the process is unknown, each connection
        // starts from the beginning, and would count the same keys as progress for ever.
        let mut furthest = (None, 0.0);
        loop {
            let error = match self.attempt() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let cancelled = self.stop().take_cancel();
            if let Some(cause) = self.stop().cause() {
                return Err(ShardError::from(cause).into_failure(self.target().seed()));
            }
            let reached = self.state().reached();
            if reached.0 != furthest.0 || reached.1 > furthest.1 {
                (lost_since, delay) = (None, RETRY_DELAY.0);
                furthest = reached;
            }
            let since = *lost_since.get_or_insert_with(Instant::now);
            let retries = since.elapsed() < self.options.reconnect_timeout;
            match error {
                ShardError::Absorbed => {
                    // Slots that return to this primary are to be swept from the start.
                    self.state().checkpoint.covered = SlotSet::default();
                    self.monitor.note("all slots of a primary have moved to other primaries and are scanned there");
                    return Ok(());
                }
                _ if cancelled && retries => self.note_demotion(),
                ShardError::Unreachable(failure) if (self.ever_reached || failure.is_of_memory()) && retries => {
                    if self.state().status != ShardStatus::Away {
                        self.monitor.note(&format!("waiting: {failure}"));
                    }
                    self.state().status = ShardStatus::Away;
                }
                ShardError::Demoted if retries => self.note_demotion(),
                error => return Err(error.into_failure(&self.address())),
            }
            self.stop().wait_until(Instant::now() + delay);
            delay = (delay * 2).min(RETRY_DELAY.1);
        }
    }

    fn note_demotion(&self) {
        if self.state().status != ShardStatus::Away {
            self.monitor.note("the server is no longer a primary; looking for the new primary");
        }
        self.state().status = ShardStatus::Away;
    }

    fn attempt(&mut self) -> Result<(), ShardError> {
        let Some(_permit) = self.permits.take(self.stop()) else {
            return Err(self.stop().cause().map_or(ShardError::Demoted, ShardError::from));
        };
        let started = Instant::now();
        let attempted = self.sweep();
        self.state().elapsed += started.elapsed();
        attempted
    }
}
