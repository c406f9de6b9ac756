//! How late a server answers, by its own clock: what the network adds varies on both ways, a wait for the server only on the way
//! there.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::probe::Probe;
use crate::link::{Link, LinkError, TimeReading};

/// Jitter of the way there that the jitter of the way back explains, as a multiple of it: with few probes they differ by chance.
const JITTER: u32 = 3;
/// How long after the slice before it a slice has to be sent, so that it does not wait for that one.
const APART: Duration = Duration::from_millis(1);
/// Where the way of the first probe begins, so that later ones may be shorter.
const OFFSET: Duration = Duration::from_secs(3600);

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
    /// Records a slice like a probe, unless it was sent with the one before it. Returns whether it counts.
    pub fn record_slice(&mut self, sent: Instant, answered: Instant, clock: (i64, i64)) -> bool {
        let last = self.last_slice.replace(sent);
        if last.is_some_and(|last| sent.saturating_duration_since(last) < APART) {
            return false;
        }
        self.record(sent, answered, clock);
        true
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

    /// Sends a probe and records it. Returns its round trip.
    pub fn probe(&mut self, link: &mut Link) -> Result<Duration, LinkError> {
        let sent = link.send_time()?;
        self.receive(link, sent)
    }

    /// Sends so many probes, each this long after the one before, and receives their replies once all are sent: over a path whose
    /// round trip is no shorter, one after the other they would take a round trip each. Returns their round trips.
    pub fn probe_ahead(
        &mut self,
        link: &mut Link,
        number: u32,
        interval: Duration,
    ) -> Result<Vec<Duration>, LinkError> {
        let mut sent = Vec::with_capacity(number as usize);
        for index in 0..number {
            if index > 0 {
                thread::sleep(interval);
            }
            sent.push(link.send_time()?);
        }
        sent.into_iter().map(|sent| self.receive(link, sent)).collect()
    }

    /// Receives the reply to a probe that was sent before, and records it. Returns its round trip.
    fn receive(&mut self, link: &mut Link, sent: Instant) -> Result<Duration, LinkError> {
        let TimeReading { answered, clock } = link.receive_time(sent)?;
        if let Some(clock) = clock {
            self.record(sent, answered, (clock, clock));
        }
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
