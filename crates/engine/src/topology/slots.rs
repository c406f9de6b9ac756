//! Sets of cluster slots.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;
const WORDS: usize = SLOTS as usize / 64;

/// Set of slots of a cluster. Written as ranges, for example `0-5460,10923`.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; WORDS]>);

impl Default for SlotSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl SlotSet {
    /// Adds the slots from `first` to `last`, both included; numbers beyond the last slot are ignored.
    pub fn add_range(&mut self, first: u16, last: u16) {
        for slot in first..=last.min(SLOTS - 1) {
            self.0[usize::from(slot) / 64] |= 1 << (slot % 64);
        }
    }

    /// Whether a slot is in the set.
    pub fn contains(&self, slot: u16) -> bool {
        slot < SLOTS && self.0[usize::from(slot) / 64] & (1 << (slot % 64)) != 0
    }

    /// Returns the first slot of the set that is not before `slot`.
    pub fn next_from(&self, slot: u16) -> Option<u16> {
        (slot..SLOTS).find(|slot| self.contains(*slot))
    }

    /// Returns the number of slots in the set.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Returns the slots that are in both sets.
    pub fn and(&self, other: &Self) -> Self {
        self.combine(other, |one, two| one & two)
    }

    /// Returns the slots that are in this set and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        self.combine(other, |one, two| one & !two)
    }

    /// Returns the slots that are in either set.
    pub fn or(&self, other: &Self) -> Self {
        self.combine(other, |one, two| one | two)
    }

    fn combine(&self, other: &Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        let mut set = Self::default();
        for (index, word) in set.0.iter_mut().enumerate() {
            *word = operation(self.0[index], other.0[index]);
        }
        set
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut from = 0;
        while let Some(first) = self.next_from(from) {
            let after = (first..SLOTS).find(|slot| !self.contains(*slot)).unwrap_or(SLOTS);
            let comma = if from == 0 { "" } else { "," };
            match after - first {
                1 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{}", after - 1)?,
            }
            from = after;
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({self})")
    }
}

impl FromStr for SlotSet {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = Self::default();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            set.add_range(first.parse()?, last.parse()?);
        }
        Ok(set)
    }
}

impl Serialize for SlotSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SlotSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> SlotSet {
        text.parse().expect("ranges")
    }

    #[test]
    fn slots_are_intersected_subtracted_and_united() {
        let (one, two) = (set("0-10,100"), set("5-20"));
        assert_eq!(one.and(&two).to_string(), "5-10");
        assert_eq!(one.without(&two).to_string(), "0-4,100");
        assert_eq!(one.or(&two).to_string(), "0-20,100");
        assert_eq!((one.len(), one.next_from(11), two.next_from(21)), (12, Some(100), None));
    }

    proptest! {
        #[test]
        fn a_set_is_parsed_as_it_is_displayed(ranges in prop::collection::vec((0u16..SLOTS, 0u16..40), 0..20)) {
            let mut slots = SlotSet::default();
            for (first, length) in ranges {
                slots.add_range(first, first + length);
            }
            prop_assert_eq!(set(&slots.to_string()), slots);
        }
    }
}
