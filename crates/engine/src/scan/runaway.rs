//! Cursors that never come to an end, as a broken or hostile server gives them out. Pure.

use crate::record::Call;

/// Calls, or keys, that a pass may take beyond twenty times what the server says that it holds.
const ALLOWANCE: u64 = 1_000_000;
/// How many times the keys of a database a pass may visit: a table that is resized all the while repeats some of them.
const REPEATS: u64 = 20;
/// Keys that a database holds at most, whatever the server claims: as many as Redis can.
const MOST_KEYS: u64 = 1 << 32;
/// Keys that a pass may ask for or visit where the server does not say how many it holds: twice as many, since a table of their
/// buckets may be empty.
const MOST_ASKED: u64 = 2 * MOST_KEYS;
/// Calls in a row without a key, beyond twenty times those that all keys would take. Between two keys of a table that was not shrunk
/// after nearly all keys were deleted there are fewer.
const ALLOWED_EMPTY_CALLS: u64 = 10_000;
/// Calls in a row without a key, where the server does not say how many it holds. Each passes over a hundred buckets at least, and
/// servers shrink tables that are so empty.
const MOST_EMPTY_CALLS: u64 = 1_000_000;

/// Watches the cursors of one pass over a database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runaway {
    /// A cursor that was returned earlier. A cursor that comes again leads to the same cursors after it.
    landmark: u64,
    /// Calls since the landmark, and calls until the next one: twice as many each time, so that a loop of any length is
    /// found while only one cursor is remembered.
    since: u64,
    until: u64,
    visited: u64,
    /// Keys that were asked for, or visited where those are more.
    asked: u64,
    /// Calls since the last one that visited a key.
    empty_calls: u64,
    /// The most keys that the server has reported in this pass: a scan that reclaims keys, or a flush, shrinks the database.
    most_keys: u64,
}

/// Why a pass is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunawayKind {
    /// A cursor was returned a second time.
    Loop,
    /// Far more keys were visited than the server says that it holds.
    Endless {
        /// Keys visited; a call without one counts as one.
        visited: u64,
        /// The most keys that the server has reported in this pass.
        keys: u64,
    },
    /// More keys were asked for than any server can hold, of one that does not say how many it holds.
    Unsized {
        /// Keys asked for, or visited where those are more.
        asked: u64,
    },
    /// Too many calls in a row visited no key.
    Empty {
        /// These calls.
        calls: u64,
    },
}

impl Runaway {
    /// Starts another chunk: the calls of two chunks overlap, and may return the same cursor.
    pub fn start_chunk(&mut self) {
        (self.landmark, self.since, self.until, self.empty_calls) = (0, 0, 0, 0);
    }

