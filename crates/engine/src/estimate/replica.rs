//! Counts the keys of a replica. SCAN hides stale keys there and deletes none: DBSIZE minus the keys that it returns is the
//! number of stale keys. Live keys are spread evenly over the order of SCAN, so that a part of it is enough.

use std::time::Instant;

use super::{
    report::{Bytes, Finding, Method},
    request::{BASELINE_PINGS, Request, databases},
};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Capabilities, Info, Keyspace, Link, RoleView, saturating_sum},
    pacing::{Decision, Pace},
    record::Scale,
    server::{has_per_slot_tables, slot_scale},
    stale::fraction_share,
    stop::Stop,
    target::Address,
    topology::{self, Connector},
};

/// A replica that is connected to.
pub(super) struct Replica {
    pub address: Address,
    pub link: Link,
    pub info: Info,
}

impl Replica {
    /// Connects to the first of these nodes that is a replica in sync with its primary and accepts the credentials. Where
    /// addresses are translated, one may lead to a replica of another primary, which has another `history`.
    pub fn find(
        nodes: &[Address],
        history: Option<&str>,
        connector: Connector<'_>,
    ) -> Result<Option<Self>, ShardError> {
        for address in nodes {
            match topology::role(address, connector) {
                Ok((RoleView::Replica { in_sync: true, .. }, link)) => {
                    let replica = Self::new(address.clone(), link).ok();
                    if let Some(replica) = replica.filter(|one| one.info.text("master_replid") == history) {
                        return Ok(Some(replica));
                    }
                }
                Err(ShardError::Stopped(kind)) => return Err(ShardError::Stopped(kind)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Returns the replica behind a link.
    pub fn new(address: Address, mut link: Link) -> Result<Self, ShardError> {
        let sections = ["server", "cluster", "replication", "memory", "keyspace"];
        let info = link.info(&sections).map_err(|error| ShardError::at(&address, error))?.unwrap_or_default();
        Ok(Self { address, link, info })
    }

    /// Counts its databases, all keys up to the request's limit and a part of them beyond it.
    pub fn count(&mut self, request: &Request, connector: Connector<'_>) -> Result<Vec<(u32, Finding)>, ShardError> {
        let lines = databases(&self.info, connector.target);
        let keys = saturating_sum(lines.iter().map(|line| line.keys));
        let upto = (request.max_counted as f64 / keys.max(1) as f64).min(1.0);
        let failed = |error| ShardError::at(&self.address, error);
        let mut pacer = Pacer {
            pace: Pace::new(request.limits),
            begun: Instant::now(),
            baseline: self.link.shortest_ping(BASELINE_PINGS).map_err(failed)?,
            spent: 0.0,
        };
        let mut found = Vec::new();
        for line in &lines {
            let spent = pacer.spent;
            let finding = self.count_database(line, upto, &mut pacer, connector.stop)?;
            let finding = finding.with_bytes(bytes(&self.info, line));
            found.push((line.database, Finding { server_seconds: Some(pacer.spent - spent), ..finding.scaled() }));
        }
        Ok(found)
    }

    fn count_database(
        &mut self,
        line: &Keyspace,
        upto: f64,
        pacer: &mut Pacer,
        stop: &Stop,
    ) -> Result<Finding, ShardError> {
        let address = &self.address;
        let failed = |error| ShardError::at(address, error);
        self.link.call(&[b"SELECT", line.database.to_string().as_bytes()]).map_err(failed)?;
        let scale = match has_per_slot_tables(&self.info) {
            true => slot_scale(&mut self.link, None, stop).map_err(failed)?,
            false => Scale::Table,
        };
        let (mut cursor, mut returned, mut size) = (0, 0, line.keys);
        let fraction = loop {
            let count = pacer.wait(stop)?;
            let (sent, offset) = (Instant::now(), pacer.begun.elapsed());
            let slice = self.link.slice(cursor, count, Capabilities::ALL).map_err(failed)?;
            let change = match slice.role {
                // Promoted meanwhile: from here on SCAN would delete.
                RoleView::Primary { .. } => Some("is no longer a replica"),
                RoleView::Replica { in_sync: false, .. } => Some("has lost the link to its primary"),
                _ => None,
            };
            if let Some(change) = change {
                let sentence = format!("{address} {change}; try again");
                return Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
            }
            let cost = sent.elapsed().saturating_sub(pacer.baseline);
            pacer.spent += cost.as_secs_f64();
            pacer.pace.record(offset, cost, count, slice.returned, 0);
            returned += slice.returned;
            cursor = slice.cursor;
            size = slice.sizes.map_or(size, |(_, after)| after);
            match cursor {
                0 => break 1.0,
                _ if scale.fraction(cursor) >= upto => break scale.fraction(cursor),
                _ => {}
            }
        };
        // Keys come and go meanwhile: the size at the end goes with the keys that were returned last.
        Ok(Finding::of_keys(size, line.expires.min(size))
            .with_share(fraction_share(size, returned, fraction), Method::Replica))
    }
}

/// The pace of a count, and what it has cost.
struct Pacer {
    pace: Pace,
    begun: Instant,
    /// Round trip of a PING on the idle connection.
    baseline: std::time::Duration,
    /// Seconds that slices kept the replica.
    spent: f64,
}

impl Pacer {
    /// Waits for the next slice and returns its COUNT.
    fn wait(&self, stop: &Stop) -> Result<u32, ShardError> {
        loop {
            if stop.is_raised() {
                return Err(ShardError::Stopped(FailureKind::Interrupted));
            }
            match self.pace.next(self.begun.elapsed()) {
                Decision::Wait(due) => stop.wait_until(self.begun + due),
                Decision::Go(count) => return Ok(count),
            };
        }
    }
}

/// Returns the bytes of a database as a share of the data set: as if all keys had the same size. The stale part of them is
/// calculated by [`Finding::scaled`].
fn bytes(info: &Info, line: &Keyspace) -> Option<Bytes> {
    let all = saturating_sum(info.keyspace().iter().map(|line| line.keys));
    let share = if all == 0 { 0.0 } else { line.keys as f64 / all as f64 };
    let bytes = info.number::<u64>("used_memory_dataset")? as f64 * share;
    Some(Bytes { bytes, interval: None })
}

impl Finding {
    /// Returns the finding with the stale part of the bytes of all keys.
    fn scaled(self) -> Self {
        let bytes = self.bytes.zip(self.share).map(|(bytes, share)| (bytes as f64 * share).round() as u64);
        Self { bytes, ..self }
    }
}
