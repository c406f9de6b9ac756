//! What is learned about one server process: how far the law is off there, and what the cycle costs.

use crate::stale::{CycleCost, Share};

/// Weight of a new measurement in the running averages.
const WEIGHT: f64 = 0.3;
/// Mean difference between measured and predicted shares with which the model does not fit.
const MISFIT: f64 = 0.05;
/// For how long, seconds.
const MISFIT_SECONDS: f64 = 3_600.0;

/// Corrections of the model for one server process.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    /// Mean of the measured minus the predicted share.
    pub offset: f64,
    /// Cost of the cycle.
    pub cost: CycleCost,
    /// How often the cost was measured, and when for the first time.
    measured: u32,
    first_at: f64,
    /// Whether it was measured with the server's own setting, too.
    is_own: bool,
    /// What it was with that setting before, for an earlier holder or in an earlier process of the server.
    before: Option<CycleCost>,
    misfit_since: Option<f64>,
}

impl Learned {
    /// Adds a sample that was taken in steady state, where the law predicts a share of `law`.
    pub fn add(&mut self, now: f64, share: Share, law: f64) {
        self.offset += WEIGHT * (share.share - law - self.offset);
        self.misfit_since = (self.offset.abs() > MISFIT).then(|| self.misfit_since.unwrap_or(now));
    }

    /// Fits the cost to a measured load of the main thread in steady state, where the cost until now predicts `expected`. The first
    /// measurement replaces what is known of servers in general. Of the first two the higher one counts: keys that have expired
    /// together make a cycle find more, and so cheaper ones.
    pub fn calibrate(&mut self, now: f64, load: f64, expected: f64, is_own: bool) {
        if !(load > 0.0 && expected > 0.0) {
            return;
        }
        // What was measured with stronger settings alone does not count beside it.
        if is_own && !self.is_own {
            self.measured = 0;
        }
        if self.measured == 0 {
            self.first_at = now;
        }
        let cost = self.cost.calibrated(load, expected);
        let weight = match self.measured {
            0 => 1.0,
            1 if cost.visit >= self.cost.visit => 1.0,
            1 => 0.0,
            _ => WEIGHT,
        };
        self.measured = self.measured.saturating_add(1);
        self.is_own |= is_own;
        let mean = |old: f64, new: f64| old + weight * (new - old);
        self.cost =
            CycleCost { visit: mean(self.cost.visit, cost.visit), removal: mean(self.cost.removal, cost.removal) };
    }

    /// Returns what is known of a server process of which nothing but the cost before was measured; `None`: not even that.
    pub fn recalled(before: Option<CycleCost>) -> Self {
        Self { cost: before.unwrap_or_default(), before, ..Self::default() }
    }

    /// Returns the last cost that is not that of a stronger setting alone, if there is one.
    pub fn own_cost(&self) -> Option<CycleCost> {
        if self.is_own { Some(self.cost) } else { self.before }
    }

    /// Returns what the server's own setting costs, as a factor of the cost, as far as is known.
    pub fn own_factor(&self) -> f64 {
        match self.is_own {
            true => 1.0,
            false => (self.before.unwrap_or_default().visit / self.cost.visit).min(1.0),
        }
    }

    /// Whether the cost was measured once only, since a time: chance decides it then.
    pub fn is_new(&self, since: f64) -> bool {
        self.measured == 1 && self.first_at > since
    }

    /// Whether the model has not fitted this server for an hour.
    pub fn misfits(&self, now: f64) -> bool {
        self.misfit_since.is_some_and(|since| now - since >= MISFIT_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_off_for_an_hour_does_not_fit() {
        let mut learned = Learned::default();
        for minute in 0..70 {
            learned.add(f64::from(minute) * 60.0, Share::exact(0.2), 0.1);
        }
        assert!((learned.offset - 0.1).abs() < 1e-3 && !learned.misfits(3_000.0) && learned.misfits(4_100.0));
        for _ in 0..5 {
            learned.add(4_200.0, Share::exact(0.1), 0.1);
        }
        assert!(!learned.misfits(9_000.0), "the offset is small again");
    }

    #[test]
    fn a_cost_is_the_higher_of_the_first_two_and_approaches_later_ones() {
        for first_two in [[0.03, 0.02], [0.02, 0.03]] {
            let mut learned = Learned::default();
            learned.calibrate(0.0, 0.001, 0.0, true);
            let load = |learned: &Learned| learned.cost.load(1_000.0, 0.1);
            for measured in first_two {
                let expected = load(&learned);
                learned.calibrate(0.0, measured, expected, true);
            }
            assert!((load(&learned) / 0.03 - 1.0).abs() < 1e-3);
            for _ in 0..30 {
                let expected = load(&learned);
                learned.calibrate(0.0, 0.01, expected, true);
            }
            assert!((load(&learned) / 0.01 - 1.0).abs() < 1e-3);
        }
    }
}
