//! The latency probe: a PING between two slices, every 20 ms where the path allows it, that measures the latency of clients.
//!
//! The shard's own thread sends it, just before the next slice is due. So no PING waits behind a slice of the sweep (those
//! of a second thread would, the more often the slower the server gets), and its round trip shows whether the server has
//! caught up before the next slice.

use std::{collections::VecDeque, time::Duration};

use super::cost::LOW;

/// How long a PING counts.
const WINDOW: Duration = Duration::from_secs(1);
/// PINGs below which a p90 is meaningless: as many are kept for longer, where a long path allows fewer in a second.
const ENOUGH: usize = 10;

/// The PINGs of the last second, at least the last ten. Times are since the sweep began.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    recent: VecDeque<(Duration, Duration)>,
    /// Number of PINGs since the last change of the CPU limit: the guard judges only these.
    fresh: usize,
}

impl Probe {
    /// Records a PING that was sent at `sent` and took `round_trip`.
    pub fn record(&mut self, sent: Duration, round_trip: Duration) {
        self.recent.push_back((sent, round_trip));
        self.fresh += 1;
        while self.recent.len() > ENOUGH && self.recent.front().is_some_and(|(first, _)| *first + WINDOW < sent) {
            self.recent.pop_front();
        }
        self.fresh = self.fresh.min(self.recent.len());
    }

    /// Returns the idle round trip: the shortest of the last second.
    pub fn idle(&self) -> Duration {
        self.recent.iter().map(|(_, round_trip)| *round_trip).min().unwrap_or_default()
    }

    /// Returns the round trip that a quarter of the PINGs stays below: unlike the shortest it does not depend on their number.
    pub fn low(&self) -> Duration {
        self.quantile(LOW)
    }

    /// Returns a quantile of the round trips.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let mut round_trips: Vec<Duration> = self.recent.iter().map(|(_, round_trip)| *round_trip).collect();
        if round_trips.is_empty() {
            return Duration::ZERO;
        }
        let position = ((round_trips.len() - 1) as f64 * quantile).round() as usize;
        *round_trips.select_nth_unstable(position).1
    }

    /// Returns the p90 since the last [`Probe::reset`], at most of the last second; `None` while there are too few.
    pub fn p90(&self) -> Option<Duration> {
        if self.fresh < ENOUGH {
            return None;
        }
        let mut round_trips: Vec<Duration> =
            self.recent.iter().rev().take(self.fresh).map(|(_, round_trip)| *round_trip).collect();
        let position = (round_trips.len() - 1) * 9 / 10;
        let (_, p90, _) = round_trips.select_nth_unstable(position);
        Some(*p90)
    }

    /// Returns the longest round trip since the last [`Probe::reset`], at most of the last second.
    pub fn longest(&self) -> Duration {
        self.recent.iter().rev().take(self.fresh).map(|(_, round_trip)| *round_trip).max().unwrap_or_default()
    }

    /// Restricts the p90 to PINGs from now on.
    pub fn reset(&mut self) {
        self.fresh = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const INTERVAL: Duration = Duration::from_millis(20);

    #[test]
    fn the_p90_is_that_of_the_last_second() {
        let mut probe = Probe::default();
        for n in 0..50u32 {
            probe.record(INTERVAL * n, 9 * MILLI);
        }
        assert_eq!(probe.p90(), Some(9 * MILLI));
        for n in 50..110u32 {
            probe.record(INTERVAL * n, if n % 20 == 0 { 5 * MILLI } else { MILLI });
        }
        assert_eq!((probe.p90(), probe.idle()), (Some(MILLI), MILLI));
        assert_eq!(probe.low(), MILLI);
    }

    #[test]
    fn over_a_long_path_the_last_ten_count_whatever_their_age() {
        let mut probe = Probe::default();
        (0..9u32).for_each(|n| probe.record(Duration::from_secs(1) * n, 5 * MILLI));
        assert_eq!(probe.p90(), None);
        (9..30u32).for_each(|n| probe.record(Duration::from_secs(1) * n, 9 * MILLI));
        assert_eq!((probe.p90(), probe.idle()), (Some(9 * MILLI), 9 * MILLI));
    }

    #[test]
    fn after_a_reset_old_pings_do_not_count() {
        let mut probe = Probe::default();
        (0..20u32).for_each(|n| probe.record(INTERVAL * n, 9 * MILLI));
        probe.reset();
        assert_eq!(probe.p90(), None);
        (20..30u32).for_each(|n| probe.record(INTERVAL * n, MILLI));
        assert_eq!(probe.p90(), Some(MILLI));
    }
}
