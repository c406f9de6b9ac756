//! SCAN cursors as fractions of the keyspace. Pure arithmetic.

use crate::topology::{SLOTS, SlotSet};

/// Bits of a cursor that name the slot on servers with a table for each slot.
pub(super) const SLOT_BITS: u32 = 14;
pub(super) const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Returns the part of a table that a SCAN cursor has passed, 0–1.
///
/// SCAN walks the table in reverse-binary order: it counts in the cursor's highest bit first, so that the cursor read
/// backwards grows steadily from 0 to the end, even while the table is resized.
pub fn fraction(cursor: u64) -> f64 {
    cursor.reverse_bits() as f64 / 2f64.powi(64)
}

/// Returns the cursor of a position in the table of a slot.
pub(crate) fn in_slot(position: u64, slot: u16) -> u64 {
    position << SLOT_BITS | u64::from(slot)
}

/// Moves the cursor of a node with per-slot tables on to the next slot of `restricted_to`; 0: no slot is left.
pub(crate) fn within(cursor: u64, restricted_to: &SlotSet) -> u64 {
    let slot = (cursor & SLOT_MASK) as u16;
    match restricted_to.next_from(slot) {
        _ if cursor == 0 => 0,
        Some(next) if next == slot => cursor,
        next => next.map_or(0, u64::from),
    }
}

/// How to read the cursors of a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Scale {
    /// One table: the cursor is a position in it.
    #[default]
    Table,
    /// A table for each slot (cluster mode since Redis 7.4 and Valkey 8): the low 14 bits of the cursor are the slot, the
    /// rest is a position in its table.
    Slots {
        /// The keys before each slot, and all of them at the end.
        before: Vec<u64>,
        /// Whether the keys were counted. Otherwise every slot weighs the same.
        counted: bool,
    },
}

impl Scale {
    /// Returns a scale for slots that hold this many keys each.
    pub fn of_slots(keys: impl IntoIterator<Item = u64>) -> Self {
        let (mut before, mut sum) = (vec![0], 0);
        for keys in keys {
            sum += keys;
            before.push(sum);
        }
        Self::Slots { before, counted: true }
    }

    /// Returns a scale for slots whose keys cannot be counted.
    pub fn of_even_slots(is_wanted: impl Fn(u16) -> bool) -> Self {
        match Self::of_slots((0..SLOTS).map(|slot| u64::from(is_wanted(slot)))) {
            Self::Slots { before, .. } => Self::Slots { before, counted: false },
            Self::Table => Self::Table,
        }
    }

    /// Returns the keys of all slots as of their count; `None`: they were not counted.
    pub(crate) fn keys(&self) -> Option<u64> {
        match self {
            Self::Slots { before, counted: true } => before.last().copied(),
            _ => None,
        }
    }

    /// Returns the slots that hold more than this share of the keys, with their shares, 0–1.
    pub(crate) fn slots_above(&self, share: f64) -> Vec<(u16, f64)> {
        let Self::Slots { before, .. } = self else { return Vec::new() };
        let all = before.last().copied().unwrap_or(0).max(1) as f64;
        let shares = before.windows(2).map(|slot| (slot[1] - slot[0]) as f64 / all);
        (0..).zip(shares).filter(|(_, held)| *held > share).collect()
    }

    /// Returns the part of the keys that a cursor has passed, 0–1.
    pub fn fraction(&self, cursor: u64) -> f64 {
        let Self::Slots { before: sums, .. } = self else { return fraction(cursor) };
        let slot = (cursor & SLOT_MASK) as usize;
        match (sums.get(slot), sums.get(slot + 1), sums.last()) {
            (Some(before), Some(after), Some(all)) if *all > 0 => {
                (*before as f64 + (after - before) as f64 * fraction(cursor >> SLOT_BITS)) / *all as f64
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the servers' own next cursor for a table of `bits` bits (dict.c, dictScan).
    fn next_cursor(cursor: u64, bits: u32) -> u64 {
        let mask = (1u64 << bits) - 1;
        ((cursor | !mask).reverse_bits().wrapping_add(1)).reverse_bits()
    }

    #[test]
    fn the_fraction_grows_evenly_from_zero_to_the_end() {
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
        fn the_fraction_never_decreases_while_the_table_is_resized(sizes in prop::collection::vec(1u32..12, 1..400)) {
            let (mut cursor, mut last) = (0, 0.0);
            for bits in sizes {
                // Servers visit all buckets of a larger table that stand for one of the smaller: a step at the
                // smaller size never returns a cursor that lies behind.
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
    fn in_a_cluster_the_keys_of_a_slot_are_its_weight() {
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
    fn a_cursor_moves_on_to_the_next_slot_of_the_restriction() {
        let restricted_to: SlotSet = "3-4,100".parse().expect("slots");
        let moved = |slot: u64, position: u64| within(position << SLOT_BITS | slot, &restricted_to);
        assert_eq!((moved(3, 7), moved(5, 7), moved(100, 1)), (7 << SLOT_BITS | 3, 100, 1 << SLOT_BITS | 100));
        assert_eq!((moved(101, 0), within(0, &restricted_to)), (0, 0));
    }
}
