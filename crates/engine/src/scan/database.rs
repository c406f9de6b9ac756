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
    server::{self, CycleOrder, FASTER, speeds, wake, wake_in_chunks},
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
        if let Some(walk) = resumed {
            return Ok(walk);
        }
        let is_like_scan = CycleOrder::of(&session.info) == CycleOrder::LikeScan;
        let order = match (several || is_like_scan) && !forces_forward {
            true => self.backward_order(session, database, &scale, several, is_like_scan)?,
            false => Order::Forward,
        };
        Ok(self.start(index, order, scale))
    }

    /// Returns the backward order for a database. Where the scan is limited and `may_wake`, in chunks fine enough for the keys that
    /// expire now.
    fn backward_order(
        &self,
        session: &mut Session,
        database: &DatabaseCheckpoint,
        scale: &Scale,
        several: bool,
        may_wake: bool,
    ) -> Result<Order, ShardError> {
        let since_start = Speeds { is_distant: several, ..speeds(&session.info, self.limits().keys_per_second) };
        let rate = since_start.scanned.filter(|_| may_wake && Order::is_divided(database.keys));
        let Some(rate) = rate.filter(|_| session.may_expire(database.database)) else {
            return Ok(Order::backward(database.keys, scale, since_start));
        };
        if session.expired_per_second.is_none() {
            let measured = server::measure_expiry(&mut session.link, &session.info, self.stop());
            session.expired_per_second = measured.map_err(|error| ShardError::at(&session.address, error))?;
        }
        // The higher of the two: keys may have begun to expire lately, or do so now and then.
        let higher = [since_start.expired, session.expired_per_second].into_iter().flatten().reduce(f64::max);
        let speeds = Speeds { expired: higher, ..since_start };
        let order = Order::backward(database.keys, scale, speeds);
        let finding = wake_in_chunks(database.keys, rate as f64, &order, speeds);
        // The pre-flight checks have warned of what they know.
        if let Some(finding) = finding.filter(|_| order.slowest(since_start) <= rate as f64) {
            self.warn(format!("order: database {} of {}: {finding}; {FASTER}", database.database, session.address));
        }
        Ok(order)
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
