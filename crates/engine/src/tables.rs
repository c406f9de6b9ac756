//! How a server keeps its keys: its databases, and whether each slot of a cluster has a table of its own.

use std::time::{Duration, Instant};

use crate::{
    link::{Info, Link, LinkError, ServerError},
    progress::{SLOTS, Scale},
    stop::Stop,
    topology::SlotSet,
};

/// Slots that are asked about in one round trip, and the pause after it.
const SLOTS_A_CALL: usize = 128;
const SLOTS_PAUSE: Duration = Duration::from_micros(300);
/// Databases that are tried where the server does not list them; servers come with 16.
const MAX_GUESSED_DATABASES: u32 = 10_000;

/// Finds the databases where INFO is refused: every number that can be selected.
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
    // Back to where a sweep of database 0 alone takes itself to be.
    if databases.len() > 1 {
        link.call(&[b"SELECT", b"0"])?;
    }
    Ok(databases)
}

/// In cluster mode Redis since 7.4 and Valkey since 8.0 keep a table for each slot.
pub(crate) fn has_a_table_a_slot(info: &Info) -> bool {
    let version = info.engine_version().unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let since = if info.engine() == "valkey" { (8, 0) } else { (7, 4) };
    info.text("cluster_enabled") == Some("1") && version >= since
}

/// How many keys each of these slots, or of all, holds, asked in small groups with pauses: it must not keep clients waiting
/// either. By slots alone where the question is refused.
pub(crate) fn slot_scale(link: &mut Link, only: Option<&SlotSet>, stop: &Stop) -> Result<Scale, LinkError> {
    let counts = |slot: u16| only.is_none_or(|only| only.contains(slot));
    let mut keys = Vec::with_capacity(usize::from(SLOTS));
    for first in (0..SLOTS).step_by(SLOTS_A_CALL) {
        let slots = first..first + SLOTS_A_CALL as u16;
        match link.count_keys_in_slots(slots) {
            Ok(held) => keys.extend((first..).zip(held).map(|(slot, held)| if counts(slot) { held } else { 0 })),
            Err(LinkError::Server(_)) => return Ok(Scale::of_slots((0..SLOTS).map(|slot| u64::from(counts(slot))))),
            Err(error) => return Err(error),
        }
        stop.wait_until(Instant::now() + SLOTS_PAUSE);
    }
    Ok(Scale::of_slots(keys))
}
