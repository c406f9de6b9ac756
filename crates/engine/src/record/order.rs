//! Order in which a scan visits the keys of one database, and the arithmetic of its chunks. Pure.
//!
//! Since Redis 7.2 the server's own expiry cycle walks the buckets in the order of SCAN. A slow forward scan leaves a clean
//! wake in which the cycle finds nothing and gives up, so that stale keys pile up ahead of the scan. A backward scan has no
//! such wake: it divides the order of SCAN into chunks and takes them from the last to the first, each of them forward.
//!
//! A SCAN call covers one interval of the bit-reversed hash, whatever the size of the table and the state of its rehash. So
//! the guarantee of SCAN holds for any order of chunks, as long as every chunk is walked from its start to its end.

use serde::{Deserialize, Serialize};

mod walk;

pub use self::walk::Position;
pub(crate) use self::walk::{Advance, Call, Walk};
use super::cursor::{SLOT_BITS, SLOT_MASK, Scale, in_slot};
use crate::{
    stale::CycleSetting,
    topology::{SLOTS, SlotSet},
};

/// log2 of the usual number of chunks. With 8 chunks the wake within each of them is still felt, with 256 it is not.
const CHUNK_BITS: u32 = 8;
/// log2 of the largest number of chunks.
const MAX_CHUNK_BITS: u32 = 16;
/// Keys of a chunk, at least, unless a scan is slow: the last call of each chunk repeats about five.
const KEYS_PER_CHUNK: u64 = 256;
/// The same over a long path. A scan of so few keys that this makes a difference takes seconds.
const KEYS_PER_DISTANT_CHUNK: u64 = 4_096;
/// Slots of a block, usually and at most: in smaller blocks a call reaches beyond its block too often.
const BLOCK: u16 = 256;
/// Keys that may expire for each stale one while a scan visits a key, at the usual number of chunks: with more the wake within a
/// chunk is felt.
const WAKE: f64 = 50.0;
/// The smallest COUNT of a call, as of SCAN itself.
const MIN_COUNT: u64 = 10;

/// How a server keeps the keys of a database, which decides how its cursors compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// One table: the cursor is a bit-reversed position in it.
    One,
    /// A table for each slot: the low 14 bits of the cursor are the slot, the others the position in its table.
    PerSlot,
}

impl Tables {
    /// Returns a value that grows with every step of a SCAN: the slot and the position in its table.
    pub fn rank(self, cursor: u64) -> (u64, u64) {
        match self {
            Self::One => (0, cursor.reverse_bits()),
            Self::PerSlot => (cursor & SLOT_MASK, (cursor >> SLOT_BITS).reverse_bits()),
        }
    }
}

/// Order in which the chunks of a database are visited. Part of the checkpoint: the number of a chunk means nothing without it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// From the first bucket to the last in one go.
    #[default]
    Forward,
    /// One table in 2^`bits` chunks, the last one first.
    Backward {
        /// log2 of the number of chunks.
        bits: u32,
    },
    /// A table for each slot: blocks of slots, the highest first.
    Blocks {
        /// Slots of a block, a power of two.
        slots: u16,
        /// Slots with more keys than a block has on average, which are divided into chunks of their own; ascending.
        hot: Vec<HotSlot>,
    },
}

/// A slot that is divided into chunks of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotSlot {
    /// The slot.
    pub slot: u16,
    /// log2 of the number of its chunks.
    pub bits: u32,
}

/// Cursors from `start` to `end`, without `end` itself; `None`: to the end of the scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub start: u64,
    pub end: Option<u64>,
}

/// Speeds that decide how fine the chunks of a scan have to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Speeds {
    /// Keys a second that the scan visits at most; `None`: no limit.
    pub scanned: Option<u64>,
    /// Keys a second that expire meanwhile; `None`: unknown.
    pub expired: Option<f64>,
    /// Settings of the server's own expiry cycle.
    pub cycle: CycleSetting,
    /// Whether every call waits for a long round trip. The last call of a chunk is as long as any other, and so chunks are larger.
    pub is_distant: bool,
}

impl Order {
    /// Returns the backward order for a database that holds `keys` keys, spread as `scale` says.
    pub(crate) fn backward(keys: u64, scale: &Scale, speeds: Speeds) -> Self {
        let keys = scale.keys().map_or(keys, |counted| counted.min(keys));
        let bits = chunk_bits(keys, speeds);
        if matches!(scale, Scale::Table) {
            return Self::Backward { bits };
        }
        if bits == 0 {
            return Self::Forward;
        }
        let slots = (BLOCK >> bits.saturating_sub(CHUNK_BITS)).max(1);
        let average = f64::from(slots) / f64::from(SLOTS);
        let hot = scale.slots_above(average).into_iter().map(|(slot, share)| {
            // As fine as a table of all the keys would be, so that no chunk is walked forward for longer than there.
            let coarser = (1.0 / share).log2() as u32;
            HotSlot { slot, bits: bits.saturating_sub(coarser).max(1) }
        });
        Self::Blocks { slots, hot: hot.collect() }
    }

    /// Smaller databases are scanned as a whole: they take less time than the wake of a scan needs to matter.
    pub(crate) const MIN_KEYS: u64 = 20_000;

    /// Whether a database with so many keys is divided into chunks where the order is a backward one.
    pub(crate) fn is_divided(keys: u64) -> bool {
        keys >= Self::MIN_KEYS
    }

