//! One primary from where it stands to done, over as many connections as that takes: coming back after everything that can
//! happen to one.

use std::time::{Duration, Instant};

use crate::{
    failure::{Failure, FailureKind, Trouble},
    ledger::State,
    rhythm::halted,
    shard::Shard,
    topology::SlotSet,
};

/// First and longest wait before a server that is away is tried again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

impl Shard<'_> {
    /// Sweeps to the end, or to the failure that ended it.
    pub fn run(mut self) {
        let result = self.persist();
        let mut ledger = self.ledger();
        ledger.database = None;
        match result {
            Ok(()) => (ledger.state, ledger.standing.done) = (State::Done, true),
            Err(failure) => {
                // Who was only stopped goes on another time.
                let stopped = failure.kind == FailureKind::Interrupted;
                ledger.state = if stopped { State::Waiting } else { State::Failed };
                ledger.failure = Some(failure);
            }
        }
    }

    /// Attempts until one gets through, the server stays away for too long, or trying again would not help.
    fn persist(&mut self) -> Result<(), Failure> {
        let mut away_since: Option<Instant> = None;
        let mut pause = BACK_OFF.0;
        // As far as a sweep of one process ever got. Not the keys: where the process cannot be told, each connection
        // begins from the start, and would count the same keys as progress for ever.
        let mut furthest = (None, 0.0);
        loop {
            let trouble = match self.attempt() {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            let recalled = self.stop().hear_recall();
            if let Some(cause) = self.stop().cause() {
                return Err(halted(cause).into_failure(self.target().seed()));
            }
            let reached = self.ledger().reached();
            if reached.0 != furthest.0 || reached.1 > furthest.1 {
                (away_since, pause) = (None, BACK_OFF.0);
                furthest = reached;
            }
            let since = *away_since.get_or_insert_with(Instant::now);
            let patient = since.elapsed() < self.options.unreachable_grace;
            match trouble {
                Trouble::Dissolved => {
                    // Whatever comes back to this primary is to be swept from the start.
                    self.ledger().standing.covered = SlotSet::default();
                    self.monitor.note("all slots of a primary have gone to others, where they are swept");
                    return Ok(());
                }
                _ if recalled && patient => self.say_gone(),
                Trouble::Away(failure) if self.known && patient => {
                    if self.ledger().state != State::Away {
                        self.monitor.note(&format!("waiting: {failure}"));
                    }
                    self.ledger().state = State::Away;
                }
                Trouble::Demoted if patient => self.say_gone(),
                trouble => return Err(trouble.into_failure(&self.address())),
            }
            self.stop().wait_until(Instant::now() + pause);
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    fn say_gone(&self) {
        if self.ledger().state != State::Away {
            self.monitor.note("the server is no primary any more; looking for the one that took over");
        }
        self.ledger().state = State::Away;
    }

    fn attempt(&mut self) -> Result<(), Trouble> {
        let Some(_permit) = self.permits.take(self.stop()) else { return Err(self.halt()) };
        let begun = Instant::now();
        let attempted = self.sweep();
        self.ledger().elapsed += begun.elapsed();
        attempted
    }

    fn halt(&self) -> Trouble {
        self.stop().cause().map_or(Trouble::Demoted, halted)
    }
}
