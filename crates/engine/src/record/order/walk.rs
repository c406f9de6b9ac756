//! A scan on its way through the chunks of one database: which cursor comes next, and how much of it is done.

use serde::{Deserialize, Serialize};

use super::{Chunk, MIN_COUNT, Order, Tables};
use crate::{
    record::cursor::{Scale, within},
    topology::SlotSet,
};

/// Largest factor by which COUNT grows in tables with few keys for their size.
const MAX_BOOST: u32 = 1 << 13;

/// Where SCAN goes on within a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Index of the chunk in its order.
    pub chunk: usize,
    /// Cursor of the next call.
    pub cursor: u64,
}

/// What a SCAN call did, as far as the walk needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// COUNT of the call.
    pub count: u32,
    /// The cursor that it returned.
    pub cursor: u64,
    /// Keys that it returned.
    pub returned: u64,
    /// Keys that it visited: those that it returned or reclaimed.
    pub visited: u64,
}

/// What a call means for the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advance {
    /// The chunk goes on here.
    Within(Position),
    /// The chunk is complete.
    Complete,
    /// The cursor did not advance: it is no position in a table of this kind, so that chunks mean nothing. In a scan of one
    /// chunk that does not matter.
    Opaque,
}

/// A scan on its way through the chunks of one database. Several connections may each be within a chunk at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    pub(super) tables: Tables,
    scale: Scale,
    chunks: Vec<Chunk>,
    only: Option<SlotSet>,
    /// Chunks that were begun: the first ones in order.
    begun: usize,
    /// Chunks that an interrupted scan left, and that no connection has taken yet.
    left: Vec<Position>,
    /// Chunks that connections are within.
    open: Vec<Position>,
    /// Factor for COUNT where calls return far fewer keys than asked for.
    boost: u32,
}

impl Walk {
    /// Returns a walk before its first chunk. `scale`: how the keys are spread. `only`: the slots to scan, on servers with a table
    /// for each slot; `None`: all.
    pub fn new(order: &Order, scale: Scale, only: Option<SlotSet>) -> Self {
        let chunks = order.chunks(only.as_ref());
        let tables = if matches!(scale, Scale::Table) { Tables::One } else { Tables::PerSlot };
        Self { tables, scale, chunks, only, begun: 0, left: Vec::new(), open: Vec::new(), boost: 1 }
    }

    /// Returns the walk after `begun` chunks were begun, of which those of `left` are not complete; `None`: the order has no such
    /// chunks.
    pub fn resume(mut self, begun: usize, left: &[Position]) -> Option<Self> {
        (self.begun, self.left) = (begun, left.to_vec());
        let is_possible = begun <= self.chunks.len() && left.iter().all(|position| position.chunk < begun);
        (is_possible && !self.is_done()).then_some(self)
    }

    /// Returns the start of the next chunk for one connection; `None`: no chunk is left to begin.
    pub fn take(&mut self) -> Option<Position> {
        let position = match self.left.pop() {
            Some(position) => position,
            None => {
                while self.begun < self.chunks.len() && self.is_empty(self.begun) {
                    self.begun += 1;
                }
                let chunk = self.chunks.get(self.begun)?;
                self.begun += 1;
                Position { chunk: self.begun - 1, cursor: chunk.start }
            }
        };
        self.open.push(position);
        Some(position)
    }

    /// Whether no slot of a chunk held a key when the keys were counted. A call would only repeat keys of later slots.
    fn is_empty(&self, chunk: usize) -> bool {
        let (start, end) = self.bounds(chunk);
        start == end && self.scale.keys().is_some()
    }

    /// Returns how many chunks were begun, and the positions in those that are not complete.
    pub fn positions(&self) -> (usize, Vec<Position>) {
        (self.begun, self.left.iter().chain(&self.open).copied().collect())
    }

    /// Whether the database is scanned in one go.
    pub fn is_forward(&self) -> bool {
        self.chunks.len() == 1
    }

    /// Returns how many chunks cursors can take.
    pub fn chunks_left(&self) -> usize {
        self.left.len() + self.chunks.len() - self.begun
    }

    /// Whether all chunks are complete.
    pub fn is_done(&self) -> bool {
        self.begun == self.chunks.len() && self.left.is_empty() && self.open.is_empty()
    }

    /// Whether a position is the start of a chunk that no SCAN call has returned as a cursor.
    pub fn is_start(&self, position: Position) -> bool {
        let is_start = self.chunks.get(position.chunk).is_some_and(|chunk| chunk.start == position.cursor);
        is_start && self.chunks.len() > 1
    }

