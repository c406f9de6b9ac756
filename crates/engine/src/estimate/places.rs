//! Where the slices of a sample begin: random places among all keys, each away from those before it.

use crate::{
    failure::ShardError,
    link::{Info, Keyspace, Link},
    record::{Scale, fraction, in_slot},
    server::{has_per_slot_tables, slot_scale},
    stop::Stop,
    target::Address,
    topology::SLOTS,
};

/// Random cursors that are tried for one that is away from all slices before it.
const MAX_DRAWS: usize = 50;
/// Keys of a bucket: Valkey since 8.1 keeps up to seven keys in each.
const KEYS_PER_BUCKET: u64 = 8;

/// Where slices may begin.
pub(super) enum Places {
    /// One table: any position of its smallest possible size.
    Table { bits: u32 },
    /// A table for each slot, drawn by its keys.
    Slots { scale: Scale, keys_per_bucket: u64 },
}

impl Places {
    /// Returns the places of the selected database; `None`: the server refuses to count the keys of its slots.
    pub fn of(
        link: &mut Link,
        address: &Address,
        info: &Info,
        line: &Keyspace,
        stop: &Stop,
    ) -> Result<Option<Self>, ShardError> {
        let keys_per_bucket = if info.is_since((8, 1), None) { KEYS_PER_BUCKET } else { 1 };
        if !has_per_slot_tables(info) {
            return Ok(Some(Self::Table { bits: bits(line.keys, keys_per_bucket) }));
        }
        Ok(counted_slots(link, address, stop)?.map(|scale| Self::Slots { scale, keys_per_bucket }))
    }

    /// Returns a random cursor.
    fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        match self {
            Self::Table { bits } => random.u64(0..1 << bits),
            Self::Slots { scale, keys_per_bucket } => {
                let (slot, keys) = draw_slot(scale, random);
                in_slot(random.u64(0..1 << bits(keys, *keys_per_bucket)), slot)
            }
        }
    }

    /// Returns the place of a cursor among all keys, 0–1.
    pub fn at(&self, cursor: u64) -> f64 {
        match self {
            Self::Table { .. } => fraction(cursor),
            Self::Slots { scale, .. } => scale.fraction(cursor),
        }
    }

    /// Returns the part of the table that a slice has covered. Slots are drawn by their keys, which weighs them already.
    pub fn covered(&self, start: u64, end: u64) -> f64 {
        match self {
            Self::Table { .. } => {
                if end == 0 {
                    1.0 - fraction(start)
                } else {
                    fraction(end) - fraction(start)
                }
            }
            Self::Slots { .. } => 1.0,
        }
    }
}

/// The right to count the keys of slots.
pub(super) const SLOTS_RIGHT: &str = "grant +cluster|countkeysinslot";

/// Returns the keys of each slot; `None`: the server refuses to count them. Slots that all weigh the same would be wrong by points
/// where one is hot.
pub(super) fn counted_slots(link: &mut Link, address: &Address, stop: &Stop) -> Result<Option<Scale>, ShardError> {
    let scale = slot_scale(link, None, stop).map_err(|error| ShardError::at(address, error))?;
    Ok(scale.keys().is_some().then_some(scale))
}

/// Returns log2 of the smallest table that holds these keys.
fn bits(keys: u64, keys_per_bucket: u64) -> u32 {
    (keys / keys_per_bucket).max(1).ilog2()
}

/// Returns a slot, drawn with a probability in proportion to its keys, and its keys.
pub(super) fn draw_slot(scale: &Scale, random: &mut fastrand::Rng) -> (u16, u64) {
    let Scale::Slots { before: sums, .. } = scale else { return (0, 0) };
    let all = sums.last().copied().unwrap_or(0);
    if all == 0 {
        return (random.u16(0..SLOTS), 0);
    }
    let number = random.u64(0..all);
    // Sums hold the keys before each slot: the last sum that is not above the number belongs to its slot.
    let slot = sums.partition_point(|before| *before <= number).saturating_sub(1);
    (u16::try_from(slot).unwrap_or(SLOTS - 1), sums[slot + 1] - sums[slot])
}

/// The places that slices have visited. Their stale keys are gone, so that a second visit would find too few.
#[derive(Default)]
pub(super) struct Visited {
    /// Beginning and end of each slice, 0–1.
    spans: Vec<(f64, f64)>,
    longest: f64,
}

impl Visited {
    pub fn add(&mut self, start: f64, end: f64) {
        // The last slice of the keyspace ends with cursor 0.
        let end = if end <= start { 1.0 } else { end };
        self.longest = self.longest.max(end - start);
        self.spans.push((start, end));
    }

    /// Whether a slice that begins here is expected to reach what was visited.
    fn is_near(&self, start: f64) -> bool {
        self.spans.iter().any(|(from, to)| (from - self.longest..*to).contains(&start))
    }

    /// Returns a random cursor at which nothing was visited yet.
    pub fn draw(&self, places: &Places, random: &mut fastrand::Rng) -> u64 {
        let mut drawn = std::iter::repeat_with(|| places.draw(random)).take(MAX_DRAWS);
        // All slices visit a twentieth of the keys, but may be crowded in one slot.
        drawn.find(|cursor| !self.is_near(places.at(*cursor))).unwrap_or_else(|| places.draw(random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_drawn_in_proportion_to_their_keys() {
        let scale = Scale::of_slots((0..SLOTS).map(|slot| match slot {
            3 => 3_000,
            16_383 => 1_000,
            _ => 0,
        }));
        let (mut random, mut hot) = (fastrand::Rng::with_seed(7), 0);
        for _ in 0..1_000 {
            match draw_slot(&scale, &mut random) {
                (3, 3_000) => hot += 1,
                (16_383, 1_000) => {}
                other => panic!("{other:?} has no keys"),
            }
        }
        assert!((700..800).contains(&hot), "{hot}");
        let empty = Scale::of_slots((0..SLOTS).map(|_| 0));
        assert_eq!(draw_slot(&empty, &mut random).1, 0);
    }

    #[test]
    fn a_slice_covers_the_distance_between_its_cursors() {
        let table = Places::Table { bits: 10 };
        let start = 0b01u64;
        assert_eq!(table.covered(start, 0), 0.5, "a cursor of 0 is the end");
        assert_eq!(table.covered(0, start), 0.5);
        assert_eq!(table.covered(start, 0b11), 0.25);
        let mut random = fastrand::Rng::with_seed(7);
        assert!((0..1_000).all(|_| table.draw(&mut random) < 1_024));
    }

    #[test]
    fn no_slice_begins_where_another_one_has_been() {
        let places = Places::Table { bits: 12 };
        let (mut random, mut visited) = (fastrand::Rng::with_seed(7), Visited::default());
        for _ in 0..100 {
            let start = places.at(visited.draw(&places, &mut random));
            assert!(!visited.spans.iter().any(|(from, to)| start < *to && *from < start + 0.0005), "{start}");
            visited.add(start, start + 0.0005);
        }
        visited.add(0.9, 0.0);
        assert_eq!(
            (visited.spans.last(), visited.is_near(0.99), visited.is_near(0.5)),
            (Some(&(0.9, 1.0)), true, true)
        );
        let mut all = Visited::default();
        all.add(0.0, 1.0);
        assert!(all.draw(&places, &mut random) < 1 << 12, "a cursor is drawn even so");
    }
}
