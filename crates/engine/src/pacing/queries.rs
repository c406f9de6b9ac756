//! Which query runs between two slices: a sample of the server's state, one of background saves or of the cost of slices, or a
//! PING. Pure.
//!
//! A query costs a round trip in which no slice runs. Over a long path queries at fixed intervals would take all of the time,
//! so they get a share of it, and a slice runs between any two of them.

use std::time::Duration;

/// Share of the wall time by which queries may delay slices, 0–1.
const SHARE: f64 = 0.05;
/// How many times as long as the one before a query may take, beyond which it was not the path: the server stalled. After a fork the
/// next query matters most.
const STALLED: u32 = 4;
/// Time from one stall that does not count to the next.
const STALL_INTERVAL: Duration = Duration::from_secs(1);

/// A query between slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// A whole sample of the server's state.
    State,
    /// Whether a background save runs.
    Save,
    /// What the slices have cost.
    Cost,
    /// The latency probe.
    Ping,
}

impl Query {
    /// All queries.
    const ALL: [Self; 4] = [Self::State, Self::Save, Self::Cost, Self::Ping];

    /// Returns how many commands it takes; of the state one more where that asks for an import as well.
    pub const fn commands(self) -> u64 {
        match self {
            Self::State => 7,
            Self::Cost => 2,
            Self::Save | Self::Ping => 1,
        }
    }

    /// Time from one query of this kind to the next, where the path allows it.
    const fn interval(self) -> Duration {
        match self {
            Self::State | Self::Cost => Duration::from_secs(1),
            // Deletes until a save is noticed cost memory.
            Self::Save => Duration::from_millis(25),
            Self::Ping => Duration::from_millis(20),
        }
    }
}

/// The queries of one connection. Times are since the sweep began.
#[derive(Debug, Clone)]
pub struct Queries {
    /// When each query is due, in the order of [`Query::ALL`].
    due: [Duration; Query::ALL.len()],
    /// When the share of the wall time allows the next query that delays a slice.
    allowed: Duration,
    /// From when on a stall does not count.
    forgiving: Duration,
    /// How long the last query of each kind took.
    took: [Duration; Query::ALL.len()],
    /// Whether a slice has run since the last query.
    may_run: bool,
}

impl Queries {
    /// Returns queries that begin at `now`, on a path with this round trip: the state was sampled just before, and PINGs were
    /// sent.
    pub fn new(now: Duration, round_trip: Duration) -> Self {
        let due = Query::ALL.map(|query| now + query.interval());
        Self { due, allowed: now, forgiving: now, took: [round_trip; Query::ALL.len()], may_run: true }
    }

    /// Returns the query to run before the slice that is due at `slice_due`, and when to send it: so that its reply arrives
    /// when the slice is due, if there is time for that. `wants_saves`: whether background saves matter.
    pub fn next(&self, now: Duration, slice_due: Duration, wants_saves: bool) -> Option<(Query, Duration)> {
        if !self.may_run {
            return None;
        }
        let slice_due = slice_due.max(now);
        let is_due =
            |index: &usize| self.due[*index] <= slice_due && (Query::ALL[*index] != Query::Save || wants_saves);
        let index = (0..Query::ALL.len()).filter(is_due).min_by_key(|index| self.due[*index])?;
        let start = slice_due.saturating_sub(self.took[index]).max(now);
        let delays = start + self.took[index] > slice_due;
        (!delays || slice_due >= self.allowed).then_some((Query::ALL[index], start))
    }

    /// Records a query that was sent at `sent` and answered at `now`, while a slice was due at `slice_due`.
    pub fn record(&mut self, query: Query, sent: Duration, now: Duration, slice_due: Duration) {
        let index = query as usize;
        let usual = std::mem::replace(&mut self.took[index], now.saturating_sub(sent));
        self.due[index] = now + query.interval();
        let mut delay = now.saturating_sub(slice_due.max(sent));
        if delay > STALLED * usual && now >= self.forgiving {
            (delay, self.forgiving) = (STALLED * usual, now + STALL_INTERVAL);
        }
        self.allowed = now.max(self.allowed) + delay.mul_f64((1.0 - SHARE) / SHARE);
        self.may_run = false;
    }

    /// Records that a slice has run.
    pub fn record_slice(&mut self) {
        self.may_run = true;
    }

    /// Makes a query of this kind due now.
    pub fn expedite(&mut self, query: Query, now: Duration) {
        let due = &mut self.due[query as usize];
        *due = now.min(*due);
    }

