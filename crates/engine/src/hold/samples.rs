//! When a controller has a server sampled.

use super::{
    action::Scan,
    controller::{Controller, FOLLOWED},
    policy::Level,
    signals::Signals,
};
use crate::stale::{MIN_SAMPLED_KEYS, Share, reversion_seconds};

/// Seconds between two samples, at least, and in intervals.
const MIN_SAMPLE_SECONDS: f64 = 30.0;
const SAMPLE_INTERVALS: f64 = 5.0;
/// Times between two samples after which one says nothing of now any more: keys may have become too few for another.
const FRESH: f64 = 4.0;

impl Controller {
    /// Whether a sample should be taken before the next step.
    pub fn wants_sample(&self, now: f64, signals: &Signals) -> bool {
        let is_possible = signals.is_primary
            && self.policy.level != Level::Observe
            && !signals.is_saving
            && !signals.is_paused
            && !signals.is_resyncing
            && !signals.is_scanning
            && !matches!(self.scan, Scan::Asked(_) | Scan::Running)
            && signals.keys().0 >= MIN_SAMPLED_KEYS;
        let is_refused = self.unsampled.as_ref().is_some_and(|(at, _)| now - at < MIN_SAMPLE_SECONDS);
        if !is_possible || is_refused || now < self.settle_until || self.history.range().is_none() {
            return false;
        }
        let Some(sampled_at) = self.sampled_at else { return true };
        let since = now - sampled_at;
        since >= self.spacing(signals) || (self.is_sample_urgent(now, signals) && since >= self.floor())
    }

    /// Returns the seconds between two samples while nothing changes.
    fn spacing(&self, signals: &Signals) -> f64 {
        let spacing = (SAMPLE_INTERVALS * self.policy.interval().as_secs_f64()).max(MIN_SAMPLE_SECONDS);
        spacing.max(self.reversion(signals).unwrap_or(0.0))
    }

    /// Whether nothing was sampled yet, or something has changed since the last sample.
    pub fn is_sample_urgent(&self, now: f64, signals: &Signals) -> bool {
        let Some(sampled_at) = self.sampled_at else { return true };
        let has_moved = self.is_steady(now, signals) && !self.has_followed(sampled_at, signals);
        // Whether a batch has expired, or more keys expire from now on, decides what is done.
        let has_shifted = self.history.shifted_at.is_some_and(|at| sampled_at < at);
        has_moved || has_shifted
    }

    /// Receives a sample of the stale share, or that none could be taken.
    pub fn sampled(&mut self, now: f64, share: Option<Share>) {
        (self.sampled_at, self.unsampled) = (Some(now), None);
        let in_order = |share: &Share| 0.0 <= share.low && share.low <= share.share && share.share <= share.high;
        self.sample = share.filter(in_order).filter(|share| share.high <= 1.0);
    }

    /// Receives why the server refuses to be sampled. It is asked again soon: a background save refuses samples, too.
    pub fn refused_sample(&mut self, now: f64, cause: String) {
        self.unsampled = Some((now, cause));
    }

    /// Returns why there is no sample.
    pub(super) fn no_sample(&self) -> String {
        match &self.unsampled {
            Some((_, cause)) => format!("the share cannot be sampled: {cause}"),
            None => "the share is to be sampled first".to_owned(),
        }
    }

    /// Returns the last sample, unless something has changed since, or it is old.
    pub(super) fn fresh_share(&self, now: f64, signals: &Signals) -> Option<Share> {
        let is_fresh = |at: f64| at > self.changed_at && now - at <= FRESH * self.spacing(signals);
        self.share.filter(|(at, _)| is_fresh(*at)).map(|(_, share)| share)
    }

    /// Returns the seconds after which the share has returned to what the cycle holds; `None`: the rate is unknown.
    pub fn reversion(&self, signals: &Signals) -> Option<f64> {
        let share = self.share.map_or(self.policy.below, |(_, share)| share.share);
        reversion_seconds(share, signals.keys().0, self.history.rate()?)
    }

    /// Whether the share had followed the last change of settings and rate at a time. What a scan leaves follows as slowly, however
    /// little that is.
    pub(super) fn has_followed(&self, at: f64, signals: &Signals) -> bool {
        let share = self.share.map_or(0.0, |(_, share)| share.share).max(self.policy.below);
        let follow = self.history.rate().and_then(|rate| reversion_seconds(share, signals.keys().0, rate));
        at - self.last_change() >= FOLLOWED * follow.unwrap_or(self.floor())
    }

    /// Whether the share was sampled since the rate last changed, as far as there are enough keys: a batch would go unseen.
    pub(super) fn has_sampled(&self, signals: &Signals) -> bool {
        let shifted_at = self.history.shifted_at.unwrap_or(f64::NEG_INFINITY);
        signals.keys().0 < MIN_SAMPLED_KEYS || self.sampled_at.is_some_and(|at| at >= shifted_at)
    }
}
