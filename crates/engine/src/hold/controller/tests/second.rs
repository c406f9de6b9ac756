//! A second holder of the simulated server, which writes nothing while the first one lives.

use super::world::{Record, World};
use crate::hold::{
    action::{Action, Outcome},
    signals::Signals,
};

impl World {
    /// Takes over what another holder has recorded, before the first write. Returns whether the decision stands.
    pub fn reserve(&mut self) -> bool {
        let Some(known) = self.unreserved.take() else { return true };
        let is_new = self.record != known && self.record.as_ref().is_some_and(|record| record.baseline.is_written());
        if is_new {
            self.controller = self.successor();
        }
        !is_new
    }

    /// Holders that have not reserved the server read its record again when they find other settings.
    pub fn follow(&mut self) {
        let is_new = |known: &Option<Record>| {
            self.record != *known && self.record.as_ref().is_some_and(|record| record.baseline.is_written())
        };
        if self.unreserved.as_ref().is_some_and(is_new) {
            (self.controller, self.unreserved) = (self.successor(), Some(self.record.clone()));
        }
        if self.second.as_ref().is_some_and(|(_, known)| is_new(known)) {
            self.join();
        }
    }

    /// Another holder sees the same server, and is refused each write while the first one lives.
    pub fn step_second(&mut self, signals: &Signals) {
        let Some((second, _)) = &mut self.second else { return };
        if second.wants_sample(self.now, signals) {
            second.sampled(self.now, Some(self.server.sample(&mut self.random)));
        }
        if let (_, Action::Write { .. }) = second.step(self.now, signals) {
            second.written(self.now, Outcome::Failed("another holds this server".into()));
        }
    }

    /// Begins to hold the same server a second time.
    pub fn join(&mut self) {
        self.second = Some((self.successor(), self.record.clone()));
    }
}
