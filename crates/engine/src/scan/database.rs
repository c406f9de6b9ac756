//! One database over one connection: chunk after chunk, in the order that suits the server's own expiry cycle.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{incomplete::endless, runaway::Runaway, session::Session, sweeper::ShardSweeper};
use crate::{
    failure::ShardError,
    link::{LinkError, RoleView},
    pacing::{Next, Throttle},
    record::{Advance, Call, DatabaseCheckpoint, Order, Scale, Walk},
    server::{self, Cycle, FASTER, speeds, wake},
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
        let address = session.address.clone();
        let failed = |error| ShardError::at(&address, error);
        self.state().database = Some(database.database);
        if database.database != 0 || self.state().checkpoint.databases.len() > 1 {
            session.link.call(&[b"SELECT", database.database.to_string().as_bytes()]).map_err(failed)?;
        }
        let (started, mut scanned) = (Instant::now(), 0);
        let mut walk = self.walk(session, index, database)?;
        let mut runaway = Runaway::default();
        let mut keys = session.keys(database.database);
        let mut next = walk.take();
        while let Some(position) = next {
            let Next::Slice(count) = throttle.next_slice(&mut session.link)? else {
                return Ok(ControlFlow::Break(()));
            };
            let count = count.min(walk.max_count(position, keys.unwrap_or(u64::MAX)));
            let count = self.profile.reply_cap.limit(count);
            let (sent, offset) = (Instant::now(), throttle.now());
            let slice = match self.run_slice(session, position.cursor, count) {
                Ok(slice) => slice,
                Err(LinkError::Server(error)) if walk.is_start(position) && error.is_about_cursor() => {
                    walk = self.give_up_chunks(&address, index, &walk);
                    (next, runaway) = (walk.take(), Runaway::default());
                    continue;
                }
                Err(error) => return Err(self.slice_error(&address, count, error)),
            };
            let round_trip = sent.elapsed();
            if matches!(slice.role, RoleView::Replica { .. }) {
                return Err(ShardError::Demoted);
            }
            let cost = throttle.record(offset, round_trip, count, &slice);
            let visited = slice.returned + slice.reclaimed;
            scanned += visited;
            let call = Call { count, cursor: slice.cursor, returned: slice.returned, visited };
            let repeated = walk.repeated(position, call);
            let advance = walk.advance(position, call);
            self.state().record_slice(index, &slice, repeated, &walk, cost);
            self.monitor.slice(cost);
            keys = slice.sizes.map(|(before, _)| before).or(keys);
            if let Some(kind) = runaway.record(slice.cursor, visited, keys) {
                return Err(endless(&address, database.database, kind).into());
            }
            next = match advance {
                Advance::Within(position) => Some(position),
                Advance::Complete => {
                    runaway.start_chunk();
                    walk.take()
                }
                Advance::Opaque => {
                    walk = self.give_up_chunks(&address, index, &walk);
                    runaway = Runaway::default();
                    walk.take()
                }
            };
        }
        if walk.is_forward() {
            self.note_wake(session, database.database, scanned, started.elapsed());
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Warns where a forward scan has taken so long that the server's own expiry cycle may have stayed in its wake. The pre-flight
    /// checks have warned of a limit that is too low.
    fn note_wake(&self, session: &Session, database: u32, scanned: u64, taken: Duration) {
        let is_foreseen = self.limits().keys_per_second.is_some() && !self.profile.distrusts_chunks;
        if is_foreseen || Cycle::of(&session.info) == Cycle::Linear {
            return;
        }
        if let Some(finding) = wake(scanned, taken, session.mean_ttl(database)) {
            self.warn(format!("order: database {database} of {}: {finding}; {FASTER}", session.address));
        }
    }

    /// Returns the walk through a database, from where its checkpoint stands or from the start.
    fn walk(&self, session: &mut Session, index: usize, database: &DatabaseCheckpoint) -> Result<Walk, ShardError> {
        let restricted_to = self.state().checkpoint.restricted_to.clone();
        let scale = match session.per_slot_tables {
            true => server::slot_scale(&mut session.link, restricted_to.as_ref(), self.stop())
                .map_err(|error| ShardError::at(&session.address, error))?,
            false => Scale::Table,
        };
        if !scale.slots_above(UNEVEN).is_empty() {
            self.state().uneven.insert(database.database);
        }
        let usable = database.order.as_ref().filter(|order| order.is_forward() || !self.profile.distrusts_chunks);
        let resumed = usable.and_then(|order| {
            let walk = Walk::new(order, scale.clone(), restricted_to.clone());
            walk.resume(database.begun, &database.positions)
        });
        Ok(resumed.unwrap_or_else(|| {
            let order = match Cycle::of(&session.info) {
                Cycle::LikeScan if !self.profile.distrusts_chunks => {
                    Order::backward(database.keys, &scale, speeds(&session.info, self.limits().keys_per_second))
                }
                _ => Order::Forward,
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
    fn give_up_chunks(&mut self, address: &Address, index: usize, walk: &Walk) -> Walk {
        self.profile.distrusts_chunks = true;
        self.warn(format!(
            "order: the cursors of {address} are not positions in a hash table, as behind a proxy, so that the scan runs forward from its start; a slow forward scan can raise the stale share of Valkey and of Redis since 7.2: use a faster pace there"
        ));
        self.start(index, Order::Forward, walk.scale().clone())
    }
}
