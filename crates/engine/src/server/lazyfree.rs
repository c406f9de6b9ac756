//! `lazyfree-lazy-expire`, turned on while a sweep runs, where the operator enabled that.
//!
//! Freeing one expired hash of a million fields blocks the main thread for half a second; in the background it takes
//! microseconds. The setting belongs to the server, so it is changed with care. A sweep turns it on only where it is off,
//! records that first, counts overlapping sweeps, and restores it only in the same server process and only where it still
//! has the value that a sweep set. Where it is on without a record, the operator turned it on; only during the release of
//! the last sweep it is attributed to another sweep that started and ended in between.

use std::fmt;

use crate::{
    link::{Link, LinkError, Reply},
    target::Address,
};

const DIRECTIVE: &[u8] = b"lazyfree-lazy-expire";

/// Sweeps that use the setting of one server process, as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holders {
    /// Whether this sweep was recorded already: its worker crashed, and this is the next.
    pub held_before: bool,
    /// Number of the other sweeps.
    pub others: u64,
}

/// Counts, in a store that survives crashes, the sweeps that use the setting of each server process: a reference count. A process
/// is known by its address and its run id: a server names its run id itself, and may name that of another one.
pub trait LazyFreeRegistry: fmt::Debug + Send + Sync {
    /// Records this sweep, before anything is set.
    fn acquire(&self, address: &Address, run_id: &str) -> Result<Holders, String>;

    /// Records this sweep, but only if a sweep is recorded for that process already, this one included; `None`: none is.
    fn join(&self, address: &Address, run_id: &str) -> Result<Option<Holders>, String>;

    /// Removes this sweep. Returns how many others remain.
    fn release(&self, address: &Address, run_id: &str) -> Result<u64, String>;
}

/// Result of turning the setting on.
pub(crate) enum Acquired {
    /// This sweep, or another one, turned it on: it is released at the end.
    Counted,
    /// The operator had turned it on.
    AlreadyOn,
    /// It stays off, for this cause.
    Refused(String),
}

/// Turns the setting on, if it is off.
pub(crate) fn acquire(
    link: &mut Link,
    registry: &dyn LazyFreeRegistry,
    address: &Address,
    run_id: &str,
) -> Result<Acquired, LinkError> {
    match value(link)?.as_deref() {
        Some("yes") => match registry.join(address, run_id) {
            Ok(Some(_)) => return Ok(Acquired::Counted),
            // Unless another sweep had turned it on and has restored it since.
            Ok(None) if value(link)?.as_deref() == Some("yes") => return Ok(Acquired::AlreadyOn),
            Ok(None) => {}
            Err(cause) => return Ok(unrecorded(&cause)),
        },
        Some(_) => {}
        None => {
            let cause = "CONFIG GET is refused, or the server does not have the setting; grant +config|get";
            return Ok(Acquired::Refused(cause.into()));
        }
    }
    turn_on(link, registry, address, run_id)
}

/// Turns the setting on, after it was found off.
fn turn_on(
    link: &mut Link,
    registry: &dyn LazyFreeRegistry,
    address: &Address,
    run_id: &str,
) -> Result<Acquired, LinkError> {
    let holders = match registry.acquire(address, run_id) {
        Ok(holders) => holders,
        Err(cause) => return Ok(unrecorded(&cause)),
    };
    let acquired = match value(link)?.as_deref() {
        Some("yes") if holders.held_before || holders.others > 0 => return Ok(Acquired::Counted),
        // The operator turned it on in between.
        Some("yes") => Acquired::AlreadyOn,
        _ if set(link, true)? => return Ok(Acquired::Counted),
        _ => Acquired::Refused("CONFIG SET is refused; grant +config|set".into()),
    };
    // Nothing was changed, so no record is needed. If the release fails, a later clean-up removes the record.
    let _ = registry.release(address, run_id);
    Ok(acquired)
}

fn unrecorded(cause: &str) -> Acquired {
    Acquired::Refused(format!("the change cannot be recorded ({cause})"))
}

/// Restores the setting if no other sweep uses it, then removes this sweep from the registry. In this order: if the
/// connection breaks in between, the record of the work that remains survives. Then it checks once more for a setting
/// that a sweep turned on in between and left to this one.
pub fn release_lazyfree(
    link: &mut Link,
    registry: &dyn LazyFreeRegistry,
    address: &Address,
    run_id: &str,
) -> Result<(), LinkError> {
    let mut recorded = registry.join(address, run_id);
    loop {
        let released = match recorded {
            Ok(Some(holders)) if holders.others == 0 => restore(link, run_id)?,
            Ok(Some(_)) => Released::LeftToOthers,
            // Another worker has released it, or the store is away and the record stays for later.
            Ok(None) | Err(_) => return Ok(()),
        };
        match (registry.release(address, run_id), released) {
            // Another sweep has started in between and may have found the setting on. It may also have ended since, so
            // that this sweep is recorded again before it turns the setting on again, and then released again.
            (Ok(1..), Released::Restored) => {
                recorded = registry.acquire(address, run_id).map(Some);
                if matches!(&recorded, Ok(Some(holders)) if holders.others > 0) {
                    set(link, true)?;
                }
            }
            // The others released at the same moment, each leaving the setting to the next: this sweep is the last.
            (Ok(0), Released::LeftToOthers) => recorded = registry.acquire(address, run_id).map(Some),
            // Another sweep has started and ended in between: it turned the setting on and left it to this sweep, which
            // was still recorded.
            (Ok(0), Released::Restored | Released::AlreadyOff) if value(link)?.as_deref() == Some("yes") => {
                recorded = registry.acquire(address, run_id).map(Some);
            }
            _ => return Ok(()),
        }
    }
}

/// How a sweep has left the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Released {
    /// On: other sweeps use it.
    LeftToOthers,
    /// Off, after it was on.
    Restored,
    /// Off, as it was found.
    AlreadyOff,
    /// Unchanged: the server process is another one, or the change is refused.
    Untouched,
}

/// Turns the setting off, if the server process is the one in which it was turned on and it is still on. A change by the
/// operator stays.
fn restore(link: &mut Link, run_id: &str) -> Result<Released, LinkError> {
    let info = link.info(&["server"])?.unwrap_or_default();
    if info.run_id().as_deref() != Some(run_id) {
        return Ok(Released::Untouched);
    }
    match value(link)?.as_deref() {
        Some("yes") if set(link, false)? => Ok(Released::Restored),
        Some("no") => Ok(Released::AlreadyOff),
        _ => Ok(Released::Untouched),
    }
}

fn value(link: &mut Link) -> Result<Option<String>, LinkError> {
    match link.call(&[b"CONFIG", b"GET", DIRECTIVE]) {
        Ok(Reply::Array(pair)) => Ok(pair.get(1).and_then(Reply::text).map(str::to_owned)),
        Ok(_) | Err(LinkError::Server(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn set(link: &mut Link, on: bool) -> Result<bool, LinkError> {
    match link.call(&[b"CONFIG", b"SET", DIRECTIVE, if on { b"yes" } else { b"no" }]) {
        Ok(_) => Ok(true),
        Err(LinkError::Server(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
