//! What the guard judges of the latency of clients.
//!
//! Next to the server that is the round trip of a PING. Over a distance the round trip varies with the network, and the guard
//! would back off from jitter. There the server itself says how long it lets clients wait: by the iterations of its event loop
//! (Redis and Valkey since 7.2), or by its clock.

use std::time::{Duration, Instant};

use super::probe::Probe;
use crate::{
    link::{Link, LinkError, TimeReading},
    server::EventLoop,
};

/// Jitter of the way there that the jitter of the way back explains, as a multiple of it: with few probes they differ by chance.
const JITTER: u32 = 3;
/// How long after the slice before it a slice has to be sent, so that it does not wait for that one.
const APART: Duration = Duration::from_millis(1);
/// Where the way of the first probe begins, so that later ones may be shorter.
const OFFSET: Duration = Duration::from_secs(3600);

/// Signal of one connection.
#[derive(Debug, Clone, Default)]
pub enum Signal {
    /// The round trip of a PING.
    #[default]
    Ping,
    /// The mean iteration of the server's event loop since the last sample.
    EventLoop(EventLoop),
    /// How late the server answers, by its clock.
    Clock(Waits),
}

/// How late a server answers, by what TIME returns.
///
/// The reading divides the round trip into the way there, at whose end the probe waits for the server, and the way back. How far
/// the clocks are apart does not matter: only how the ways vary is compared. The network lets both vary, a server that stalls only
/// the way there.
#[derive(Debug, Clone)]
pub struct Waits {
    origin: Instant,
    /// When the last slice was sent.
    last_slice: Option<Instant>,
    /// What the first way there took, by clocks that differ, microseconds.
    first: Option<i64>,
    there: Probe,
    back: Probe,
}

impl Default for Waits {
    fn default() -> Self {
        Self { origin: Instant::now(), last_slice: None, first: None, there: Probe::default(), back: Probe::default() }
    }
}

impl Waits {
    /// Records a slice like a probe, unless it was sent with the one before it. On a scan that runs slices all the time probes are
    /// rare. Returns the p90 with it, where it counts.
    pub fn record_slice(&mut self, sent: Instant, answered: Instant, clock: (i64, i64)) -> Option<Duration> {
        let last = self.last_slice.replace(sent);
        if last.is_some_and(|last| sent.saturating_duration_since(last) < APART) {
            return None;
        }
        self.record(sent, answered, clock);
        self.p90()
    }

    /// Records a probe by the times at which it was sent and answered. `clock`: the server's times when it began to run and when it
    /// had, microseconds.
    fn record(&mut self, sent: Instant, answered: Instant, clock: (i64, i64)) {
        let own = |time: Instant| time.saturating_duration_since(self.origin).as_micros() as i64;
        let there = clock.0.saturating_sub(own(sent));
        let first = *self.first.get_or_insert(there);
        let way = |micros: i64| {
            let offset = OFFSET.as_micros() as i64;
            Duration::from_micros(u64::try_from(offset.saturating_add(micros)).unwrap_or_default())
        };
        let (sent, back) = (sent.saturating_duration_since(self.origin), own(answered).saturating_sub(clock.1));
        self.there.record(sent, way(there.saturating_sub(first)));
        self.back.record(sent, way(back.saturating_add(first)));
    }

    /// Sends a probe, and records it where it asks for the time: with `by_clock`, unless the server refuses that. Returns its round
    /// trip.
    pub fn probe(&mut self, link: &mut Link, by_clock: bool) -> Result<Duration, LinkError> {
        let reading = if by_clock { link.time()? } else { None };
        let Some(TimeReading { sent, answered, clock }) = reading else { return link.ping() };
        self.record(sent, answered, (clock, clock));
        Ok(answered.saturating_duration_since(sent))
    }

