//! What clients feel before the first slice: the baseline of the guard.

use std::time::{Duration, Instant};

use super::{
    clients::Clients,
    cost::PER_PING,
    guard::Guard,
    probe::Probe,
    signal::{Before, Signal},
    waits::Waits,
};
use crate::{
    limits::Limits,
    link::{Link, LinkError},
    server::{Asked, ServerState},
    speed::DISTANT,
    stop::Stop,
};

/// PINGs before the first slice, and the time between them.
const PINGS: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(3);
/// How long to measure at a distance: one period of the server's own cycle at its usual frequency.
const TIME: Duration = Duration::from_millis(100);
/// PINGs at a distance, at least: as many as a p90 takes.
const DISTANT_PINGS: u32 = 10;
/// PINGs without a guard, and at a distance where the server reports its event loop and refuses TIME.
const MIN_PINGS: u32 = 3;

/// Result of the measurement.
pub(super) struct Baseline {
    /// `None`: the sweep is not guarded.
    pub guard: Option<Guard>,
    /// The p90 of the PINGs, where the sweep is guarded.
    pub p90: Option<Duration>,
    /// What the guard judges.
    pub signal: Signal,
    /// Load of the clients, where it was measured.
    pub clients: Option<Clients>,
    /// The state at the end.
    pub sample: ServerState,
}

impl Baseline {
    /// Measures the round trip alone.
    pub fn unguarded(link: &mut Link, probe: &mut Probe, sample: ServerState) -> Result<Self, LinkError> {
        for _ in 0..MIN_PINGS {
            probe.record(Duration::ZERO, link.ping()?);
        }
        Ok(Self { guard: None, p90: None, signal: Signal::default(), clients: None, sample })
    }

    /// Measures latency and load. `known`: the p90 before the first slice of an earlier connection, when nothing had happened
    /// yet of what made that one break. `before`: the state a moment ago, and when that was. `tells_time`: whether TIME is allowed.
    pub fn guarded(
        link: &mut Link,
        probe: &mut Probe,
        limits: Limits,
        tells_time: bool,
        known: Option<Duration>,
        before: (ServerState, Instant),
        stop: &Stop,
    ) -> Result<Self, LinkError> {
        let (before, sampled) = before;
        let mut waits = Waits::default();
        let mut pings = 0;
        while pings < PINGS {
            let path = link.round_trip();
            let by_clock = tells_time && path > DISTANT;
            let enough = if by_clock || before.event_loop.is_none() { DISTANT_PINGS } else { MIN_PINGS };
            // The last sample takes a round trip as well.
            if pings >= enough && path > DISTANT && sampled.elapsed() + path >= TIME {
                break;
            }
            let next = Instant::now() + INTERVAL;
            let round_trips = match by_clock {
                true => {
                    let ahead = (path.as_micros() / INTERVAL.as_micros()).clamp(1, u128::from(DISTANT_PINGS));
                    waits.probe_ahead(link, ahead as u32, INTERVAL)?
                }
                false => vec![link.ping()?],
            };
            for round_trip in round_trips {
                probe.record(Duration::ZERO, round_trip);
                pings += 1;
            }
            stop.wait_until(next);
        }
        let asked = Asked { counters: before.counters.is_some(), import_mode: false };
        let (sample, _) = ServerState::sample_with(link, asked)?;
        let elapsed = sampled.elapsed().as_secs_f64();
        let is_distant = probe.idle() > DISTANT;
        let p90 = known.unwrap_or_else(|| probe.quantile(0.9));
        let signal = match is_distant {
            true => Signal::over_distance(Before {
                waits,
                samples: [&before, &sample],
                elapsed: sampled.elapsed(),
                tolerance: limits.guard.unwrap_or_default(),
                // An iteration that runs a slice is as long as that.
                slice: limits.over(probe.idle()).max_slice,
            }),
            false => Signal::default(),
        };
        let threshold = match signal.is_ping() {
            true if is_distant => p90 + p90.saturating_sub(probe.idle()),
            true => p90,
            // It is what clients wait for beyond this baseline.
            false => Duration::ZERO,
        };
        let cpu = sample.main_thread_cpu.zip(before.main_thread_cpu);
        // What the PINGs take is no client's, and slices would seem that much cheaper.
        let own = Duration::from_secs_f64(f64::from(pings) * PER_PING);
        let used = cpu.map(|(now, before)| now.saturating_sub(before).saturating_sub(own).as_secs_f64());
        let mut guard = limits.guard.map(|tolerance| Guard::new(limits.max_cpu, threshold, tolerance));
        if let Some((guard, used)) = guard.as_mut().zip(used) {
            guard.start_beside(used / elapsed);
        }
        // Those of the samples, and of connections that are made meanwhile, count as commands of clients that fall silent.
        let commands = sample
            .scan
            .zip(before.scan)
            .map_or(0, |(now, before)| now.commands.saturating_sub(before.commands).saturating_sub(u64::from(pings)));
        let clients = used.map(|used| Clients::new(used, elapsed, commands));
        let p90 = guard.is_some().then_some(p90);
        Ok(Self { guard, p90, signal, clients, sample })
    }
}
