//! How a server stores its keys: its databases, and whether each slot of a cluster has a table of its own.

use std::time::{Duration, Instant};

use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Capabilities, Info, Link, LinkError},
    record::Scale,
    stop::Stop,
    target::Address,
    topology::{SLOTS, SlotSet},
};

/// Slots that are counted in one round trip, and the pause after it.
const SLOTS_PER_CALL: usize = 128;
const SLOTS_PAUSE: Duration = Duration::from_micros(300);
/// Databases that are counted in one round trip.
const DATABASES_PER_CALL: u32 = 1_000;
/// Most databases that are searched for keys where the server does not list them; its default is 16.
const MAX_COUNTED_DATABASES: u32 = 1_000_000;
/// Most databases that are scanned where the server neither lists nor counts them.
const MAX_UNCOUNTED_DATABASES: u32 = 10_000;

/// Returns the databases that hold keys, with their numbers of keys, where INFO is refused: by SELECT and DBSIZE. Without
/// DBSIZE it returns every database, with one key each. `only`: the database that the target names.
pub(crate) fn find_databases(
    link: &mut Link,
    address: &Address,
    capabilities: Capabilities,
    only: Option<u32>,
) -> Result<Vec<(u32, u64)>, ShardError> {
    let denied = |sentence| Err(ShardError::Fatal(Failure::new(FailureKind::Denied, sentence)));
    if let Some(only) = only {
        return Ok(vec![(only, 1)]);
    }
    if !capabilities.select {
        return denied(format!(
            "{address} refuses INFO and SELECT, so that keys in other databases than 0 cannot be found; grant +info or +select, or name database 0 in the URL"
        ));
    }
    let failed = |error| ShardError::at(address, error);
    let most = if capabilities.dbsize { MAX_COUNTED_DATABASES } else { MAX_UNCOUNTED_DATABASES };
    let databases = database_count(link, most).map_err(failed)?;
    if databases > most {
        return denied(format!(
            "{address} refuses INFO and has more than {most} databases, which are too many to search for keys; grant {}, or name a database in the URL",
            if capabilities.dbsize { "+info" } else { "+info or +dbsize" }
        ));
    }
    let found = match capabilities.dbsize {
        false => (0..databases).map(|database| (database, 1)).collect(),
        true => {
            let mut found = Vec::new();
            for first in (0..databases).step_by(DATABASES_PER_CALL as usize) {
                let some = first..databases.min(first + DATABASES_PER_CALL);
                let keys = link.count_keys_in_databases(some.clone()).map_err(failed)?;
                found.extend(some.zip(keys).filter(|(_, keys)| *keys > 0));
                if found.len() > MAX_UNCOUNTED_DATABASES as usize {
                    return denied(format!(
                        "{address} has keys in more than {MAX_UNCOUNTED_DATABASES} databases, the most that are scanned at once; name one in the URL"
                    ));
                }
            }
            found
        }
    };
    // A sweep of database 0 alone sends no SELECT.
    link.call(&[b"SELECT", b"0"]).map_err(failed)?;
    Ok(found)
}

/// Returns the number of databases, by bisection; `most` + 1: there are more than that.
fn database_count(link: &mut Link, most: u32) -> Result<u32, LinkError> {
    let mut exists = |database: u32| match link.call(&[b"SELECT", database.to_string().as_bytes()]) {
        Ok(_) => Ok(true),
        // Valkey since 9.1 has rights for each database: one that is denied is there.
        Err(LinkError::Server(error)) if error.is_refusal() && !error.is_denied() => Ok(false),
        Err(error) => Err(error),
    };
    // Database 0 always exists.
    let (mut there, mut absent) = (0, 1);
    while exists(absent)? {
        if absent == most {
            return Ok(most + 1);
        }
        (there, absent) = (absent, (absent * 2).min(most));
    }
    while absent - there > 1 {
        let middle = there + (absent - there) / 2;
        if exists(middle)? { there = middle } else { absent = middle }
    }
    Ok(absent)
}

/// Whether the server has a table for each slot: Redis since 7.4 and Valkey since 8.0 in cluster mode.
pub(crate) fn has_per_slot_tables(info: &Info) -> bool {
    info.text("cluster_enabled") == Some("1") && info.is_since((8, 0), Some((7, 4)))
}

/// Returns the scale of a server with per-slot tables, weighted by the keys of each slot, and by slots alone where
/// counting is refused. Counts small groups with pauses between, so that clients do not wait.
pub(crate) fn slot_scale(link: &mut Link, restricted_to: Option<&SlotSet>, stop: &Stop) -> Result<Scale, LinkError> {
    let counts = |slot: u16| restricted_to.is_none_or(|slots| slots.contains(slot));
    let mut keys = Vec::with_capacity(usize::from(SLOTS));
    for first in (0..SLOTS).step_by(SLOTS_PER_CALL) {
        let slots = first..first + SLOTS_PER_CALL as u16;
        match link.count_keys_in_slots(slots) {
            Ok(held) => keys.extend((first..).zip(held).map(|(slot, held)| if counts(slot) { held } else { 0 })),
            Err(LinkError::Server(_)) => return Ok(Scale::of_even_slots(counts)),
            Err(error) => return Err(error),
        }
        stop.wait_until(Instant::now() + SLOTS_PAUSE);
    }
    Ok(Scale::of_slots(keys))
}
