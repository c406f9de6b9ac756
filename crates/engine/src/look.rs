//! What a server says of its own state about once a second: whether expiry is paused, whether it has forked, how busy it is.
//!
//! While writes are paused (CLIENT PAUSE, a failover being handed over) SCAN succeeds, hides what is expired and
//! deletes nothing. Nothing in its reply shows that, so it has to be asked for.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::link::{Info, Link, LinkError, Reply};

/// Whether expired keys are deleted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// They are.
    Live,
    /// They are not.
    Paused,
    /// The server does not tell (before Redis 7.4 and Valkey 8.1, or where INFO is refused).
    NotShown,
}

/// The statistics of the commands that pause expiry, for as long as the operator says or a hand-over takes. Redis 6.2
/// counts all of CLIENT as one.
const PAUSING: [&str; 3] = ["cmdstat_client|pause", "cmdstat_failover", "cmdstat_shutdown"];

/// The statistics of the commands by which slots leave a node as a whole (Valkey 9).
const MOVING_SLOTS: [&str; 2] = ["cmdstat_cluster|migrateslots", "cmdstat_cluster|syncslots"];

/// The state of a server at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether expired keys are deleted.
    pub expiry: Expiry,
    /// Commands so far that pause expiry, and moves of slots that have ended. One that came and went since the last look
    /// is seen by this alone.
    pub pauses: u64,
    /// Whether a child process saves or rewrites: every page that changes meanwhile is copied.
    pub forked: bool,
    /// CPU of the thread that serves clients, since the server's start, where the server tells it apart from others.
    pub main_thread_cpu: Option<Duration>,
    /// The same, or that of the whole process where the server does not tell them apart.
    pub cpu: Option<Duration>,
}

impl Look {
    /// Asks the server.
    pub fn take(link: &mut Link) -> Result<Self, LinkError> {
        let Some(info) = link.info(&["clients", "replication", "persistence", "cpu", "commandstats"])? else {
            return Ok(Self { expiry: Expiry::NotShown, pauses: 0, forked: false, main_thread_cpu: None, cpu: None });
        };
        let handing_over = info.text("master_failover_state").is_some_and(|state| state != "no-failover");
        let expiry = match info.text("paused_actions") {
            _ if handing_over => Expiry::Paused,
            Some("none") => Expiry::Live,
            Some(_) => Expiry::Paused,
            None => Expiry::NotShown,
        };
        let moves = match MOVING_SLOTS.into_iter().any(|command| calls(&info, command).is_some()) {
            true => Moves::ask(link)?,
            false => Moves::default(),
        };
        let expiry = if moves.pausing { Expiry::Paused } else { expiry };
        let pauses =
            PAUSING.into_iter().filter_map(|command| calls(&info, command)).fold(moves.ended, u64::wrapping_add);
        Ok(Self { expiry, pauses, forked: forked(&info), main_thread_cpu: info.main_thread_cpu(), cpu: info.cpu() })
    }

    /// Asks only whether the server has forked, which is cheap enough to be asked often.
    pub fn has_forked(link: &mut Link) -> Result<bool, LinkError> {
        Ok(link.info(&["persistence"])?.is_some_and(|info| forked(&info)))
    }
}

/// The moves of slots away from a node. Each pauses expiry while the slots are handed over, for a moment that may fall
/// between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Moves {
    pausing: bool,
    /// Differs as soon as another one has ended, also when the server's list of them is full and drops its oldest.
    ended: u64,
}

impl Moves {
    /// Asks the server. Where it may not be asked, only what the looks themselves see is known.
    fn ask(link: &mut Link) -> Result<Self, LinkError> {
        match link.call(&[b"CLUSTER", b"GETSLOTMIGRATIONS"]) {
            Ok(reply) => Ok(Self::read(&reply)),
            Err(LinkError::Server(_)) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn read(reply: &Reply) -> Self {
        let Reply::Array(moves) = reply else { return Self::default() };
        let away = moves.iter().filter(|one| field(one, "operation") == Some("EXPORT"));
        away.fold(Self::default(), |all, one| match field(one, "state") {
            Some("failover-paused" | "failover-granted") => Self { pausing: true, ..all },
            Some("success" | "failed" | "cancelled") => {
                let mut hasher = DefaultHasher::new();
                field(one, "name").hash(&mut hasher);
                Self { ended: all.ended.wrapping_add(hasher.finish()), ..all }
            }
            _ => all,
        })
    }
}

/// A value in a reply that lists names and values in turn.
fn field<'a>(map: &'a Reply, name: &str) -> Option<&'a str> {
    let Reply::Array(words) = map else { return None };
    words.chunks_exact(2).find(|pair| pair[0].text() == Some(name))?[1].text()
}

/// How often a command was called, from `calls=1,usec=…`.
fn calls(info: &Info, command: &str) -> Option<u64> {
    info.text(command)?.strip_prefix("calls=")?.split(',').next()?.parse().ok()
}

fn forked(info: &Info) -> bool {
    let flag = |field: &str| info.text(field) == Some("1");
    flag("rdb_bgsave_in_progress") || flag("aof_rewrite_in_progress")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, operation: &str, state: &str) -> Reply {
        let words = ["name", name, "operation", operation, "state", state];
        Reply::Array(words.into_iter().map(|word| Reply::Bulk(word.into())).collect())
    }

    fn moves(all: &[Reply]) -> Moves {
        Moves::read(&Reply::Array(all.to_vec()))
    }

    #[test]
    fn slots_that_are_being_handed_over_pause_expiry() {
        for (state, pausing) in [("snapshotting", false), ("failover-paused", true), ("failover-granted", true)] {
            assert_eq!(moves(&[one("a", "EXPORT", state)]), Moves { pausing, ended: 0 });
            assert_eq!(moves(&[one("a", "IMPORT", state)]), Moves::default(), "here it is the other node that pauses");
        }
    }

    #[test]
    fn each_move_that_has_ended_since_is_told_apart_even_when_the_list_is_full() {
        let before = moves(&[one("a", "EXPORT", "success"), one("b", "EXPORT", "snapshotting")]);
        assert_ne!(before.ended, moves(&[one("a", "EXPORT", "success"), one("b", "EXPORT", "failed")]).ended);
        assert_ne!(before.ended, moves(&[one("b", "EXPORT", "success")]).ended);
        assert_eq!(before.ended, moves(&[one("a", "EXPORT", "success"), one("c", "IMPORT", "success")]).ended);
    }
}
