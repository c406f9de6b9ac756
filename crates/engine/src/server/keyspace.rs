//! How a server stores its keys: its databases, and whether each slot of a cluster has a table of its own.

use std::time::{Duration, Instant};

use crate::{
    link::{Info, Link, LinkError, ServerError},
    record::Scale,
    stop::Stop,
    topology::{SLOTS, SlotSet},
};

/// Slots that are counted in one round trip, and the pause after it.
const SLOTS_PER_CALL: usize = 128;
const SLOTS_PAUSE: Duration = Duration::from_micros(300);
/// Most databases that are tried where the server does not list them; the servers' default is 16.
const MAX_GUESSED_DATABASES: u32 = 10_000;

/// Returns the databases where INFO is refused: every number that can be selected, with one key each.
pub(crate) fn guess_databases(link: &mut Link) -> Result<Vec<(u32, u64)>, LinkError> {
    let mut databases = Vec::new();
    for database in 0..MAX_GUESSED_DATABASES {
        match link.call(&[b"SELECT", database.to_string().as_bytes()]) {
            Ok(_) => databases.push((database, 1)),
            Err(LinkError::Server(ServerError(_))) if database > 0 => break,
            Err(LinkError::Server(_)) => databases.push((0, 1)),
            Err(error) => return Err(error),
        }
    }
    // A sweep of database 0 alone sends no SELECT.
    if databases.len() > 1 {
        link.call(&[b"SELECT", b"0"])?;
    }
    Ok(databases)
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
