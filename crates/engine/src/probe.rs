//! Latency as a client of that server sees it: a PING between two slices, every 20 ms.
//!
//! The shard's own thread sends it, just before the next slice is due. So no PING ever waits behind a slice of ours
//! (a second thread's would, the more often the slower the server gets, and would go blind when it matters), and what
//! it measures is whether the server has caught up by the time that we come again.

use std::{collections::VecDeque, time::Duration};

/// How often a PING is sent.
pub const EVERY: Duration = Duration::from_millis(20);
/// How long a PING counts.
const WINDOW: Duration = Duration::from_secs(1);
/// With fewer PINGs than this a p90 says nothing.
const ENOUGH: usize = 10;

/// The PINGs of the last second. Times are since the sweep began.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    recent: VecDeque<(Duration, Duration)>,
    /// Those since the last change of duty: the guard judges what it has brought about, not what was before.
    fresh: usize,
}

impl Probe {
    /// Takes note of a PING that was sent at `sent` and took `round_trip`.
    pub fn record(&mut self, sent: Duration, round_trip: Duration) {
        self.recent.push_back((sent, round_trip));
        self.fresh += 1;
        // The last one stays however old it is: a sweep at full pace may be slow to come round to the next.
        while self.recent.len() > 1 && self.recent.front().is_some_and(|(first, _)| *first + WINDOW < sent) {
            self.recent.pop_front();
        }
        self.fresh = self.fresh.min(self.recent.len());
    }

    /// What an answer costs when the server has nothing to do for us: the least of the last second.
    pub fn idle(&self) -> Duration {
        self.recent.iter().map(|(_, round_trip)| *round_trip).min().unwrap_or_default()
    }

    /// What an answer costs on a server that others keep busy: the median of the last second.
    pub fn typical(&self) -> Duration {
        let mut round_trips: Vec<Duration> = self.recent.iter().map(|(_, round_trip)| *round_trip).collect();
        if round_trips.is_empty() {
            return Duration::ZERO;
        }
        let middle = round_trips.len() / 2;
        *round_trips.select_nth_unstable(middle).1
    }

    /// The p90 since the last [`Probe::start_over`], at most of the last second; `None` while there are too few.
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

    /// From here on only new PINGs count for the p90.
    pub fn start_over(&mut self) {
        self.fresh = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn the_p90_is_that_of_the_last_second() {
        let mut probe = Probe::default();
        for n in 0..50u32 {
            probe.record(EVERY * n, 9 * MILLI);
        }
        assert_eq!(probe.p90(), Some(9 * MILLI));
        for n in 50..110u32 {
            probe.record(EVERY * n, if n % 20 == 0 { 5 * MILLI } else { MILLI });
        }
        assert_eq!((probe.p90(), probe.idle()), (Some(MILLI), MILLI));
        assert_eq!(probe.typical(), MILLI);
    }

    #[test]
    fn after_starting_over_old_answers_do_not_count() {
        let mut probe = Probe::default();
        (0..20u32).for_each(|n| probe.record(EVERY * n, 9 * MILLI));
        probe.start_over();
        assert_eq!(probe.p90(), None);
        (20..30u32).for_each(|n| probe.record(EVERY * n, MILLI));
        assert_eq!(probe.p90(), Some(MILLI));
    }
}
