//! `lazyfree-lazy-expire`, turned on for the time of a sweep where somebody has asked for that.
//!
//! Freeing one expired hash of a million fields keeps the main thread for half a second; in the background it takes
//! microseconds. The setting is the server's, so that it is changed with care: it is ours only where we found it off and
//! recorded that we turn it on, counted where sweeps overlap, and put back only in the same process and only where it
//! still has the value that we gave it. Where it is on and nobody is recorded, it is the operator's; only in the moment
//! in which the last sweep lets go it is taken for that of another sweep that came and went.

use std::fmt;

use crate::{
    link::{Link, LinkError, Reply},
    target::Address,
};

const DIRECTIVE: &[u8] = b"lazyfree-lazy-expire";

/// What is recorded of the sweeps that count on the setting of one server process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holders {
    /// Whether this sweep was among them already: its worker died, and this is the next.
    pub held_before: bool,
    /// The others.
    pub others: u64,
}

/// Remembers, through crashes, who counts on the setting of which server process.
pub trait LazyFreeKeeper: fmt::Debug + Send + Sync {
    /// Records that this sweep does, before anything is set.
    fn hold(&self, address: &Address, run_id: &str) -> Result<Holders, String>;

    /// The same, but only if somebody is recorded for that process already, this sweep included; `None`: nobody is.
    fn join(&self, address: &Address, run_id: &str) -> Result<Option<Holders>, String>;

    /// Forgets it, and says how many others still do.
    fn let_go(&self, run_id: &str) -> Result<u64, String>;
}

/// What became of the wish to turn the setting on.
pub(crate) enum Held {
    /// It is on because of us, or of another sweep: let go at the end.
    Ours,
    /// It was on anyway.
    OnAnyway,
    /// It is off, and stays so: why.
    Refused(String),
}

/// Turns the setting on, if it is off.
pub(crate) fn hold(
    link: &mut Link,
    keeper: &dyn LazyFreeKeeper,
    address: &Address,
    run_id: &str,
) -> Result<Held, LinkError> {
    match value(link)?.as_deref() {
        Some("yes") => match keeper.join(address, run_id) {
            Ok(Some(_)) => return Ok(Held::Ours),
            // Unless it was another sweep's, which has put it back since.
            Ok(None) if value(link)?.as_deref() == Some("yes") => return Ok(Held::OnAnyway),
            Ok(None) => {}
            Err(cause) => return Ok(unrecorded(&cause)),
        },
        Some(_) => {}
        None => {
            let cause = "CONFIG GET is refused, or the server does not have it; grant +config|get";
            return Ok(Held::Refused(cause.into()));
        }
    }
    turn_on(link, keeper, address, run_id)
}

/// Turns on what was found off.
fn turn_on(link: &mut Link, keeper: &dyn LazyFreeKeeper, address: &Address, run_id: &str) -> Result<Held, LinkError> {
    let holders = match keeper.hold(address, run_id) {
        Ok(holders) => holders,
        Err(cause) => return Ok(unrecorded(&cause)),
    };
    let held = match value(link)?.as_deref() {
        Some("yes") if holders.held_before || holders.others > 0 => return Ok(Held::Ours),
        // Its operator was quicker.
        Some("yes") => Held::OnAnyway,
        _ if set(link, true)? => return Ok(Held::Ours),
        _ => Held::Refused("CONFIG SET is refused; grant +config|set".into()),
    };
    // Nothing was changed, so there is nothing to remember. Should that fail, an entry too many is put right later.
    let _ = keeper.let_go(run_id);
    Ok(held)
}

fn unrecorded(cause: &str) -> Held {
    Held::Refused(format!("it cannot be recorded that it is changed ({cause})"))
}

/// Puts the setting back if no other sweep counts on it, then forgets this one. In this order: a connection that breaks
/// in between leaves the record of what is still to be done. Then it looks once more, for what a sweep may have turned on
/// that came and went in between.
pub fn let_go_lazyfree(
    link: &mut Link,
    keeper: &dyn LazyFreeKeeper,
    address: &Address,
    run_id: &str,
) -> Result<(), LinkError> {
    let mut recorded = keeper.join(address, run_id);
    loop {
        let left = match recorded {
            Ok(Some(holders)) if holders.others == 0 => put_back(link, run_id)?,
            Ok(Some(_)) => Left::ToOthers,
            // Another worker has done it. Or the store is away, and the record stays for later.
            Ok(None) | Err(_) => return Ok(()),
        };
        match (keeper.let_go(run_id), left) {
            // Another sweep has begun in between and may have found the setting on. It may also have ended since, so that this is
            // recorded again before it is on again, and let go again.
            (Ok(1..), Left::PutBack) => {
                recorded = keeper.hold(address, run_id).map(Some);
                if matches!(&recorded, Ok(Some(holders)) if holders.others > 0) {
                    set(link, true)?;
                }
            }
            // The others went at the same moment, and each left it to the next: this one is the last.
            (Ok(0), Left::ToOthers) => recorded = keeper.hold(address, run_id).map(Some),
            // Another sweep has come and gone in between: it has turned the setting on and left the rest to this one, which was
            // still recorded.
            (Ok(0), Left::PutBack | Left::Off) if value(link)?.as_deref() == Some("yes") => {
                recorded = keeper.hold(address, run_id).map(Some);
            }
            _ => return Ok(()),
        }
    }
}

/// How a sweep that lets go has left the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// As it is: others count on it.
    ToOthers,
    /// Off, after it was on.
    PutBack,
    /// Off, as it was found.
    Off,
    /// As it is: it is another process's, or changing it is refused.
    Alone,
}

/// Turns the setting off, if this is the process that it was turned on in and it is still on: what somebody else has
/// changed is theirs.
fn put_back(link: &mut Link, run_id: &str) -> Result<Left, LinkError> {
    let info = link.info(&["server"])?.unwrap_or_default();
    if info.text("run_id") != Some(run_id) {
        return Ok(Left::Alone);
    }
    match value(link)?.as_deref() {
        Some("yes") if set(link, false)? => Ok(Left::PutBack),
        Some("no") => Ok(Left::Off),
        _ => Ok(Left::Alone),
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
