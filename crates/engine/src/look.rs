//! What a server says of its own state about once a second: whether expiry is paused, whether it has forked, how busy it is.
//!
//! While writes are paused (CLIENT PAUSE, a failover being handed over) SCAN succeeds, hides what is expired and
//! deletes nothing. Nothing in its reply shows that, so it has to be asked for.

use std::time::Duration;

use crate::link::{Info, Link, LinkError};

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

/// The state of a server at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether expired keys are deleted.
    pub expiry: Expiry,
    /// Commands so far that pause expiry. One that came and went since the last look is seen by this alone.
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
        let pauses = PAUSING.into_iter().filter_map(|command| calls(&info, command)).sum();
        Ok(Self { expiry, pauses, forked: forked(&info), main_thread_cpu: info.main_thread_cpu(), cpu: info.cpu() })
    }

    /// Asks only whether the server has forked, which is cheap enough to be asked often.
    pub fn has_forked(link: &mut Link) -> Result<bool, LinkError> {
        Ok(link.info(&["persistence"])?.is_some_and(|info| forked(&info)))
    }
}

/// How often a command was called, from `calls=1,usec=…`.
fn calls(info: &Info, command: &str) -> Option<u64> {
    info.text(command)?.strip_prefix("calls=")?.split(',').next()?.parse().ok()
}

fn forked(info: &Info) -> bool {
    let flag = |field: &str| info.text(field) == Some("1");
    flag("rdb_bgsave_in_progress") || flag("aof_rewrite_in_progress")
}
