//! What a setting of the expiry cycle would hold and cost on one primary: the law, corrected by what was measured there.

use crate::stale::{CycleCost, CycleSetting, Share, Workload};

/// Largest correction of the law that is applied, as a share.
const MAX_OFFSET: f64 = 0.05;

/// The law for one primary. Settings are those of CONFIG GET; with `dynamic-hz` the server runs more cycles a second.
#[derive(Debug, Clone)]
pub struct Model<'a> {
    /// Keys that expire, by database.
    pub workload: &'a Workload,
    /// Cost of the cycle on this server.
    pub cost: CycleCost,
    /// Mean of the measured minus the predicted share.
    pub offset: f64,
    /// Cycles a second that the server runs for each of its setting.
    pub hz_factor: f64,
    /// Whether the fast cycle keeps the share at most at the acceptable one of the effort.
    pub is_capped: bool,
}

impl Model<'_> {
    /// Returns the share of all keys that the law predicts.
    pub fn law(&self, setting: CycleSetting) -> f64 {
        let held = self.workload.held_share(self.effective(setting));
        if !self.is_capped || self.workload.keys() == 0 {
            return held;
        }
        let acceptable = 0.1 - 0.01 * f64::from(setting.effort.clamp(1, 10) - 1);
        held.min(acceptable * self.workload.with_ttl() as f64 / self.workload.keys() as f64)
    }

    /// Returns the share of all keys that a setting holds on this primary.
    pub fn share(&self, setting: CycleSetting) -> f64 {
        (self.law(setting) + self.offset.clamp(-MAX_OFFSET, MAX_OFFSET)).max(0.0)
    }

    /// Returns the share of the main thread that the cycle takes.
    pub fn cpu(&self, setting: CycleSetting) -> f64 {
        self.workload.cycle_load(self.effective(setting), self.cost)
    }

    /// Returns the share of the main thread that the cycle takes where as much is stale as was measured: the law's share, as far as
    /// the sample allows it.
    pub fn cpu_at(&self, setting: CycleSetting, sample: Option<Share>) -> f64 {
        let (law, keys) = (self.law(setting), self.workload.keys() as f64 / self.workload.with_ttl().max(1) as f64);
        let share = sample.map_or(law, |sample| law.clamp(sample.low, sample.high));
        let rate = self.workload.rate();
        let load = |share: f64| self.cost.load(rate, share * keys);
        self.cpu(setting) * if rate > 0.0 { load(share) / load(law) } else { 1.0 }
    }

    /// Returns the seconds for which one cycle blocks clients.
    pub fn stall(&self, setting: CycleSetting) -> f64 {
        self.workload.stall(self.effective(setting), self.cost)
    }

    /// Returns the server's own limit of one cycle, seconds.
    pub fn cycle_limit(&self, setting: CycleSetting) -> f64 {
        self.effective(setting).cycle_limit()
    }

    fn effective(&self, setting: CycleSetting) -> CycleSetting {
        let hz = (f64::from(setting.hz) * self.hz_factor).round().clamp(1.0, 500.0);
        CycleSetting { hz: hz as u32, ..setting }
    }
}
