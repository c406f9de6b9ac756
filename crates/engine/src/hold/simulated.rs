//! A simulated server for the tests of the controller: the law with its time limits, and what operators, Sentinels and broken
//! connections do to a real one.

use super::{
    action::Outcome,
    baseline::{Baseline, Parameter},
    signals::Signals,
};
use crate::stale::{CycleCost, CycleSetting, Reading, Share};

/// Keys a second that a scan visits.
const SCANNED: f64 = 100_000.0;

/// A server whose share follows the law.
#[derive(Debug, Clone)]
pub struct Server {
    pub run: u32,
    pub setting: CycleSetting,
    /// What the configuration file has.
    pub file: CycleSetting,
    pub is_primary: bool,
    pub is_saving: bool,
    pub replicas: usize,
    /// Keys that expire a second.
    pub rate: f64,
    /// Keys, all with a TTL.
    pub keys: f64,
    /// Stale keys as a share of the keys.
    pub share: f64,
    /// Whether the stale keys are spread evenly, as those of a batch.
    is_even: bool,
    /// Databases, with as many keys each.
    pub databases: u32,
    pub scan_left: Option<f64>,
    /// Whether a scan waits for its turn.
    pub is_scan_queued: bool,
    /// Added to every measured share, and to the share that the law holds: a server that the law does not fit.
    pub bias: f64,
    /// How many times as long as usual a cycle takes: caches that others use, a table that is being resized.
    pub slowness: f64,
    /// The effort from which on a cycle takes longer than the law predicts, and how many times as long.
    pub steep: Option<(u8, f64)>,
    /// Whether every cycle ends at its time limit, as on a machine whose cores others use.
    pub is_capped: bool,
    expired: f64,
    cycle_seconds: f64,
    caps: f64,
    /// Keys that were removed a second in the last interval.
    pub removed: f64,
    /// Share of the main thread that the cycle took in the last interval.
    pub load: f64,
}

