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
    is_calibrated: bool,
    misfit_since: Option<f64>,
}

impl Learned {
    /// Adds a sample that was taken in steady state, where the law predicts a share of `law`.
    pub fn add(&mut self, now: f64, share: Share, law: f64) {
        self.offset += WEIGHT * (share.share - law - self.offset);
        self.misfit_since = (self.offset.abs() > MISFIT).then(|| self.misfit_since.unwrap_or(now));
    }

    /// Fits the cost to a measured load of the main thread in steady state, where the cost until now predicts `expected`. The first
    /// measurement replaces what is known of servers in general.
    pub fn calibrate(&mut self, load: f64, expected: f64) {
        let weight = if std::mem::replace(&mut self.is_calibrated, true) { WEIGHT } else { 1.0 };
        let cost = self.cost.calibrated(load, expected);
        let mean = |old: f64, new: f64| old + weight * (new - old);
        self.cost =
            CycleCost { visit: mean(self.cost.visit, cost.visit), removal: mean(self.cost.removal, cost.removal) };
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
    fn a_cost_is_the_first_measured_one_and_approaches_later_ones() {
        let mut learned = Learned::default();
        let expected = learned.cost.load(1_000.0, 0.1);
        learned.calibrate(0.03, expected);
        assert!((learned.cost.load(1_000.0, 0.1) / 0.03 - 1.0).abs() < 1e-3);
        for _ in 0..30 {
            let expected = learned.cost.load(1_000.0, 0.1);
            learned.calibrate(0.01, expected);
        }
        assert!((learned.cost.load(1_000.0, 0.1) / 0.01 - 1.0).abs() < 1e-3);
    }
}
