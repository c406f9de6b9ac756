//! Counts the keys of some slots on the replica of a cluster's primary. The server lists all keys of a slot, stale ones
//! included; on a replica PTTL hides the stale ones and keeps them, and MEMORY USAGE tells the bytes of each.

use std::collections::BTreeMap;

use super::{
    places::{SLOTS_RIGHT, counted_slots, draw_slot},
    replica::Replica,
    report::{Bytes, Finding, Method},
    request::{Request, databases},
};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Link, LinkError, Pipeline, Reply},
    record::Scale,
    stale::{NORMAL, average_of_slots},
    stop::Stop,
    topology::Connector,
};

/// Keys that are asked for in one round trip.
const KEYS_PER_CALL: usize = 50;
/// Most keys of a slot that are read. Where slots have more, the first ones would stand for the others, and Redis 7.0 lists the newest
/// first.
const MAX_KEYS: usize = 2_000;
/// Size of a key from which on it is an absurd one.
const MAX_KEY_BYTES: i64 = 1 << 40;

/// What was found in one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct SlotCount {
    keys: u64,
    stale: u64,
    /// Bytes of the stale keys.
    bytes: u64,
}

impl Replica {
    /// Counts slots of its databases, drawn by their keys. Names of keys are held only while their sizes are asked for.
    pub fn count_slots(
        &mut self,
        request: &Request,
        connector: Connector<'_>,
    ) -> Result<Vec<(u32, Finding)>, ShardError> {
        if self.info.text("cluster_enabled") != Some("1") {
            let sentence = format!("{} does not run in cluster mode, which the method slots requires", self.address);
            return Err(ShardError::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
        }
        let address = &self.address;
        let failed = |error| ShardError::at(address, error);
        // Without it a replica redirects commands with a key to its primary.
        self.link.call(&[b"READONLY"]).map_err(failed)?;
        let mut found = Vec::new();
        for line in databases(&self.info, connector.target) {
            self.link.call(&[b"SELECT", line.database.to_string().as_bytes()]).map_err(failed)?;
            let Some(scale) = counted_slots(&mut self.link, address, connector.stop)? else {
                let sentence = format!("{address} refuses CLUSTER COUNTKEYSINSLOT; {SLOTS_RIGHT}");
                return Err(ShardError::Fatal(Failure::new(FailureKind::Denied, sentence)));
            };
            let slots = draw(&mut self.link, &scale, request.slices, connector.stop).map_err(failed)?;
            if connector.stop.is_raised() {
                return Err(ShardError::Stopped(FailureKind::Interrupted));
            }
            if slots.iter().any(|slot| slot.keys >= MAX_KEYS as u64) {
                let sentence = format!(
                    "{address} has slots of {MAX_KEYS} keys or more, too many to ask one by one; use the method replica"
                );
                return Err(ShardError::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
            }
            found.push((line.database, finding(Finding::of_keys(line.keys, line.expires), &slots)));
        }
        Ok(found)
    }
}

/// Counts a number of slots. A slot that is drawn again counts again, without being read again.
fn draw(link: &mut Link, scale: &Scale, slices: u32, stop: &Stop) -> Result<Vec<SlotCount>, LinkError> {
    let (mut random, mut counted) = (fastrand::Rng::new(), BTreeMap::new());
    let mut drawn = Vec::new();
    for _ in 0..slices {
        if stop.is_raised() {
            break;
        }
        let (slot, _) = draw_slot(scale, &mut random);
        let count = match counted.get(&slot) {
            Some(count) => *count,
            None => count_slot(link, slot)?,
        };
        counted.insert(slot, count);
        drawn.push(count);
    }
    Ok(drawn)
}

fn count_slot(link: &mut Link, slot: u16) -> Result<SlotCount, LinkError> {
    let (slot, most) = (slot.to_string(), MAX_KEYS.to_string());
    let reply = link.call(&[b"CLUSTER", b"GETKEYSINSLOT", slot.as_bytes(), most.as_bytes()])?;
    let Reply::Array(keys) = reply else { return Ok(SlotCount::default()) };
    let names: Vec<&[u8]> = keys.iter().filter_map(name).collect();
    let mut count = SlotCount { keys: names.len() as u64, ..SlotCount::default() };
    for names in names.chunks(KEYS_PER_CALL) {
        let mut asked = Pipeline::default();
        for name in names {
            asked.add(&[b"PTTL", name]);
            asked.add(&[b"MEMORY", b"USAGE", name]);
        }
        for answer in link.replies(&asked)?.chunks_exact(2) {
            // -2: the key is hidden. One that was deleted meanwhile has no size.
            if answer[0].integer() == Some(-2)
                && let Some(bytes) = answer[1].integer().filter(|bytes| (1..MAX_KEY_BYTES).contains(bytes))
            {
                count.stale += 1;
                count.bytes += bytes as u64;
            }
        }
    }
    Ok(count)
}

fn name(reply: &Reply) -> Option<&[u8]> {
    match reply {
        Reply::Bulk(name) => Some(name),
        _ => None,
    }
}

fn finding(finding: Finding, slots: &[SlotCount]) -> Finding {
    let counts: Vec<(u64, u64)> = slots.iter().map(|slot| (slot.stale, slot.keys)).collect();
    match average_of_slots(&counts) {
        Some(sampled) => {
            let bytes = bytes(finding.keys, slots);
            finding.with_share(sampled.share, Method::Slots).with_bytes(Some(bytes))
        }
        None => Finding { method: Some(Method::Slots), ..finding },
    }
}

/// Returns the bytes of all stale keys: the mean over the slots of the stale bytes for each key, times the keys.
fn bytes(keys: u64, slots: &[SlotCount]) -> Bytes {
    let each: Vec<f64> =
        slots.iter().filter(|slot| slot.keys > 0).map(|slot| slot.bytes as f64 / slot.keys as f64).collect();
    let (keys, count) = (keys as f64, each.len().max(2) as f64);
    let mean = each.iter().sum::<f64>() / count;
    let error = (each.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count * (count - 1.0))).sqrt();
    let interval = (keys * (mean - NORMAL * error), keys * (mean + NORMAL * error));
    Bytes { bytes: keys * mean, interval: Some(interval) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_stand_for_all_keys() {
        let slot = |keys, stale| SlotCount { keys, stale, bytes: stale * 100 };
        let found =
            finding(Finding::of_keys(1_000_000, 500_000), &[slot(100, 10), slot(50, 10), slot(0, 0), slot(200, 0)]);
        assert!((found.share.expect("a share") - 0.1).abs() < 1e-9, "{found:?}");
        assert_eq!((found.stale_keys, found.bytes, found.reclaimed), (Some(100_000), Some(10_000_000), 0));
        let nothing = finding(Finding::of_keys(0, 0), &[]);
        assert_eq!((nothing.share, nothing.method), (None, Some(Method::Slots)));
    }
}
