//! One database: chunk after chunk, in the order that suits the server's own expiry cycle, by one cursor or by several at once.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    cursors::{Cursors, Progressed, SliceError},
    incomplete::endless,
    session::Session,
    sweeper::ShardSweeper,
};
use crate::{
    failure::ShardError,
    link::LinkError,
    pacing::{Next, Throttle},
    record::{DatabaseCheckpoint, Order, Scale, Speeds, Walk},
    server::{self, CycleOrder, FASTER, speeds, wake},
    target::Address,
};

/// A slot with more than this share of the keys makes the keyspace uneven, 0–1.
const UNEVEN: f64 = 1.0 / 64.0;

impl ShardSweeper<'_> {
    /// Sweeps one database from its checkpoint. Breaks where the slices since the last clean sample have to be repeated.
    pub(super) fn sweep_database(
        &mut self,
        session: &mut Session,
        throttle: &mut Throttle<'_>,
        index: usize,
        database: &DatabaseCheckpoint,
    ) -> Result<ControlFlow<()>, ShardError> {
        let several = throttle.useful_cursors() > 1 && session.info.is_redis_or_valkey();
        self.state().database = Some(database.database);
        let is_only = database.database == 0 && self.state().checkpoint.databases.len() == 1;
        if !is_only {
            session.select(0..1, database.database)?;
        }
        if database.tally.is_fresh() {
            throttle.removals.begin_pass(database.database);
        }
        let started = Instant::now();
        let walk = self.walk(session, index, database, several)?;
        let wanted = throttle.useful_cursors().min(walk.chunks_left()).max(1);
        let connections = self.open_connections(session, wanted);
        if !is_only {
            session.select(1..connections, database.database)?;
        }
        let mut cursors = Cursors::new(walk, index, database.database, connections, session.keys(database.database));
        let swept = self.run_cursors(session, throttle, &mut cursors);
        if swept.is_err() {
            // What the slices under way have reclaimed counts as well.
            self.finish_slices(session, throttle, &mut cursors);
        }
        if matches!(swept, Ok(ControlFlow::Continue(()))) && cursors.walk.is_forward() {
            self.note_wake(session, database.database, cursors.scanned, started.elapsed());
        }
        swept
    }

    /// Warns where a forward scan has taken so long that the server's own expiry cycle may have stayed in its wake. The pre-flight
    /// checks have warned of a limit that is too low.
    fn note_wake(&self, session: &Session, database: u32, scanned: u64, taken: Duration) {
        let is_foreseen = self.limits().keys_per_second.is_some() && !self.profile.forces_forward(database);
        if is_foreseen || CycleOrder::of(&session.info) == CycleOrder::Linear {
            return;
        }
        if let Some(finding) = wake(scanned, taken, session.mean_ttl(database)) {
            self.warn(format!("order: database {database} of {}: {finding}; {FASTER}", session.address));
        }
    }

    /// Runs slices until the walk is done.
    fn run_cursors(
        &mut self,
        session: &mut Session,
        throttle: &mut Throttle<'_>,
        cursors: &mut Cursors,
    ) -> Result<ControlFlow<()>, ShardError> {
        loop {
            if cursors.are_opaque() {
                while cursors.is_under_way() {
                    self.receive_slice(session, throttle, cursors)?;
                }
                let walk = self.give_up_chunks(&session.address, cursors);
                cursors.start_again(walk);
            }
            let Some(cursor) = cursors.next() else {
                if !cursors.is_under_way() {
                    return Ok(ControlFlow::Continue(()));
                }
                self.receive_slice(session, throttle, cursors)?;
                continue;
            };
            match throttle.next_slice(&mut session.link, !cursors.is_under_way())? {
                Next::RollBack => return Ok(ControlFlow::Break(())),
                Next::Finish => {
                    while cursors.is_under_way() {
                        self.receive_slice(session, throttle, cursors)?;
                    }
                }
                Next::Slice(count) => {
                    let count = self.profile.reply_cap.limit(cursors.limit(cursor, count));
                    let started = throttle.begin_slice(count);
                    let sent = cursors.send(cursor, session, started);
                    sent.map_err(|error| self.slice_error(&session.address, count, error))?;
                }
            }
        }
    }

    /// Receives the reply that is due first, and records its slice and those whose place in the order that settles.
    fn receive_slice(
        &mut self,
        session: &mut Session,
        throttle: &mut Throttle<'_>,
        cursors: &mut Cursors,
    ) -> Result<(), ShardError> {
        let received = match cursors.receive(session, throttle) {
            Ok(Some((count, sent))) => {
                self.record_reply(session, count, sent);
                Ok(())
            }
            Ok(None) => Ok(()),
            // The cursor is where it was, so that its next slice is this one.
            Err(SliceError::Link(LinkError::Server(error), _, sent))
                if sent.transaction && error.is_out_of_memory() =>
            {
                self.run_plain(session);
                Ok(())
            }
            Err(SliceError::Link(error, count, _)) => Err(self.slice_error(&session.address, count, error)),
            Err(SliceError::Demoted) => Err(ShardError::Demoted),
            Err(SliceError::Endless(database, kind)) => Err(endless(&session.address, database, kind).into()),
        };
        // Also those whose replies arrived before.
        while let Some(Progressed { slice, repeated, cost }) = cursors.next_in_order() {
            self.state().record_slice(cursors.index, &slice, repeated, &cursors.walk, cost);
            self.monitor.slice(cost);
        }
        received
    }

    /// Receives the replies of all slices that are under way, after an error.
    fn finish_slices(&mut self, session: &mut Session, throttle: &mut Throttle<'_>, cursors: &mut Cursors) {
        while cursors.is_under_way() {
            // The first error is the one that is reported.
            let _ = self.receive_slice(session, throttle, cursors);
        }
    }

    /// Returns the walk through a database, from where its checkpoint stands or from the start. `several`: whether several
    /// cursors are to walk at once, which takes chunks.
    fn walk(
        &self,
        session: &mut Session,
        index: usize,
        database: &DatabaseCheckpoint,
        several: bool,
    ) -> Result<Walk, ShardError> {
        let restricted_to = self.state().checkpoint.restricted_to.clone();
        let scale = match session.per_slot_tables {
            true => server::slot_scale(&mut session.link, restricted_to.as_ref(), self.stop())
                .map_err(|error| ShardError::at(&session.address, error))?,
            false => Scale::Table,
        };
        if !scale.slots_above(UNEVEN).is_empty() {
            self.state().uneven.insert(database.database);
        }
        let forces_forward = self.profile.forces_forward(database.database);
        let usable = database.order.as_ref().filter(|order| order.is_forward() || !forces_forward);
        let resumed = usable.and_then(|order| {
            let walk = Walk::new(order, scale.clone(), restricted_to.clone());
            walk.resume(database.begun, &database.positions)
        });
        Ok(resumed.unwrap_or_else(|| {
            let speeds = Speeds { is_distant: several, ..speeds(&session.info, self.limits().keys_per_second) };
            let walks_backward = several || CycleOrder::of(&session.info) == CycleOrder::LikeScan;
            let order = match walks_backward && !forces_forward {
                true => Order::backward(database.keys, &scale, speeds),
                false => Order::Forward,
            };
            self.start(index, order, scale)
        }))
    }

    /// Starts a database in an order.
    fn start(&self, index: usize, order: Order, scale: Scale) -> Walk {
        let mut state = self.state();
        let walk = Walk::new(&order, scale, state.checkpoint.restricted_to.clone());
        state.start_database(index, order);
        walk
    }

    /// Starts a database again, forward, because its cursors are no positions in a table.
    fn give_up_chunks(&mut self, address: &Address, cursors: &Cursors) -> Walk {
        self.profile.distrusts_chunks = true;
        self.warn(format!(
            "order: the cursors of {address} are not positions in a hash table, as behind a proxy, so that the scan runs forward from its start; a slow forward scan can raise the stale share of Valkey and of Redis since 7.2: use a faster pace there"
        ));
        self.start(cursors.index, Order::Forward, cursors.walk.scale().clone())
    }
}
