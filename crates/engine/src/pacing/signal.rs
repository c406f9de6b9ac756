//! What the guard judges of the latency of clients.
//!
//! Next to the server that is the round trip of a PING. Over a distance the round trip varies with the network, and the guard
//! would back off from jitter. There the server itself says how long it lets clients wait: by its clock, which says when it ran a
//! slice, and by what it counts of its commands and of its event loop (Redis and Valkey since 7.2).
//!
//! No network touches what the server counts, and long commands stand out also beside thousands of short ones, in whose iterations of
//! the event loop they would be lost. The clock shows what is no command: a cycle that expires keys, a slow disk. By the clock jitter of
//! one direction looks like a stall, and so a server that counts an idle event loop meanwhile has had none.

use std::time::{Duration, Instant};

use super::{probe::Probe, waits::Waits};
use crate::{
    link::{Link, LinkError},
    server::ServerState,
};

/// Share of the time in which a server must have been busy, the sweep's own part left out, for a p90 of the waits for it to rise.
const SEEN: f64 = 0.1;

/// Signal of one connection. Without a clock and counters it is the round trip of a PING.
#[derive(Debug, Clone, Default)]
pub struct Signal {
    clock: Option<Clock>,
    counters: Option<Counters>,
}

/// How late the server answers, by its clock.
#[derive(Debug, Clone)]
struct Clock {
    waits: Waits,
    /// The p90 before the first slice.
    baseline: Duration,
}

/// What the server counts of its event loop and its commands.
#[derive(Debug, Clone)]
struct Counters {
    /// When the last sample was taken.
    at: Instant,
    /// How long a command has to take to keep other clients waiting.
    long: Duration,
    baseline: Counted,
    /// By how much clients waited longer, up to the last sample.
    excess: Duration,
    /// Whether the server was busy up to the last sample for long enough without the sweep that the p90 of its clients can have risen;
    /// `None`: it does not say.
    is_busy: Option<bool>,
}

/// How long clients had to wait between two samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    /// For a mean iteration of the event loop.
    iteration: Duration,
    /// For a mean call of the long commands, where these took so much of the time that a p90 sees them.
    command: Duration,
}

impl Counted {
    /// Returns what clients had to wait for between two samples. `None`: the counters were reset.
    fn between(before: &ServerState, now: &ServerState, elapsed: Duration, long: Duration) -> Option<Self> {
        let loops = now.event_loop.zip(before.event_loop);
        let iteration = loops.map_or(Some(Duration::ZERO), |(now, before)| now.mean_since(before))?;
        let calls = now.commands.longer_than(long, &before.commands)?;
        let is_seen = calls.total >= elapsed.mul_f64(SEEN);
        Some(Self { iteration, command: if is_seen { calls.mean() } else { Duration::ZERO } })
    }
}

impl Counters {
    /// Takes in a sample and the one before it. `own`: the share of the time that slices took; `None`: unknown.
    fn take_in(&mut self, now: Instant, [before, sample]: [&ServerState; 2], own: Option<f64>) {
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut self.at, now));
        if let Some(counted) = Counted::between(before, sample, elapsed, self.long) {
            let iteration = counted.iteration.saturating_sub(self.baseline.iteration);
            self.excess = iteration.max(counted.command.saturating_sub(self.baseline.command));
        }
        let loops = sample.event_loop.zip(before.event_loop);
        if let Some((busy, own)) = loops.and_then(|(now, before)| now.busy_since(before)).zip(own) {
            self.is_busy = Some(busy.as_secs_f64() >= (SEEN + own) * elapsed.as_secs_f64());
        }
    }
}

/// What a signal over a distance begins with.
pub struct Before<'a> {
    /// Probes by the server's clock; none where it does not tell the time.
    pub waits: Waits,
    /// The samples before and after them, and how long one came after the other.
    pub samples: [&'a ServerState; 2],
    pub elapsed: Duration,
    /// How long clients may wait longer.
    pub tolerance: Duration,
    /// How long a slice keeps the event loop from its next iteration.
    pub slice: Duration,
}

impl Signal {
    /// Returns the signal over a distance.
    pub fn over_distance(before: Before<'_>) -> Self {
        let Before { mut waits, samples: [first, last], elapsed, tolerance, slice } = before;
        let clock = waits.p90().map(|baseline| {
            waits.reset();
            Clock { waits, baseline }
        });
        // Where INFO is refused there is none of these.
        let counters = last.scan.is_some().then(|| {
            let counted = Counted::between(first, last, elapsed, tolerance).unwrap_or_default();
            Counters {
                at: Instant::now(),
                long: tolerance,
                baseline: Counted { iteration: counted.iteration.max(slice), ..counted },
                excess: Duration::ZERO,
                is_busy: last.event_loop.map(|_| false),
            }
        });
        Self { clock, counters }
    }

    /// Whether it is the round trip of a PING; else it is what clients wait for beyond that before the first slice.
    pub fn is_ping(&self) -> bool {
        self.clock.is_none() && self.counters.as_ref().is_none_or(|counters| counters.is_busy.is_none())
    }

    /// Sends a probe. Returns its round trip.
    pub fn send_probe(&mut self, link: &mut Link) -> Result<Duration, LinkError> {
        match &mut self.clock {
            Some(clock) => clock.waits.probe(link),
            None => link.ping(),
        }
    }

    /// Returns what the guard judges after a probe, if there are enough of them. `pings`: their round trips.
    pub fn after_probe(&self, pings: &Probe) -> Option<Duration> {
        if self.is_ping() { pings.p90() } else { self.excess() }
    }

    /// Records a slice like a probe: on a scan that runs slices all the time probes are rare. `clock`: the server's times when it began
    /// to run and when it had, microseconds. Returns what the guard judges, if this slice tells something.
    pub fn after_slice(&mut self, sent: Instant, answered: Instant, clock: (i64, i64)) -> Option<Duration> {
        let is_recorded = self.clock.as_mut()?.waits.record_slice(sent, answered, clock);
        if is_recorded { self.excess() } else { None }
    }

    /// Takes in the last two samples of the server's state, the second of them new. `own`: the share of the time that slices took since
    /// the first one; `None`: unknown. Returns what the guard judges.
    pub fn after_sample(&mut self, now: Instant, samples: [&ServerState; 2], own: Option<f64>) -> Option<Duration> {
        let is_ping = self.is_ping();
        let counters = self.counters.as_mut()?;
        counters.take_in(now, samples, own);
        (!is_ping).then_some(counters.excess)
    }

    /// Restricts it to what comes from now on.
    pub fn reset(&mut self) {
        if let Some(clock) = &mut self.clock {
            clock.waits.reset();
        }
        if let Some(counters) = &mut self.counters {
            counters.excess = Duration::ZERO;
        }
    }

    /// Returns by how much clients wait longer than before the first slice; `None`: since the last reset there were too few probes.
    fn excess(&self) -> Option<Duration> {
        let clock = self.clock.as_ref()?;
        let waited = clock.waits.p90()?.saturating_sub(clock.baseline);
        let Some(counters) = &self.counters else { return Some(waited) };
        // A server that is idle keeps no client waiting: the network does.
        let waited = if counters.is_busy == Some(false) { Duration::ZERO } else { waited };
        Some(waited.max(counters.excess))
    }
}

#[cfg(test)]
mod tests;