    /// Records a call. `keys`: those that the database holds; `None`: the server does not report it. Returns a reason to give up.
    pub fn record(&mut self, call: Call, keys: Option<u64>) -> Option<RunawayKind> {
        let Call { count, cursor, visited, .. } = call;
        // A call without keys counts as one: an endless walk through nearly empty buckets is one as well.
        self.visited = self.visited.saturating_add(visited.max(1));
        self.asked = self.asked.saturating_add(visited.max(u64::from(count)));
        self.empty_calls = if visited == 0 { self.empty_calls + 1 } else { 0 };
        if cursor == 0 {
            return None;
        }
        if cursor == self.landmark {
            return Some(RunawayKind::Loop);
        }
        self.since += 1;
        if self.since > self.until {
            (self.landmark, self.since, self.until) = (cursor, 0, self.until * 2 + 1);
        }
        let (visited, asked, calls) = (self.visited, self.asked, self.empty_calls);
        let Some(keys) = keys else {
            let empty = (calls > MOST_EMPTY_CALLS).then_some(RunawayKind::Empty { calls });
            return empty.or_else(|| (asked > MOST_ASKED).then_some(RunawayKind::Unsized { asked }));
        };
        self.most_keys = self.most_keys.max(keys);
        let keys = self.most_keys;
        let most = keys.min(MOST_KEYS) * REPEATS;
        let most_empty = most / u64::from(count.max(1)) + ALLOWED_EMPTY_CALLS;
        let empty = (calls > most_empty).then_some(RunawayKind::Empty { calls });
        empty.or_else(|| (visited > most + ALLOWANCE).then_some(RunawayKind::Endless { visited, keys }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(cursor: u64, visited: u64) -> Call {
        Call { count: 10, cursor, returned: visited, visited }
    }

    #[test]
    fn a_cursor_that_does_not_move_is_found_at_once() {
        let mut runaway = Runaway::default();
        assert_eq!(runaway.record(call(7, 10), Some(1_000)), None);
        assert_eq!(runaway.record(call(7, 10), Some(1_000)), Some(RunawayKind::Loop));
    }

    #[test]
    fn far_more_keys_than_there_are_end_the_pass() {
        for visited in [1, 1_000] {
            let mut runaway = Runaway::default();
            let calls = (1u64..).find(|cursor| runaway.record(call(*cursor, visited), Some(1_000)).is_some());
            assert_eq!(calls, Some(1_020_000 / visited + 1), "{visited} keys a call");
        }
    }

    #[test]
    fn empty_calls_in_a_row_end_the_pass_of_a_server_that_tells_its_size() {
        let mut runaway = Runaway::default();
        let given_up = |runaway: &mut Runaway, from: u64| {
            (from..).find_map(|cursor| runaway.record(call(cursor, 0), Some(1_000)).map(|kind| (cursor - from, kind)))
        };
        assert!((1..=12_000).all(|cursor| runaway.record(call(cursor, 0), Some(1_000)).is_none()));
        assert_eq!(runaway.record(call(20_000, 1), Some(1_000)), None, "a key");
        assert!((30_001..=42_000).all(|cursor| runaway.record(call(cursor, 0), Some(1_000)).is_none()));
        runaway.start_chunk();
        let empty = RunawayKind::Empty { calls: 12_001 };
        assert_eq!(given_up(&mut runaway, 50_000), Some((12_000, empty)), "of another chunk");
    }

    #[test]
    fn a_server_that_does_not_tell_its_size_is_given_up_after_twice_as_many_keys_as_it_can_hold() {
        // Whether the replies are full or nearly empty: what was asked for counts.
        for (count, visited) in [(100_000, 100_000), (100_000, 1), (10, 1_000_000)] {
            let mut runaway = Runaway::default();
            let mut record = |cursor| runaway.record(Call { count, ..call(cursor, visited) }, None);
            let calls = (1u64..).find(|cursor| record(*cursor).is_some());
            assert_eq!(calls, Some((1 << 33) / visited.max(u64::from(count)) + 1), "{visited} keys of {count}");
        }
    }

    #[test]
    fn a_server_that_does_not_tell_its_size_is_given_up_after_a_million_empty_calls_in_a_row() {
        let mut runaway = Runaway::default();
        assert!((1..=1_000_000).all(|cursor| runaway.record(call(cursor, 0), None).is_none()));
        assert_eq!(runaway.record(call(1_000_001, 1), None), None, "a key");
        assert!((2..=1_000_001).all(|cursor| runaway.record(call(1_000_000 + cursor, 0), None).is_none()));
        let given_up = RunawayKind::Empty { calls: 1_000_001 };
        assert_eq!(runaway.record(call(3_000_000, 0), None), Some(given_up));
    }

    #[test]
    fn a_server_that_claims_to_hold_more_keys_with_every_call_is_given_up() {
        let mut runaway = Runaway::default();
        let record = |cursor: u64| runaway.record(call(cursor, 100_000_000), Some(cursor << 32));
        assert_eq!((1u64..).map(record).position(|given_up| given_up.is_some()), Some(859));
    }

    #[test]
    fn a_database_that_the_scan_or_a_flush_empties_is_scanned_to_its_end() {
        let keys = 2_000_000u64;
        for left_after in [|keys: u64, visited: u64| keys - visited * 99 / 100, |_, _| 0] {
            let mut runaway = Runaway::default();
            assert_eq!(runaway.record(call(1, 1_000), Some(keys)), None);
            let ended = (2..=keys / 1_000)
                .find(|number| runaway.record(call(*number, 1_000), Some(left_after(keys, number * 1_000))).is_some());
            assert_eq!(ended, None, "given up at this call");
        }
    }

    proptest! {
        #[test]
        fn a_pass_that_visits_each_key_once_is_never_endless(
            keys in 1u64..50_000_000, reclaimed in 0.0f64..=1.0, is_told in any::<bool>(),
        ) {
            let (mut runaway, slice) = (Runaway::default(), keys / 1_000 + 1);
            let size = |call: u64| is_told.then(|| keys - ((call * slice).min(keys) as f64 * reclaimed) as u64);
            prop_assert!((1..=1_000).all(|number| runaway.record(call(number, slice), size(number - 1)).is_none()));
        }

        #[test]
        fn a_loop_of_any_length_is_found_soon(before in 0u64..2_000, length in 1u64..2_000) {
            let mut runaway = Runaway::default();
            let cursor = |call: u64| 1 + if call < before { call } else { before + (call - before) % length };
            let calls = (0..20_000).find(|number| runaway.record(call(cursor(*number), 1), Some(u64::MAX)).is_some());
            prop_assert!(calls.is_some_and(|calls| calls >= length && calls <= 4 * (before + length) + 4), "{calls:?}");
        }

        #[test]
        fn cursors_that_are_all_different_are_no_loop(step in 1u64..1_000_000) {
            let mut runaway = Runaway::default();
            prop_assert!((1..5_000).all(|number| runaway.record(call(number * step, 10), Some(1_000_000)).is_none()));
        }
    }
}