    /// Whether the database is scanned in one go.
    pub(crate) fn is_forward(&self) -> bool {
        matches!(self, Self::Forward | Self::Backward { bits: 0 })
    }

    /// Returns the keys a second below which a scan in chunks leaves a wake within each of them.
    pub(crate) fn slowest(&self, speeds: Speeds) -> f64 {
        let bits = match self {
            Self::Forward => 0,
            Self::Backward { bits } => *bits,
            Self::Blocks { slots, .. } => CHUNK_BITS + (BLOCK / (*slots).clamp(1, BLOCK)).ilog2(),
        };
        slowest(bits, speeds)
    }

    /// Returns the chunks in the order in which they are visited. `only`: the slots to scan, on servers with a table for each
    /// slot; `None`: all.
    fn chunks(&self, only: Option<&SlotSet>) -> Vec<Chunk> {
        match self {
            Self::Forward => {
                let start = only.map_or(Some(0), |only| only.next_from(0));
                start.map(|slot| Chunk { start: u64::from(slot), end: None }).into_iter().collect()
            }
            Self::Backward { bits } => table_chunks(*bits).rev().collect(),
            Self::Blocks { slots, hot } => {
                let (mut chunks, slots) = (Vec::new(), (*slots).clamp(1, BLOCK));
                for first in (0..SLOTS).step_by(usize::from(slots)).rev() {
                    add_block(&mut chunks, first, (first + slots).min(SLOTS), hot, only);
                }
                chunks
            }
        }
    }
}

/// Returns log2 of the number of chunks: more of them where a limited scan would walk too long within each.
fn chunk_bits(keys: u64, speeds: Speeds) -> u32 {
    if !Order::is_divided(keys) {
        return 0;
    }
    let rate = speeds.scanned.map_or(f64::INFINITY, |rate| rate.max(1) as f64);
    let keys_per_chunk = if speeds.is_distant { KEYS_PER_DISTANT_CHUNK } else { KEYS_PER_CHUNK };
    let usual = CHUNK_BITS.min((keys / keys_per_chunk).ilog2());
    let is_enough = |bits: u32| rate >= slowest(bits, speeds);
    let is_possible = |bits: u32| keys >> (bits + 1) >= MIN_COUNT;
    let finer = |bits: u32| bits < MAX_CHUNK_BITS && !is_enough(bits) && is_possible(bits + 1);
    (usual..=MAX_CHUNK_BITS).find(|bits| !finer(*bits)).unwrap_or(MAX_CHUNK_BITS)
}

/// Returns the keys a second below which a scan leaves a wake within each of 2^`bits` chunks: the fewer keys the cycle leaves
/// stale, the sooner it gives up.
fn slowest(bits: u32, speeds: Speeds) -> f64 {
    let expired = speeds.expired.unwrap_or(0.0);
    let stale = speeds.cycle.held_share(expired);
    if stale <= 0.0 {
        return 0.0;
    }
    expired / (WAKE * stale) * 2f64.powi(CHUNK_BITS as i32 - bits as i32)
}

/// Returns the chunks of one table, the first one first.
fn table_chunks(bits: u32) -> impl DoubleEndedIterator<Item = Chunk> {
    let bits = bits.min(MAX_CHUNK_BITS);
    // The shift of a single chunk would be one by 64 bits.
    let cursor = move |chunk: u64| if bits == 0 { 0 } else { (chunk << (64 - bits)).reverse_bits() };
    let chunks = 1u64 << bits;
    (0..chunks).map(move |chunk| {
        // The last chunk has no end but that of the table: the cursor after it would be 2^64.
        let end = (chunk + 1 < chunks).then(|| cursor(chunk + 1));
        Chunk { start: cursor(chunk), end }
    })
}

/// Adds the chunks of the slots from `first` to `upto`, without `upto` itself, the highest slots first.
fn add_block(chunks: &mut Vec<Chunk>, first: u16, upto: u16, hot: &[HotSlot], only: Option<&SlotSet>) {
    let (block, mut upto) = (first..upto, upto);
    for hot in hot.iter().rev().filter(|hot| block.contains(&hot.slot)) {
        add_slots(chunks, hot.slot + 1, upto, only);
        if only.is_none_or(|only| only.contains(hot.slot)) {
            let in_slot = |position: u64| in_slot(position, hot.slot);
            chunks.extend(table_chunks(hot.bits).rev().map(|chunk| Chunk {
                start: in_slot(chunk.start),
                end: chunk.end.map(in_slot).or_else(|| start_of(hot.slot + 1)),
            }));
        }
        upto = hot.slot;
    }
    add_slots(chunks, first, upto, only);
}

/// Adds the slots from `first` to `upto`, without `upto` itself, as one chunk.
fn add_slots(chunks: &mut Vec<Chunk>, first: u16, upto: u16, only: Option<&SlotSet>) {
    let start = only.map_or(Some(first), |only| only.next_from(first));
    if let Some(start) = start.filter(|start| *start < upto) {
        chunks.push(Chunk { start: u64::from(start), end: start_of(upto) });
    }
}

/// Returns the cursor at which a slot begins; `None`: there is no such slot.
fn start_of(slot: u16) -> Option<u64> {
    (slot < SLOTS).then_some(u64::from(slot))
}

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
