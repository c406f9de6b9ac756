//! Counts the keys of a replica. SCAN hides stale keys there and deletes none: DBSIZE minus the keys that it returns is the
//! number of stale keys. Live keys are spread evenly over the order of SCAN, so that a part of it is enough.

use std::time::Instant;

use super::{
    monitor::Step,
    report::{Bytes, Finding, Method},
    request::{BASELINE_PINGS, Request, databases},
};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Capabilities, Info, Keyspace, Link, RoleView, saturating_sum},
    pacing::{Decision, Pace},
    record::Scale,
    server::{has_per_slot_tables, slot_scale},
    stale::{ReplicaCount, Share},
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
        let (mut found, mut before, address) = (Vec::new(), 0.0, self.address.clone());
        for line in &lines {
            let spent = pacer.spent;
            let report = |fraction: f64| {
                let counted = before + line.keys as f64 * (fraction / upto).min(1.0);
                request.report(Step::Count { address: &address, fraction: (counted / keys.max(1) as f64).min(1.0) });
            };
            let finding = self.count_database(line, upto, &mut pacer, connector.stop, report)?;
            before += line.keys as f64;
            let bytes = data_bytes(&self.info, line).zip(finding.interval());
            let finding = finding.with_bytes(bytes.map(|(bytes, share)| stale_bytes(bytes, share)));
            found.push((line.database, Finding { server_seconds: Some(pacer.spent - spent), ..finding }));
        }
        Ok(found)
    }

    /// Counts one database. `report` receives the part of it that was visited, 0–1, after each slice.
    fn count_database(
        &mut self,
        line: &Keyspace,
        upto: f64,
        pacer: &mut Pacer,
        stop: &Stop,
        report: impl Fn(f64),
    ) -> Result<Finding, ShardError> {
        let address = &self.address;
        let failed = |error| ShardError::at(address, error);
        self.link.call(&[b"SELECT", line.database.to_string().as_bytes()]).map_err(failed)?;
        let scale = match has_per_slot_tables(&self.info) {
            true => slot_scale(&mut self.link, None, stop).map_err(failed)?,
            false => Scale::Table,
        };
        let (mut cursor, mut counted) = (0, ReplicaCount::of(line.keys));
        loop {
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
            cursor = slice.cursor;
            let fraction = if cursor == 0 { 1.0 } else { scale.fraction(cursor) };
            let size = slice.sizes.map_or(counted.size(), |(_, after)| after);
            counted.add(slice.returned, size, fraction);
            report(fraction);
            if cursor == 0 || fraction >= upto {
                break;
            }
        }
        // Keys come and go meanwhile, also those with a TTL.
        let info = self.link.info(&["keyspace"]).map_err(failed)?.unwrap_or_default();
        let lines = info.keyspace();
        let now = lines.iter().find(|now| now.database == line.database);
        let (size, expiring) = (counted.size(), now.map_or(line.expires, |now| now.expires));
        Ok(Finding::of_keys(size, expiring.min(size)).with_share(counted.share(expiring), Method::Replica))
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

/// Returns the bytes of a database, stale keys included, as a share of the data set: as if all keys had the same size.
fn data_bytes(info: &Info, line: &Keyspace) -> Option<f64> {
    let all = saturating_sum(info.keyspace().iter().map(|line| line.keys));
    let share = if all == 0 { 0.0 } else { line.keys as f64 / all as f64 };
    Some(info.number::<u64>("used_memory_dataset")? as f64 * share)
}

/// Returns the bytes of the stale keys. Their interval is that of the share: how the sizes of stale and live keys differ is not
/// known, so that after a count of all keys both ends are the same.
fn stale_bytes(bytes: f64, share: Share) -> Bytes {
    Bytes { bytes: bytes * share.share, interval: Some((bytes * share.low, bytes * share.high)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_count_have_the_interval_of_the_share() {
        let info = Info::read("used_memory_dataset:4000\r\ndb0:keys=300,expires=9\r\ndb1:keys=100,expires=9\r\n");
        let bytes = data_bytes(&info, &info.keyspace()[0]).expect("bytes");
        let part = stale_bytes(bytes, Share { share: 0.2, low: 0.1, high: 0.4 });
        assert_eq!((part.bytes.round(), part.interval), (600.0, Some((300.0, 1_200.0))));
        let found = Finding::of_keys(300, 9).with_bytes(Some(stale_bytes(bytes, Share::exact(0.5))));
        assert_eq!((found.bytes, found.bytes_low, found.bytes_high), (Some(1_500), Some(1_500), Some(1_500)));
        assert_eq!(data_bytes(&Info::read("db0:keys=1,expires=0\r\n"), &info.keyspace()[0]), None);
    }
}