    /// Makes a query of this kind due an interval from now: another one has returned the same.
    pub fn postpone(&mut self, query: Query, now: Duration) {
        self.due[query as usize] = now + query.interval();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What happened on a path on which everything costs a round trip, in virtual time.
    struct Run {
        elapsed: Duration,
        slices: u32,
        /// Queries of each kind.
        queries: [u32; 4],
        /// Time by which queries delayed slices.
        delayed: Duration,
        /// The longest sequence of queries without a slice between them.
        longest_sequence: u32,
    }

    /// Runs for a minute: every slice takes a round trip and is due `pause` after the one before.
    fn run(round_trip: Duration, pause: Duration) -> Run {
        let (mut now, mut due) = (Duration::ZERO, Duration::ZERO);
        let mut queries = Queries::new(now, round_trip);
        let mut run = Run { elapsed: now, slices: 0, queries: [0; 4], delayed: Duration::ZERO, longest_sequence: 0 };
        let mut sequence = 0;
        while now < Duration::from_secs(60) {
            if let Some((query, start)) = queries.next(now, due, true) {
                let sent = now.max(start);
                // The sample of the state is two commands, one after the other.
                now = sent + if query == Query::State { 2 * round_trip } else { round_trip };
                run.delayed += now.saturating_sub(due.max(sent));
                queries.record(query, sent, now, due);
                run.queries[query as usize] += 1;
                sequence += 1;
                run.longest_sequence = run.longest_sequence.max(sequence);
            } else {
                now = now.max(due);
                due = now + pause;
                now += round_trip;
                queries.record_slice();
                run.slices += 1;
                sequence = 0;
            }
        }
        run.elapsed = now;
        run
    }

    #[test]
    fn on_a_short_path_every_query_runs_at_its_interval() {
        let Run { slices, queries: [states, saves, _, pings], .. } =
            run(Duration::from_micros(60), Duration::from_micros(800));
        assert!(slices > 55_000, "{slices}");
        assert!((55..=60).contains(&states) && (2_200..=2_400).contains(&saves), "{states} and {saves}");
        assert!((2_700..=3_000).contains(&pings), "{pings}");
    }

    #[test]
    fn a_server_that_stalls_once_is_soon_asked_again_whether_it_saves() {
        let (micro, milli) = (Duration::from_micros(1), Duration::from_millis(1));
        let mut queries = Queries::new(Duration::ZERO, 60 * micro);
        // The fork of a save stalls the PING that was sent just before it.
        queries.record(Query::Ping, 20 * milli, 50 * milli, 20 * milli);
        queries.record_slice();
        let begun = 51 * milli;
        assert_eq!(queries.next(begun, begun, true), None, "a slice was delayed");
        let soon = 60 * milli;
        assert_eq!(queries.next(soon, soon, true).map(|(query, _)| query), Some(Query::Save));
    }

    #[test]
    fn a_server_that_stalls_again_and_again_is_asked_less_often() {
        let (micro, milli) = (Duration::from_micros(1), Duration::from_millis(1));
        let mut queries = Queries::new(Duration::ZERO, 60 * micro);
        let (mut now, mut delayed, mut asked) = (Duration::ZERO, Duration::ZERO, 0u32);
        while now < Duration::from_secs(60) {
            match queries.next(now, now, true) {
                Some((query, _)) => {
                    asked += 1;
                    // Every other one.
                    let took = if asked.is_multiple_of(2) { 30 * milli } else { 100 * micro };
                    queries.record(query, now, now + took, now);
                    (now, delayed) = (now + took, delayed + took);
                }
                None => now += milli,
            }
            queries.record_slice();
        }
        // A twentieth, and one stall a second.
        assert!(delayed < Duration::from_secs(3 + 2), "{delayed:?} of a minute, {asked} queries");
    }

    #[test]
    fn a_query_that_fits_into_the_pause_before_a_slice_does_not_delay_it() {
        let run = run(Duration::from_millis(5), Duration::from_millis(40));
        assert!(run.delayed < Duration::from_millis(200), "{:?} in a minute", run.delayed);
        assert!(run.queries[3] > 300, "{} PINGs", run.queries[3]);
    }

    #[test]
    fn over_a_distance_every_kind_of_query_has_its_turn() {
        let [states, saves, costs, pings] = run(Duration::from_millis(45), Duration::ZERO).queries;
        assert!(
            [states, saves, costs, pings].into_iter().all(|n| n >= 10),
            "{states}, {saves}, {costs} and {pings} in a minute"
        );
    }

    proptest! {
        #[test]
        fn over_any_distance_slices_run_between_queries_and_get_nearly_all_of_the_time(
            round_trip in 10u64..400_000, pause in 0u64..5_000,
        ) {
            let round_trip = Duration::from_micros(round_trip);
            let run = run(round_trip, Duration::from_micros(pause));
            prop_assert_eq!(run.longest_sequence, 1);
            let share = run.delayed.as_secs_f64() / run.elapsed.as_secs_f64();
            // The last query may have just been answered.
            let last = 2.0 * round_trip.as_secs_f64() / run.elapsed.as_secs_f64();
            prop_assert!(share <= SHARE + last + 1e-6, "queries delayed slices for {share} of the time");
            prop_assert!(run.queries.iter().all(|number| *number > 0), "{:?}", run.queries);
        }
    }
}
