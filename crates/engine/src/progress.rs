//! How far a sweep is. Pure arithmetic on cursors.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::topology::SlotSet;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;
const SLOT_BITS: u32 = 14;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// The part of a table that lies behind a SCAN cursor, 0–1.
///
/// SCAN walks the table in reverse-binary order: it counts in the cursor's highest bit first, so that the cursor read
/// backwards grows steadily from 0 to the end, whatever the table does meanwhile.
pub fn fraction(cursor: u64) -> f64 {
    cursor.reverse_bits() as f64 / 2f64.powi(64)
}

/// A cursor of a node that keeps a table for each slot, moved on to the next slot that is asked for; 0: there is none.
pub(crate) fn within(cursor: u64, only: &SlotSet) -> u64 {
    let slot = (cursor & SLOT_MASK) as u16;
    match only.next_from(slot) {
        _ if cursor == 0 => 0,
        Some(next) if next == slot => cursor,
        next => next.map_or(0, u64::from),
    }
}

/// How a node's cursors are to be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Scale {
    /// One table: the cursor is a position in it.
    #[default]
    Table,
    /// A table for each slot (cluster mode since Redis 7.4 and Valkey 8): the low 14 bits of the cursor are the slot, the
    /// rest is a position in its table. Holds the keys before each slot, and all of them at the end.
    Slots(Vec<u64>),
}

impl Scale {
    /// A scale for slots that hold this many keys each.
    pub fn of_slots(keys: impl IntoIterator<Item = u64>) -> Self {
        let mut sums = vec![0];
        let mut sum = 0;
        for keys in keys {
            sum += keys;
            sums.push(sum);
        }
        Self::Slots(sums)
    }

    /// The part of the keys that lies behind a cursor, 0–1.
    pub fn fraction(&self, cursor: u64) -> f64 {
        let Self::Slots(sums) = self else { return fraction(cursor) };
        let slot = (cursor & SLOT_MASK) as usize;
        match (sums.get(slot), sums.get(slot + 1), sums.last()) {
            (Some(before), Some(after), Some(all)) if *all > 0 => {
                (*before as f64 + (after - before) as f64 * fraction(cursor >> SLOT_BITS)) / *all as f64
            }
            _ => 0.0,
        }
    }
}

/// Time that is left when `done` of the work was done in `elapsed`, of which `before` was done earlier.
///
/// `None` while too little has been done to tell.
pub fn eta(elapsed: Duration, before: f64, done: f64) -> Option<Duration> {
    let (gained, left) = (done - before, 1.0 - done);
    if gained < 1e-4 || elapsed < Duration::from_millis(200) {
        return None;
    }
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left.max(0.0) / gained).ok()
}

/// A sweep under way, as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Share of the work that is done, 0–1. Goes back only when a shard starts again.
    pub fraction: f64,
    /// Keys looked at so far.
    pub keys_scanned: u64,
    /// Expired keys released so far.
    pub keys_released: u64,
    /// Whether `keys_released` is exact.
    pub exact: bool,
    /// Keys looked at a second, over the last seconds.
    pub keys_per_second: f64,
    /// Seconds that are probably left.
    pub eta_seconds: Option<f64>,
    /// Seconds since this run of the sweep began.
    pub elapsed_seconds: f64,
    /// Each primary.
    pub shards: Vec<ShardProgress>,
}

/// One primary under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardProgress {
    /// The primary's address.
    pub address: String,
    /// waiting, sweeping, away, done or failed.
    pub state: String,
    /// Share of its keys that is done, 0–1.
    pub fraction: f64,
    /// The database that is swept now.
    pub database: Option<u32>,
    /// Keys looked at so far.
    pub keys_scanned: u64,
    /// Expired keys released so far.
    pub keys_released: u64,
    /// Median time that a slice kept the server, seconds.
    pub slice_p50_seconds: f64,
    /// Keys looked at a second, over the last seconds; 0 while it is not swept. Earlier versions did not tell.
    #[serde(default)]
    pub keys_per_second: f64,
    /// Seconds that are probably left for it, at that rate. Earlier versions did not tell.
    #[serde(default)]
    pub eta_seconds: Option<f64>,
    /// The p90 of a PING between slices, seconds; `None` before the first. Earlier versions did not tell.
    #[serde(default)]
    pub probe_p90_seconds: Option<f64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The servers' own step from one cursor to the next, for a table of `bits` bits (dict.c, dictScan).
    fn next_cursor(cursor: u64, bits: u32) -> u64 {
        let mask = (1u64 << bits) - 1;
        ((cursor | !mask).reverse_bits().wrapping_add(1)).reverse_bits()
    }

    #[test]
    fn the_fraction_walks_evenly_from_nothing_to_the_end() {
        let (mut cursor, mut visited) = (0, 0);
        loop {
            assert!((fraction(cursor) - f64::from(visited) / 256.0).abs() < 1e-12);
            cursor = next_cursor(cursor, 8);
            visited += 1;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(visited, 256);
    }

    proptest! {
        #[test]
        fn it_never_steps_back_while_the_table_grows_and_shrinks(sizes in prop::collection::vec(1u32..12, 1..400)) {
            let (mut cursor, mut last) = (0, 0.0);
            for bits in sizes {
                // Servers walk all buckets of a larger table that stand for one of the smaller: a step at the
                // smaller size never lands behind.
                cursor = next_cursor(cursor, bits);
                if cursor == 0 {
                    break;
                }
                let now = fraction(cursor);
                prop_assert!(now >= last, "{last} then {now}");
                last = now;
            }
        }
    }

    #[test]
    fn in_a_cluster_a_slot_weighs_what_it_holds() {
        let scale = Scale::of_slots((0..SLOTS).map(|slot| match slot {
            100 => 3_000,
            9_000 => 1_000,
            _ => 0,
        }));
        let at = |slot: u64, position: u64| scale.fraction(position << SLOT_BITS | slot);
        assert_eq!((at(0, 0), at(100, 0), at(100, 1), at(5_000, 0)), (0.0, 0.0, 0.375, 0.75));
        assert_eq!((at(9_000, 1), at(16_383, 0)), (0.875, 1.0));
        assert_eq!(Scale::of_slots([]).fraction(5), 0.0);
    }

    #[test]
    fn a_cursor_moves_on_to_the_slots_that_are_asked_for() {
        let only: SlotSet = "3-4,100".parse().expect("slots");
        let moved = |slot: u64, position: u64| within(position << SLOT_BITS | slot, &only);
        assert_eq!((moved(3, 7), moved(5, 7), moved(100, 1)), (7 << SLOT_BITS | 3, 100, 1 << SLOT_BITS | 100));
        assert_eq!((moved(101, 0), within(0, &only)), (0, 0));
    }

    #[test]
    fn the_time_left_follows_from_what_this_run_did() {
        let second = Duration::from_secs(1);
        assert_eq!(eta(10 * second, 0.0, 0.5), Some(10 * second));
        assert_eq!(eta(10 * second, 0.5, 0.75), Some(10 * second));
        assert_eq!(eta(10 * second, 0.0, 1.0), Some(Duration::ZERO));
        assert_eq!(eta(10 * second, 0.3, 0.3), None);
    }
}