impl Server {
    pub fn new(setting: CycleSetting, rate: f64, keys: f64) -> Self {
        Self {
            run: 1,
            setting,
            file: setting,
            is_primary: true,
            is_saving: false,
            replicas: 1,
            rate,
            keys,
            share: setting.held_share(rate),
            is_even: false,
            databases: 1,
            scan_left: None,
            is_scan_queued: false,
            bias: 0.0,
            slowness: 1.0,
            steep: None,
            is_capped: false,
            expired: 0.0,
            cycle_seconds: 0.0,
            caps: 0.0,
            removed: rate,
            load: 0.0,
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, seconds: f64) {
        let before = self.share;
        let held = (self.setting.held_share(self.rate / f64::from(self.databases)) + self.bias).max(0.001);
        let cost = CycleCost::default();
        let visits = 1.0 / (2.0 * self.share.clamp(1e-4, 0.5));
        let hz = f64::from(self.setting.hz);
        let most = self.setting.cycle_limit() * hz / (cost.visit * visits + cost.removal);
        if self.rate > 0.0 {
            let reversion = (2.0 * self.share.max(held) * self.keys / self.rate).max(1e-3);
            self.share = held + (self.share - held) * (-seconds / reversion).exp();
        }
        // A batch is spread evenly: a loop meets half as many of its keys as in steady state. What a weaker setting has left is not.
        // The time limit of a cycle bounds both.
        let databases = f64::from(self.databases);
        let met = if self.is_even { before / 2.0 } else { before };
        let wanted = databases * self.setting.held_rate(met.min(0.49));
        let surplus = (wanted.min(most) - self.rate).max(0.0);
        if before > held {
            self.share = self.share.min((before - surplus * seconds / self.keys).max(held));
            if wanted > most {
                self.caps += hz * seconds.min((before - held) * self.keys / surplus.max(1.0));
            }
        }
        self.is_even &= self.share > held * 1.05;
        if self.is_capped {
            self.caps += hz * seconds;
        }
        let is_scanning = self.scan_left.is_some();
        if let Some(left) = &mut self.scan_left {
            *left -= seconds;
            self.share = self.share.min(0.002);
            if *left <= 0.0 {
                self.scan_left = None;
            }
        }
        let gone = (before - self.share) * self.keys + self.rate * seconds;
        self.removed = (gone / seconds).max(0.0);
        self.expired += self.removed * seconds;
        // Behind a scan the cycle finds little.
        let (cycled, share) = match is_scanning {
            true => ((databases * self.setting.held_rate(self.share.clamp(1e-3, 0.49))).min(self.removed), self.share),
            false => (self.removed, (before + self.share) / 2.0),
        };
        self.load = cost.load(cycled, share.max(1e-3)) * self.slowness_at(self.setting);
        self.cycle_seconds += self.load * seconds;
    }

    /// Returns the load in steady state with another setting.
    pub fn usual_load(&self, setting: CycleSetting) -> f64 {
        let share = (setting.held_share(self.rate / f64::from(self.databases)) + self.bias).max(0.001);
        CycleCost::default().load(self.rate, share) * self.slowness_at(setting)
    }

    /// Returns how many times as long as usual a cycle takes with a setting.
    fn slowness_at(&self, setting: CycleSetting) -> f64 {
        let steep = self.steep.filter(|(effort, _)| setting.effort >= *effort);
        self.slowness * steep.map_or(1.0, |(_, factor)| factor)
    }

    pub fn scan(&mut self) {
        self.is_scan_queued = false;
        self.scan_left = Some(self.keys / SCANNED);
    }

    /// Keys expire together that were not stale before.
    pub fn batch(&mut self, share: f64) {
        (self.share, self.is_even) = ((self.share + share).min(0.9), true);
    }

    pub fn restart(&mut self, rewritten: bool) {
        if rewritten {
            self.file = self.setting;
        }
        self.run += 1;
        self.setting = self.file;
        (self.expired, self.cycle_seconds, self.caps) = (0.0, 0.0, 0.0);
    }

    /// Sets the statistics back (CONFIG RESETSTAT).
    pub fn reset_statistics(&mut self) {
        (self.expired, self.cycle_seconds, self.caps) = (0.0, 0.0, 0.0);
    }

    pub fn signals(&self, now: f64) -> Signals {
        let (run_id, keys) = (self.run.to_string(), self.keys as u64 / u64::from(self.databases));
        let reading = Reading { run_id: run_id.clone(), at: now, expired: self.expired as u64, ..Reading::default() };
        Signals {
            run_id,
            is_primary: self.is_primary,
            reading: Some(reading),
            databases: vec![(keys, keys, None); self.databases as usize],
            configured_databases: 16,
            configured: Some(self.setting),
            hz: Some(self.setting.hz),
            cycle_seconds: Some(self.cycle_seconds),
            time_caps: Some(self.caps as u64),
            is_saving: self.is_saving,
            replicas: self.replicas,
            probe: Some(1e-4),
            is_scanning: self.scan_left.is_some(),
            is_scan_queued: self.is_scan_queued,
            may_write: true,
            ..Signals::default()
        }
    }

    pub fn sample(&self, random: &mut fastrand::Rng) -> Share {
        let share = (self.share + (random.f64() - 0.5) * 0.01).clamp(0.0, 1.0);
        Share { share, low: (share - 0.01).max(0.0), high: (share + 0.01).min(1.0) }
    }

    /// Writes as the writer does: compares, records, sets.
    pub fn write(
        &mut self,
        from: CycleSetting,
        parameter: Parameter,
        value: u32,
        record: impl FnOnce() -> bool,
    ) -> Outcome {
        if self.setting != from {
            return Outcome::Failed("set meanwhile".into());
        }
        if !record() {
            return Outcome::Failed("the record cannot be written".into());
        }
        self.setting = parameter.with(from, value);
        Outcome::Done(self.setting)
    }

    /// Restores as the writer does.
    pub fn restore(&mut self, baseline: &Baseline) -> Outcome {
        for parameter in Parameter::ALL {
            if baseline.knows(parameter, parameter.of(self.setting)) {
                self.setting = parameter.with(self.setting, baseline.values(parameter).baseline);
            }
        }
        Outcome::Done(self.setting)
    }
}
