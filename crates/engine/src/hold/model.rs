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
    /// What the server's own setting costs, as a factor of what the cost says: less than 1 where that may be the cost of stronger
    /// settings alone.
    pub own_factor: f64,
    /// Whether the fast cycle keeps the share at most at the acceptable one of the effort.
    pub is_capped: bool,
}

#[cfg(test)]
impl<'a> Model<'a> {
    /// Returns the law as it is, with the cost of servers in general.
    pub fn lawful(workload: &'a Workload) -> Self {
        Self { workload, cost: CycleCost::default(), offset: 0.0, hz_factor: 1.0, own_factor: 1.0, is_capped: false }
    }
}

/// What the cycle takes with a setting.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Taken {
    /// Share of the main thread.
    pub cpu: f64,
    /// Seconds for which one cycle blocks clients.
    pub stall: f64,
}

impl Model<'_> {
    /// Returns the share of all keys that the law predicts.
    pub fn law(&self, setting: CycleSetting) -> f64 {
        self.capped(self.workload.held_share(self.effective(setting)), setting)
    }

    /// Returns the share of all keys that a setting holds on this primary.
    pub fn share(&self, setting: CycleSetting) -> f64 {
        self.corrected(self.law(setting))
    }

    /// Returns the share of the main thread that the cycle takes.
    pub fn cpu(&self, setting: CycleSetting) -> f64 {
        self.cpu_at(setting, None)
    }

    /// Returns the share of the main thread that the cycle takes where as much is stale as was measured: the expected share, as far
    /// as the sample allows it.
    pub fn cpu_at(&self, setting: CycleSetting, sample: Option<Share>) -> f64 {
        let effective = self.effective(setting);
        let held = self.workload.held_share(effective);
        let law = self.capped(held, setting);
        // What the law is off at a weaker setting says less of a stronger one, whose share is smaller and whose keys cost more.
        let expected = self.corrected(law).clamp(law / 2.0, law);
        let share = sample.map_or(expected, |sample| expected.clamp(sample.low, sample.high));
        let of_expiring = self.workload.keys() as f64 / self.workload.with_ttl().max(1) as f64;
        let load = |share: f64| self.cost.load(self.workload.rate(), share * of_expiring);
        // Several databases differ in their shares.
        let factor = if load(held) > 0.0 { load(share) / load(held) } else { 1.0 };
        self.workload.cycle_load(effective, self.cost) * factor
    }

    /// Returns what the cycle takes with a setting.
    pub fn taken(&self, setting: CycleSetting) -> Taken {
        let cpu = self.cpu(setting);
        Taken { cpu, stall: cpu / f64::from(self.effective(setting).hz) }
    }

    /// Returns what the cycle takes with the server's own setting.
    pub fn own(&self, own: CycleSetting) -> Taken {
        let Taken { cpu, stall } = self.taken(own);
        Taken { cpu: cpu * self.own_factor, stall: stall * self.own_factor }
    }

    /// Returns the server's own limit of one cycle, seconds.
    pub fn cycle_limit(&self, setting: CycleSetting) -> f64 {
        self.effective(setting).cycle_limit()
    }

    fn capped(&self, held: f64, setting: CycleSetting) -> f64 {
        if !self.is_capped || self.workload.keys() == 0 {
            return held;
        }
        let acceptable = 0.1 - 0.01 * f64::from(setting.effort.clamp(1, 10) - 1);
        held.min(acceptable * self.workload.with_ttl() as f64 / self.workload.keys() as f64)
    }

    fn corrected(&self, law: f64) -> f64 {
        (law + self.offset.clamp(-MAX_OFFSET, MAX_OFFSET)).max(0.0)
    }

    fn effective(&self, setting: CycleSetting) -> CycleSetting {
        let hz = (f64::from(setting.hz) * self.hz_factor).round().clamp(1.0, 500.0);
        CycleSetting { hz: hz as u32, ..setting }
    }
}
