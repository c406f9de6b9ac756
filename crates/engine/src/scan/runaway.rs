//! Cursors that never come to an end, as a broken or hostile server gives them out. Pure.

/// Calls, or keys, that a pass may take beyond twenty times what the server says that it holds.
const ALLOWANCE: u64 = 1_000_000;
/// How many times the keys of a database a pass may visit: a table that is resized all the while repeats some of them.
const REPEATS: u64 = 20;

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
        /// Keys visited, or calls where they visited none.
        visited: u64,
        /// The most keys that the server has reported in this pass.
        keys: u64,
    },
}

impl Runaway {
    /// Starts another chunk: the calls of two chunks overlap, and may return the same cursor.
    pub fn start_chunk(&mut self) {
        (self.landmark, self.since, self.until) = (0, 0, 0);
    }

    /// Records a call that visited `visited` keys, reclaimed ones included, and returned `cursor`. `keys`: those that the
    /// database holds; `None`: the server does not report it. Returns a reason to give up.
    pub fn record(&mut self, cursor: u64, visited: u64, keys: Option<u64>) -> Option<RunawayKind> {
        // A call without keys counts as one: an endless walk through empty buckets is one as well.
        self.visited = self.visited.saturating_add(visited.max(1));
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
        let keys = self.most_keys.max(keys?);
        self.most_keys = keys;
        let most = keys.saturating_mul(REPEATS).saturating_add(ALLOWANCE);
        (self.visited > most).then_some(RunawayKind::Endless { visited: self.visited, keys })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_that_does_not_move_is_found_at_once() {
        let mut runaway = Runaway::default();
        assert_eq!(runaway.record(7, 10, Some(1_000)), None);
        assert_eq!(runaway.record(7, 10, Some(1_000)), Some(RunawayKind::Loop));
    }

    #[test]
    fn far_more_keys_than_there_are_end_the_pass_and_so_do_as_many_empty_calls() {
        for visited in [0, 1_000] {
            let mut runaway = Runaway::default();
            let calls = (1u64..).find(|cursor| runaway.record(*cursor, visited, Some(1_000)).is_some());
            assert_eq!(calls, Some(1_020_000 / visited.max(1) + 1), "{visited} keys a call");
        }
    }

    #[test]
    fn nothing_is_too_much_for_a_server_that_does_not_tell_its_size() {
        let mut runaway = Runaway::default();
        assert!((1..2_000).all(|cursor| runaway.record(cursor, 1_000_000, None).is_none()));
    }

    #[test]
    fn a_database_that_the_scan_or_a_flush_empties_is_scanned_to_its_end() {
        let keys = 2_000_000u64;
        for left_after in [|keys: u64, visited: u64| keys - visited * 99 / 100, |_, _| 0] {
            let mut runaway = Runaway::default();
            assert_eq!(runaway.record(1, 1_000, Some(keys)), None);
            let ended = (2..=keys / 1_000)
                .find(|call| runaway.record(*call, 1_000, Some(left_after(keys, call * 1_000))).is_some());
            assert_eq!(ended, None, "given up at this call");
        }
    }

    proptest! {
        #[test]
        fn a_pass_that_visits_each_key_once_is_never_endless(keys in 1u64..50_000_000, reclaimed in 0.0f64..=1.0) {
            let (mut runaway, slice) = (Runaway::default(), keys / 1_000 + 1);
            let size = |call: u64| keys - ((call * slice).min(keys) as f64 * reclaimed) as u64;
            prop_assert!((1..=1_000).all(|call| runaway.record(call, slice, Some(size(call - 1))).is_none()));
        }

        #[test]
        fn a_loop_of_any_length_is_found_soon(before in 0u64..2_000, length in 1u64..2_000) {
            let mut runaway = Runaway::default();
            let cursor = |call: u64| 1 + if call < before { call } else { before + (call - before) % length };
            let calls = (0..20_000).find(|call| runaway.record(cursor(*call), 1, Some(u64::MAX)).is_some());
            prop_assert!(calls.is_some_and(|calls| calls >= length && calls <= 4 * (before + length) + 4), "{calls:?}");
        }

        #[test]
        fn cursors_that_are_all_different_are_no_loop(step in 1u64..1_000_000) {
            let mut runaway = Runaway::default();
            prop_assert!((1..5_000).all(|call| runaway.record(call * step, 10, Some(1_000_000)).is_none()));
        }
    }
}
