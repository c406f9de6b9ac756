//! A server's keyspace as SCAN sees it: hash tables that grow, shrink and rehash step by step (dict.c, kvstore.c).

use std::collections::{BTreeMap, BTreeSet};

use super::{SLOT_BITS, SLOT_MASK, Tables, in_slot};
use crate::topology::SLOTS;

/// Buckets that a SCAN call visits at most, by its COUNT.
const BUCKETS_A_KEY: u32 = 10;

/// One hash table, or two while it is rehashed.
#[derive(Debug, Default)]
pub struct Table {
    /// Keys by bucket, in the first and the second table; a key is its hash.
    buckets: [BTreeMap<u64, BTreeSet<u64>>; 2],
    /// log2 of the number of buckets.
    bits: [u32; 2],
    /// The next bucket of the first table to be moved to the second, while there is one.
    rehash: Option<u64>,
}

impl Table {
    fn mask(&self, table: usize) -> u64 {
        (1 << self.bits[table]) - 1
    }

    pub fn insert(&mut self, hash: u64) {
        let table = usize::from(self.rehash.is_some());
        self.buckets[table].entry(hash & self.mask(table)).or_default().insert(hash);
    }

    pub fn remove(&mut self, hash: u64) {
        for table in 0..2 {
            let bucket = hash & self.mask(table);
            if let Some(keys) = self.buckets[table].get_mut(&bucket) {
                keys.remove(&hash);
            }
        }
    }

    /// Begins to resize the table, unless it is being resized.
    pub fn resize(&mut self, bits: u32) {
        if self.rehash.is_none() && bits != self.bits[0] {
            (self.bits[1], self.rehash) = (bits, Some(0));
        }
    }

    /// Moves some buckets to the second table.
    pub fn rehash(&mut self, buckets: u64) {
        let Some(next) = self.rehash else { return };
        let upto = (next + buckets).min(1 << self.bits[0]);
        for bucket in next..upto {
            for hash in self.buckets[0].remove(&bucket).unwrap_or_default() {
                let to = hash & self.mask(1);
                self.buckets[1].entry(to).or_default().insert(hash);
            }
        }
        self.rehash = Some(upto);
        if upto == 1 << self.bits[0] {
            self.buckets.swap(0, 1);
            self.bits.swap(0, 1);
            (self.buckets[1], self.bits[1], self.rehash) = (BTreeMap::new(), 0, None);
        }
    }

    /// Visits the bucket at a cursor, and returns the cursor after it (dictScan).
    fn scan(&self, mut cursor: u64, found: &mut Vec<u64>) -> u64 {
        let next = |cursor: u64, mask: u64| ((cursor | !mask).reverse_bits().wrapping_add(1)).reverse_bits();
        let visit = |table: usize, cursor: u64, found: &mut Vec<u64>| {
            found.extend(self.buckets[table].get(&(cursor & self.mask(table))).into_iter().flatten());
        };
        if self.rehash.is_none() {
            visit(0, cursor, found);
            return next(cursor, self.mask(0));
        }
        let (small, large) = if self.bits[0] <= self.bits[1] { (0, 1) } else { (1, 0) };
        visit(small, cursor, found);
        loop {
            visit(large, cursor, found);
            cursor = next(cursor, self.mask(large));
            if cursor & (self.mask(small) ^ self.mask(large)) == 0 {
                return cursor;
            }
        }
    }
}

/// The keys of a database.
#[derive(Debug)]
pub struct Keyspace {
    tables: Tables,
    slots: BTreeMap<u16, Table>,
}

impl Keyspace {
    pub fn new(tables: Tables) -> Self {
        Self { tables, slots: BTreeMap::new() }
    }

    pub fn table(&mut self, slot: u16) -> &mut Table {
        self.slots.entry(slot).or_default()
    }

    pub fn tables(&mut self) -> impl Iterator<Item = &mut Table> {
        self.slots.values_mut()
    }

    /// Runs one SCAN call: returns its cursor, and the keys that it visited with their slots.
    pub fn scan(&self, mut cursor: u64, count: u32) -> (u64, Vec<(u16, u64)>) {
        let mut found = Vec::new();
        for _ in 0..=u64::from(count) * u64::from(BUCKETS_A_KEY) {
            cursor = self.step(cursor, &mut found);
            if cursor == 0 || found.len() >= count as usize {
                break;
            }
        }
        (cursor, found)
    }

    /// Visits one bucket (kvstoreScan).
    fn step(&self, cursor: u64, found: &mut Vec<(u16, u64)>) -> u64 {
        let (slot, position) = match self.tables {
            Tables::One => (0, cursor),
            Tables::PerSlot => ((cursor & SLOT_MASK) as u16, cursor >> SLOT_BITS),
        };
        let mut keys = Vec::new();
        let next = self.slots.get(&slot).map_or(0, |table| table.scan(position, &mut keys));
        found.extend(keys.into_iter().map(|hash| (slot, hash)));
        let has_keys = |table: &Table| table.buckets.iter().flat_map(BTreeMap::values).any(|keys| !keys.is_empty());
        match self.tables {
            Tables::One => next,
            Tables::PerSlot if next != 0 => in_slot(next, slot),
            Tables::PerSlot => {
                let after = self.slots.range((slot + 1)..SLOTS).find(|(_, table)| has_keys(table));
                after.map_or(0, |(slot, _)| u64::from(*slot))
            }
        }
    }
}