    /// Returns how the keys are spread.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Records a call that was sent from a position.
    pub fn advance(&mut self, from: Position, call: Call) -> Advance {
        self.record_yield(call);
        let advances = call.cursor == 0 || self.tables.rank(call.cursor) > self.tables.rank(from.cursor);
        if !advances && self.chunks.len() > 1 {
            return Advance::Opaque;
        }
        let cursor = self.only.as_ref().map_or(call.cursor, |only| within(call.cursor, only));
        let to = Position { cursor, ..from };
        let is_complete = self.is_behind(to);
        match self.open.iter().position(|open| *open == from) {
            Some(index) if is_complete => drop(self.open.swap_remove(index)),
            Some(index) => self.open[index] = to,
            None => {}
        }
        if is_complete { Advance::Complete } else { Advance::Within(to) }
    }

    /// Whether a cursor lies behind the end of its chunk. 0 ends the chunk, not the scan.
    fn is_behind(&self, position: Position) -> bool {
        let rank = |cursor: u64| self.tables.rank(cursor);
        let end = self.chunks.get(position.chunk).and_then(|chunk| chunk.end);
        position.cursor == 0 || end.is_some_and(|end| rank(position.cursor) >= rank(end))
    }

    /// Returns the share of the keys that is done, 0–1.
    pub fn fraction(&self) -> f64 {
        // Chunks are begun from the last to the first: those that were not begun lie before the last one that was.
        let begun = self.begun.checked_sub(1).map_or(0.0, |last| 1.0 - self.bounds(last).0);
        let incomplete = self.left.iter().chain(&self.open).map(|position| self.left_of(*position)).sum::<f64>();
        if self.is_done() { 1.0 } else { (begun - incomplete).clamp(0.0, 1.0) }
    }

    /// Returns the largest COUNT for a call: half a chunk, and at the end of a chunk what is expected to be left of it. `keys`:
    /// those that the database holds.
    pub fn max_count(&self, from: Position, keys: u64) -> u32 {
        if self.chunks.len() == 1 {
            return u32::MAX;
        }
        let keys = self.scale.keys().map_or(keys, |counted| counted.min(keys));
        let expected = |share: f64| (keys as f64 * share).ceil() as u64;
        let (start, end) = self.bounds(from.chunk);
        let half = Some(expected(end - start) / 2).filter(|half| *half >= MIN_COUNT).unwrap_or(u64::MAX);
        let count = expected(self.left_of(from)).min(half).max(MIN_COUNT).saturating_mul(u64::from(self.boost));
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// A call visits ten times as many buckets at most as it is asked for keys, so that a large table with few keys takes a larger
    /// COUNT.
    fn record_yield(&mut self, call: Call) {
        let is_sparse = call.cursor != 0 && call.visited < u64::from(call.count) / 4;
        self.boost = match is_sparse {
            true => (self.boost * 2).min(MAX_BOOST),
            false if call.visited >= u64::from(call.count) => 1.max(self.boost / 2),
            false => self.boost,
        };
    }

    /// Returns how many of the keys that a call returned probably lie behind the end of its chunk, where they have been returned
    /// before.
    pub fn repeated(&self, from: Position, call: Call) -> f64 {
        let Some(chunk) = self.chunks.get(from.chunk) else { return 0.0 };
        let Some(end) = chunk.end.filter(|_| self.is_behind(Position { cursor: call.cursor, ..from })) else {
            return 0.0;
        };
        let (start, end) = (self.scale.fraction(from.cursor), self.scale.fraction(end));
        let stop = if call.cursor == 0 { 1.0 } else { self.scale.fraction(call.cursor) };
        if stop <= start.max(end) || call.visited == 0 {
            return 0.0;
        }
        let behind = ((stop - end.max(start)) / (stop - start)).clamp(0.0, 1.0);
        // A call that has enough keys stops at one: that one lies behind the end, and the others anywhere.
        let last = if call.cursor != 0 && call.visited >= u64::from(call.count) { 1.0 } else { 0.0 };
        let visited = call.visited as f64;
        call.returned as f64 / visited * (last + (visited - last) * behind)
    }

    /// Returns the share of the keys that is left of a chunk, 0–1.
    fn left_of(&self, position: Position) -> f64 {
        let (start, end) = self.bounds(position.chunk);
        end - self.scale.fraction(position.cursor).clamp(start, end)
    }

    /// Returns the shares of the keys before the start and before the end of a chunk.
    fn bounds(&self, chunk: usize) -> (f64, f64) {
        let Chunk { start, end } = self.chunks[chunk];
        let start = self.scale.fraction(start);
        // A chunk of slots without keys has no extent.
        (start, end.map_or(1.0, |end| self.scale.fraction(end)).max(start))
    }
}
