//! The cursors that walk through one database at once, each on its own connection.
//!
//! One connection waits for the network most of the time where a round trip is much longer than a slice. Slices of several
//! connections start at the times that the throttle says, so that the CPU limit holds for all of them together.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    runaway::{Runaway, RunawayKind},
    sequence::Sequence,
    session::Session,
};
use crate::{
    link::{Capabilities, LinkError, RoleView, SliceReply},
    pacing::{StartedSlice, Throttle},
    record::{Advance, Call, Position, Walk},
};

/// A slice that was run, in the order in which the server ran it.
pub(super) struct Progressed {
    pub slice: SliceReply,
    /// Keys of it that were returned before, an estimate.
    pub repeated: f64,
    pub cost: Duration,
}

/// Cursors of one database.
pub(super) struct Cursors {
    pub walk: Walk,
    /// Index of the database in the checkpoint.
    pub index: usize,
    database: u32,
    /// Keys that were visited.
    pub scanned: u64,
    cursors: Vec<Cursor>,
    /// Those with a slice under way; its reply is due first at the front.
    under_way: VecDeque<UnderWay>,
    sequence: Sequence<Progressed>,
    /// Keys of the database, as far as the server reports them.
    keys: Option<u64>,
    /// Whether a slice was received. The first one runs alone: its size is the one that the order begins with.
    has_begun: bool,
    is_opaque: bool,
}

/// One cursor, by its index that of its connection as well.
#[derive(Default)]
struct Cursor {
    /// Where it goes on; `None`: in another chunk, if one is left.
    position: Option<Position>,
    is_under_way: bool,
    runaway: Runaway,
}

/// A slice that is under way.
struct UnderWay {
    cursor: usize,
    sent: Instant,
    started: StartedSlice,
    capabilities: Capabilities,
}

/// Why a slice was not received.
pub(super) enum SliceError {
    /// The reply is an error, or was lost; with the COUNT and the commands of the slice.
    Link(LinkError, u32, Capabilities),
    Demoted,
    Endless(u32, RunawayKind),
}

impl Cursors {
    /// Returns cursors for this many connections. `keys`: those that the database holds, if the server reports that.
    pub fn new(walk: Walk, index: usize, database: u32, connections: usize, keys: Option<u64>) -> Self {
        Self {
            walk,
            index,
            database,
            scanned: 0,
            cursors: (0..connections).map(|_| Cursor::default()).collect(),
            under_way: VecDeque::with_capacity(connections),
            sequence: Sequence::default(),
            keys,
            has_begun: false,
            is_opaque: false,
        }
    }

    /// Starts again with another walk, with one cursor.
    pub fn start_again(&mut self, walk: Walk) {
        *self = Self::new(walk, self.index, self.database, 1, self.keys);
    }

    /// Whether cursors turned out to be no positions in a table.
    pub fn are_opaque(&self) -> bool {
        self.is_opaque
    }

    /// Whether a reply is due.
    pub fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Returns a cursor for the next slice; `None`: all are under way, or nothing is left to begin.
    pub fn next(&mut self) -> Option<usize> {
        if !self.has_begun && self.is_under_way() {
            return None;
        }
        let idle = |cursor: &Cursor| !cursor.is_under_way;
        let within = self.cursors.iter().position(|cursor| idle(cursor) && cursor.position.is_some());
        within.or_else(|| {
            let index = self.cursors.iter().position(idle)?;
            self.cursors[index].position = Some(self.walk.take()?);
            self.cursors[index].runaway.start_chunk();
            Some(index)
        })
    }

    /// Returns COUNT for a cursor, at most `count`.
    pub fn limit(&self, cursor: usize, count: u32) -> u32 {
        let keys = self.keys.unwrap_or(u64::MAX);
        self.cursors[cursor].position.map_or(count, |position| count.min(self.walk.max_count(position, keys)))
    }

    /// Sends the slice of a cursor.
    pub fn send(&mut self, cursor: usize, session: &mut Session, started: StartedSlice) -> Result<(), LinkError> {
        let Some(position) = self.cursors[cursor].position else { return Ok(()) };
        let capabilities = session.slice_capabilities();
        session.connection(cursor).send_slice(position.cursor, started.count(), capabilities)?;
        self.cursors[cursor].is_under_way = true;
        self.under_way.push_back(UnderWay { cursor, sent: Instant::now(), started, capabilities });
        Ok(())
    }

    /// Receives the reply that is due first. Returns the COUNT and the commands of its slice, if that ran.
    pub fn receive(
        &mut self,
        session: &mut Session,
        throttle: &mut Throttle<'_>,
    ) -> Result<Option<(u32, Capabilities)>, SliceError> {
        let Some(UnderWay { cursor: index, sent, started, capabilities }) = self.under_way.pop_front() else {
            return Ok(None);
        };
        let count = started.count();
        let reply = session.connection(index).receive_slice(capabilities);
        // A reply of several connections may have waited to be read.
        let round_trip = (self.cursors.len() == 1).then(|| sent.elapsed());
        let cursor = &mut self.cursors[index];
        cursor.is_under_way = false;
        let Some(position) = cursor.position else { return Ok(None) };
        let slice = match reply {
            Ok(slice) => slice,
            Err(LinkError::Server(error)) if self.walk.is_start(position) && error.is_about_cursor() => {
                self.is_opaque = true;
                return Ok(None);
            }
            Err(error) => return Err(SliceError::Link(error, count, capabilities)),
        };
        if matches!(slice.role, RoleView::Replica { .. }) {
            return Err(SliceError::Demoted);
        }
        self.has_begun = true;
        let cost = throttle.record(started, round_trip, &slice);
        let visited = slice.returned + slice.reclaimed;
        self.scanned += visited;
        let call = Call { count, cursor: slice.cursor, returned: slice.returned, visited };
        let repeated = self.walk.repeated(position, call);
        cursor.position = match self.walk.advance(position, call) {
            Advance::Within(position) => Some(position),
            Advance::Complete => None,
            Advance::Opaque => {
                self.is_opaque = true;
                None
            }
        };
        self.keys = slice.sizes.map(|(before, _)| before).or(self.keys);
        let runaway = cursor.runaway.record(call, self.keys);
        self.sequence.add(slice.sizes, Progressed { slice, repeated, cost });
        runaway.map_or(Ok(Some((count, capabilities))), |kind| Err(SliceError::Endless(self.database, kind)))
    }

    /// Returns the next slice in the order in which the server ran them; `None`: it may be among those under way.
    pub fn next_in_order(&mut self) -> Option<Progressed> {
        let window = if self.is_under_way() { self.cursors.len() } else { 1 };
        self.sequence.next(window)
    }
}
