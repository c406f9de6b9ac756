//! How a server keeps its keys: its databases, and whether each slot of a cluster has a table of its own.

use std::time::{Duration, Instant};

use crate::{
    failure::{Failure, FailureKind, Trouble},
    link::{Info, Link, LinkError, ServerError},
    progress::{SLOTS, Scale},
    stop::Stop,
    topology::{Primary, SlotSet},
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
    info.text("cluster_enabled") == Some("1") && info.is_since((8, 0), Some((7, 4)))
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

/// Refuses a database that the server does not have: it would pass for one that is empty, and its sweep for a success.
pub(crate) fn find_database(primary: &mut Primary, wanted: u32) -> Result<(), Trouble> {
    let Primary { address, link, .. } = primary;
    let mut selects = |database: u32| match link.call(&[b"SELECT", database.to_string().as_bytes()]) {
        Ok(_) => Ok(true),
        // Whether it is there cannot be known; what follows will say what it needs.
        Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => Ok(true),
        Err(LinkError::Server(_)) => Ok(false),
        Err(error) => Err(Trouble::at(address, error)),
    };
    // Their number, by halves, because asking for the setting needs a right that a sweep can do without. Database 0 is
    // always there; whatever was selected on the way, the link comes back to it.
    let (mut there, mut absent) = (0, wanted);
    if wanted == 0 || selects(wanted)? {
        return if wanted == 0 { Ok(()) } else { selects(0).map(drop) };
    }
    while absent - there > 1 {
        let middle = there + (absent - there) / 2;
        match selects(middle)? {
            true => there = middle,
            false => absent = middle,
        }
    }
    let has = match absent {
        1 => "database 0 only".to_owned(),
        number => format!("{number} databases, 0 to {there}"),
    };
    let sentence =
        format!("{address} has {has}; database {wanted} in the URL is none of them: name another, or none for all");
    Err(Trouble::Fatal(Failure::new(FailureKind::Refused, sentence)))
}
