//! Reasons to throttle: background saves, paused expiry, replicas that lag or are missing.

use std::time::{Duration, Instant};

use super::throttle::{Throttle, ThrottleContext};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Link, RoleView},
    server::{Asked, Expiry, ServerState},
};

/// Time between two samples while the sweep is throttled.
const THROTTLED_INTERVAL: Duration = Duration::from_millis(100);

impl Throttle<'_> {
    /// Whether to wait for background saves: no longer in total than the limit.
    pub(super) fn waits_for_saves(&self) -> bool {
        let options = self.context.options;
        options.throttle_on_save && self.state().throttled.fork < options.throttle_limit.as_secs_f64()
    }

    /// Whether the server reports paused expiry, as of the last sample.
    pub fn reports_expiry(&self) -> bool {
        self.last_sample.expiry != Expiry::Unknown
    }

    /// Whether expiry was live since the last sample, as far as the server reports it; without a reply: no.
    pub fn is_clean(&self, link: &mut Link) -> bool {
        self.sample(link).is_ok_and(|(state, is_importing)| {
            !is_importing && state.expiry != Expiry::Paused && state.pauses == self.last_sample.pauses
        })
    }

    /// Samples the server's state, and whether it is in import mode as far as it reports that.
    fn sample(&self, link: &mut Link) -> Result<(ServerState, bool), ShardError> {
        let asked =
            Asked { counters: self.last_sample.counters.is_some(), import_mode: self.context.reports_import_mode };
        let sample = ServerState::sample_with(link, asked);
        sample.map_err(|error| ShardError::at(&self.address, error))
    }

    /// Samples the server's state, and waits during a background save and while expiry is paused. Returns whether expiry
    /// was live since the last sample; then it commits the slices since.
    pub fn observe(&mut self, link: &mut Link) -> Result<bool, ShardError> {
        let ThrottleContext { stop, monitor, .. } = self.context;
        let mut clean = true;
        let started = Instant::now();
        let mut last = started;
        let (sample, is_importing) = loop {
            let (sample, is_importing) = self.sample(link)?;
            self.removals.record(sample.counters);
            let paused = sample.expiry == Expiry::Paused;
            let saving = sample.saving && self.waits_for_saves();
            clean &= !paused;
            if paused {
                // A connection that breaks before the pause ends must not commit the slices before it.
                self.state().pauses_sampled = None;
            }
            if !paused && !saving {
                break (sample, is_importing);
            }
            if started == last {
                monitor.note(match paused {
                    true => "throttled: the server has paused writes and with them expiry; the last second is scanned again afterwards",
                    false => "throttled: the server runs a background save, during which deletes cost memory",
                });
            }
            self.check_stop()?;
            stop.wait_until(Instant::now() + THROTTLED_INTERVAL);
            let waited = last.elapsed().as_secs_f64();
            last = Instant::now();
            let throttled = &mut self.state().throttled;
            *(if paused { &mut throttled.paused } else { &mut throttled.fork }) += waited;
        };
        if is_importing {
            let sentence = format!(
                "{} has begun to delete no expired key (import-mode yes); scan again when the import is over",
                self.address
            );
            return Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
        }
        self.take_in(&sample);
        // Not `>`: CONFIG RESETSTAT may have hidden a pause.
        if clean && sample.pauses != self.last_sample.pauses {
            monitor.note("expiry may have been paused for a moment; the last second is scanned again");
            clean = false;
        }
        let pauses = sample.pauses;
        self.last_sample = sample;
        let mut state = self.state();
        state.pauses_sampled = Some(pauses);
        if clean {
            state.commit();
        }
        Ok(clean)
    }

    /// Waits for the end of a pause that the server does not report.
    pub fn wait_for_hidden_pause(&mut self, wait: Duration) -> Result<(), ShardError> {
        let started = Instant::now();
        self.context.stop.wait_until(started + wait);
        self.state().throttled.paused += started.elapsed().as_secs_f64();
        self.check_stop()
    }

    /// Whether a replica lags or is missing.
    pub(super) fn waits_for_replicas(&self) -> bool {
        let RoleView::Primary { max_lag, replicas, .. } = self.role else { return false };
        max_lag > self.context.options.max_replica_lag || replicas < self.replicas
    }

    /// Waits while a replica lags too far behind, or while one that was attached at the start is missing: deletes are
    /// replicated, and must not overrun the buffers that the server keeps for its replicas.
    pub(super) fn wait_for_replicas(&mut self, link: &mut Link) -> Result<(), ShardError> {
        let ThrottleContext { options, stop, monitor, .. } = self.context;
        let started = Instant::now();
        let mut last = started;
        while let RoleView::Primary { max_lag, replicas, .. } = self.role {
            let lags = max_lag > options.max_replica_lag;
            if !lags && replicas >= self.replicas {
                break;
            }
            if !lags && started.elapsed() >= options.throttle_limit {
                monitor.note("a replica is still missing; the scan continues without it");
                self.replicas = replicas;
                break;
            }
            if started == last {
                monitor.note(match lags {
                    true => "throttled: a replica lags behind",
                    false => "throttled: a replica is missing or synchronising",
                });
            }
            self.check_stop()?;
            stop.wait_until(Instant::now() + THROTTLED_INTERVAL);
            let reply = link.call(&[b"ROLE"]).map_err(|error| ShardError::at(&self.address, error))?;
            self.role = RoleView::read(&reply);
            let waited = last.elapsed().as_secs_f64();
            last = Instant::now();
            let throttled = &mut self.state().throttled;
            *(if lags { &mut throttled.replica_lag } else { &mut throttled.replica_missing }) += waited;
        }
        match self.role {
            RoleView::Replica { .. } => Err(ShardError::Demoted),
            _ => Ok(()),
        }
    }
}