    /// Returns the p90 of how much longer than the shortest way there a probe took, beyond what the network explains; `None`: there
    /// were too few since the last [`Waits::reset`].
    pub fn p90(&self) -> Option<Duration> {
        let wait = self.there.p90()?.saturating_sub(self.there.idle());
        // Where jitter has just begun, the p90 of ten probes is the second latest of them: on the way back that one may be short by
        // chance, the latest is not.
        let jitter = self.back.longest().saturating_sub(self.back.idle());
        Some(wait.saturating_sub(JITTER * jitter))
    }

    /// Restricts the p90 to probes from now on.
    pub fn reset(&mut self) {
        self.there.reset();
        self.back.reset();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the p90 of a second of probes, each with the microseconds of its way there, its wait for the server, and its way back.
    fn p90(clock: i64, probes: &[(u64, u64, u64)]) -> Duration {
        let mut waits = Waits::default();
        let (mut now, micros) = (waits.origin, Duration::from_micros);
        for (there, wait, back) in probes {
            let (arrived, answered) = (now + micros(there + wait), now + micros(there + wait + back));
            let clock = clock + (arrived - waits.origin).as_micros() as i64;
            waits.record(now, answered, (clock, clock));
            now = answered + Duration::from_millis(1);
        }
        waits.p90().expect("enough probes")
    }

    #[test]
    fn ten_probes_are_needed_and_a_reset_forgets_the_earlier_ones() {
        let mut waits = Waits::default();
        let record = |waits: &mut Waits| waits.record(waits.origin, waits.origin + Duration::from_millis(1), (77, 79));
        (0..9).for_each(|_| record(&mut waits));
        assert_eq!(waits.p90(), None);
        record(&mut waits);
        assert_eq!(waits.p90(), Some(Duration::ZERO));
        waits.reset();
        assert_eq!(waits.p90(), None);
    }

    #[test]
    fn slices_that_are_sent_together_count_once() {
        let mut waits = Waits::default();
        let (start, milli) = (waits.origin, Duration::from_millis(1));
        for number in 0..40u32 {
            // Four at a time: the last one waits for the others.
            let (sent, wait) =
                (start + 20 * milli * (number / 4) + milli / 10 * (number % 4), i64::from(number % 4) * 1_000);
            let begun = (sent - start).as_micros() as i64 + 10_000 + wait;
            waits.record_slice(sent, sent + 30 * milli, (begun, begun + 500));
        }
        assert_eq!(waits.p90(), Some(Duration::ZERO));
        assert_eq!(waits.there.quantile(0.99), OFFSET, "none of those that waited");
    }

    proptest! {
        #[test]
        fn jitter_of_the_network_is_no_wait_for_the_server(
            way in 500u64..3_000, jitter in 0u64..4_000, draws in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0), 40),
            clock in -1_000_000_000i64..2_000_000_000_000_000,
        ) {
            let vary = |part: f64| way + (part * jitter as f64) as u64;
            let probes: Vec<_> = draws.iter().map(|(there, back)| (vary(*there), 0, vary(*back))).collect();
            prop_assert!(p90(clock, &probes) < Duration::from_millis(1), "{probes:?}");
        }

        #[test]
        fn a_server_that_stalls_is_seen_through_the_jitter(
            way in 500u64..3_000, jitter in 0u64..500, draws in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0), 40),
            stall in 5_000u64..30_000, clock in -1_000_000_000i64..2_000_000_000_000_000,
        ) {
            let vary = |part: f64| way + (part * jitter as f64) as u64;
            let probe = |(number, (there, back)): (usize, &(f64, f64))| {
                (vary(*there), if number % 4 == 0 { stall } else { 0 }, vary(*back))
            };
            let probes: Vec<_> = draws.iter().enumerate().map(probe).collect();
            let found = p90(clock, &probes);
            prop_assert!(found + Duration::from_millis(2) > Duration::from_micros(stall), "{found:?} of {stall} µs");
            prop_assert!(found > Duration::from_millis(1));
        }
    }
}
