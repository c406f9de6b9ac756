//! What a controller takes in of its own writes and restores.

use super::{
    action::{Intention, Outcome},
    baseline::{Baseline, Parameter},
    controller::Controller,
    surge::Surge,
    times::DAY,
};
use crate::stale::CycleSetting;

impl Controller {
    /// Adds a value that is about to be written to the baseline, and counts the write. The caller records both before it writes:
    /// the next holder continues with both.
    pub fn intend(&mut self, now: f64, parameter: Parameter, value: u32) {
        if self.intended.is_none() {
            self.intended = Some(Intention {
                parameter,
                baseline: self.baseline.clone(),
                settle_until: self.settle_until,
                is_restored: self.is_restored,
            });
            self.writes.retain(|at| now - at < DAY);
            self.writes.push_back(now);
            self.settle_until = self.settle_until.max(now + self.settling());
            self.is_restored = false;
        }
        if let Some(baseline) = &mut self.baseline {
            baseline.add(parameter, value);
        }
    }

    /// Receives the outcome of a write.
    pub fn written(&mut self, now: f64, outcome: Outcome) {
        let intended = self.intended.take();
        match outcome {
            Outcome::Done(setting) => {
                self.failure = None;
                self.leave(setting);
                self.settle(now);
            }
            Outcome::Failed(ref cause) | Outcome::PutBack(ref cause) => {
                let is_put_back = matches!(outcome, Outcome::PutBack(_));
                match intended {
                    Some(intention) if is_put_back => {
                        if let Some(baseline) = &mut self.baseline {
                            baseline.withdraw(intention.parameter);
                        }
                    }
                    // The server never had the value, which an operator may set now.
                    Some(Intention { baseline, settle_until, is_restored, .. }) => {
                        (self.baseline, self.settle_until, self.is_restored) = (baseline, settle_until, is_restored);
                        self.writes.pop_back();
                    }
                    None => {}
                }
                self.failure = Some(cause.clone());
                // Nothing has changed that the share would follow.
                (self.settle_until, self.broken) = (self.settle_until.max(now + self.floor()), 0);
                self.surge = Surge::default();
            }
            Outcome::Unknown => self.settle(now),
        }
    }

    /// Receives the outcome of a restore.
    pub fn restored(&mut self, now: f64, outcome: Outcome) {
        match outcome {
            Outcome::Done(setting) => {
                self.failure = None;
                self.leave(setting);
                (self.is_restored, self.surge) = (true, Surge::default());
                self.has_left = self.baseline.as_ref().is_some_and(|baseline| baseline.setting() != setting);
                self.settle(now);
            }
            Outcome::Failed(cause) | Outcome::PutBack(cause) => self.failure = Some(cause),
            Outcome::Unknown => {}
        }
    }

    /// Whether something that keysweep wrote is to be restored.
    pub fn has_to_restore(&self) -> bool {
        !self.is_restored && self.baseline.as_ref().is_some_and(Baseline::is_written)
    }

    fn leave(&mut self, setting: CycleSetting) {
        if let Some(baseline) = &mut self.baseline {
            baseline.leave(setting);
        }
    }
}
