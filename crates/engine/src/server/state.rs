//! State of a server, sampled about once a second: whether expiry is paused, whether a background save runs, how busy it is.
//!
//! While writes are paused (CLIENT PAUSE, the hand-over of a failover) SCAN succeeds, hides expired keys and deletes
//! none. Its reply does not show that, so the state is sampled beside it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use super::{
    commands::CommandTimes,
    removals::KeyspaceCounters,
    settings::{add_import_mode, take_import_mode},
};
use crate::link::{Info, Link, LinkError, Pipeline, Replies, Reply};

/// Whether the server deletes expired keys now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expiry {
    /// It does.
    Live,
    /// It does not.
    Paused,
    /// The server does not report it (Redis up to 8.2 at least, Valkey before 8.1, or where INFO is refused).
    #[default]
    Unknown,
}

/// Statistics of the commands that pause expiry. Redis 6.2 counts all of CLIENT as one.
const PAUSING: [&str; 3] = ["client|pause", "failover", "shutdown"];

/// The sections of INFO that hold the state.
const SECTIONS: [&str; 6] = ["clients", "replication", "persistence", "stats", "cpu", "commandstats"];

/// The section that lists the databases.
const KEYSPACE: &str = "keyspace";

/// The same, with the sections that say how the server expires keys.
const SECTIONS_WITH_EXPIRY: [&str; 10] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "commandstats",
    "cluster",
    "keyspace",
];

/// Statistics of the commands that migrate whole slots away from a node (Valkey 9).
const MOVING_SLOTS: [&str; 2] = ["cluster|migrateslots", "cluster|syncslots"];

/// What a server counts of its SCAN calls, and its CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanStatistics {
    /// SCAN calls of all clients.
    pub calls: u64,
    /// The time that they took.
    pub scan: Duration,
    /// Calls of any command, of all clients.
    pub commands: u64,
    /// CPU of the main thread since the server's start, where the server reports it.
    pub cpu: Option<Duration>,
}

impl ScanStatistics {
    /// Asks the server; `None`: it does not report them.
    pub fn sample(link: &mut Link) -> Result<Option<Self>, LinkError> {
        Ok(link.info(&["cpu", "commandstats"])?.and_then(|info| Self::read(&info)))
    }

    fn read(info: &Info) -> Option<Self> {
        // No SCAN has run yet where only others are counted.
        let (calls, micros) = info.command("scan").or_else(|| info.has_command_statistics().then_some((0, 0)))?;
        let scan = Duration::from_micros(micros);
        Some(Self { calls, scan, commands: info.all_commands(), cpu: info.main_thread_cpu() })
    }
}

/// What a server counts of the iterations of its event loop (since Redis 7.2): a client waits for one to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLoop {
    iterations: u64,
    busy: Duration,
}

impl EventLoop {
    pub(crate) fn read(info: &Info) -> Option<Self> {
        let busy = Duration::from_micros(info.number("eventloop_duration_sum")?);
        Some(Self { iterations: info.number("eventloop_cycles")?, busy })
    }

    /// Returns how long an iteration took since `before` in the mean, the wait for events not counted; `None`: there was none,
    /// or the counters were reset.
    pub fn mean_since(self, before: Self) -> Option<Duration> {
        let iterations = self.iterations.checked_sub(before.iterations).filter(|iterations| *iterations > 0)?;
        Some(self.busy.checked_sub(before.busy)?.div_f64(iterations as f64))
    }

    /// Returns how long all iterations together took since `before`; `None`: the counters were reset.
    pub fn busy_since(self, before: Self) -> Option<Duration> {
        self.busy.checked_sub(before.busy)
    }
}

/// State of a server at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerState {
    /// Whether expired keys are deleted.
    pub expiry: Expiry,
    /// Commands so far that pause expiry, and slot migrations that have ended. Only this shows a pause that began and
    /// ended between two samples.
    pub pauses: u64,
    /// Whether a background save runs: every memory page that changes meanwhile is copied.
    pub saving: bool,
    /// CPU of the thread that serves clients, since the server's start, where the server reports it.
    pub main_thread_cpu: Option<Duration>,
    /// The same, or CPU of the whole process where the server does not report it.
    pub cpu: Option<Duration>,
    /// What SCAN calls cost, where the server reports it.
    pub scan: Option<ScanStatistics>,
    /// Iterations of the event loop, where the server reports them.
    pub event_loop: Option<EventLoop>,
    /// How long commands take, where the server reports that.
    pub commands: CommandTimes,
    /// Whether deletes go to an append-only file.
    pub is_appending: bool,
    /// What the server counts of the changes of its keys, where the sample asked for that.
    pub counters: Option<KeyspaceCounters>,
}

/// What a sample asks for beside the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// What the server counts of the changes of its keys.
    pub counters: bool,
    /// Whether the server is in import mode.
    pub import_mode: bool,
}

impl ServerState {
    /// Samples the state.
    pub fn sample(link: &mut Link) -> Result<Self, LinkError> {
        Ok(Self::sample_with(link, Asked::default())?.0)
    }

    /// Samples the state with what is asked beside it, and returns whether the server is in import mode, if that is asked.
    pub fn sample_with(link: &mut Link, asked: Asked) -> Result<(Self, bool), LinkError> {
        let mut pipeline = Pipeline::default();
        Self::add(&mut pipeline, asked.counters);
        if asked.import_mode {
            add_import_mode(&mut pipeline);
        }
        let mut replies = link.ask(&pipeline)?;
        let state = Self::take(&mut replies, link, asked.counters)?;
        Ok((state, asked.import_mode && take_import_mode(&mut replies)?))
    }

    /// Adds the commands of a sample, with the counters of keys where `counts`.
    pub(super) fn add(pipeline: &mut Pipeline, counts: bool) {
        pipeline.add_info(&SECTIONS);
        if counts {
            pipeline.add_info(&[KEYSPACE]);
        }
    }

    /// Takes the replies. `link` is asked for slot migrations where there were any.
    pub(super) fn take(replies: &mut Replies, link: &mut Link, counts: bool) -> Result<Self, LinkError> {
        match replies.info(SECTIONS.len() + usize::from(counts))? {
            Some(info) => Self::of(&info, link),
            None => Ok(Self::default()),
        }
    }

    /// Adds the commands of a sample that also says how the server expires keys.
    pub fn add_with_expiry(pipeline: &mut Pipeline) {
        pipeline.add_info(&SECTIONS_WITH_EXPIRY);
    }

    /// Takes the replies, and returns the INFO reply beside the state; `None`: INFO is refused. `link` is asked for slot migrations
    /// where there were any.
    pub fn take_with_expiry(replies: &mut Replies, link: &mut Link) -> Result<Option<(Self, Info)>, LinkError> {
        match replies.info(SECTIONS_WITH_EXPIRY.len())? {
            Some(info) => Ok(Some((Self::of(&info, link)?, info))),
            None => Ok(None),
        }
    }

    /// Returns the state by what INFO reports. `link` is asked for slot migrations where there were any.
    fn of(info: &Info, link: &mut Link) -> Result<Self, LinkError> {
        let handing_over = info.text("master_failover_state").is_some_and(|state| state != "no-failover");
        let expiry = match info.text("paused_actions") {
            _ if handing_over => Expiry::Paused,
            Some("none") => Expiry::Live,
            Some(_) => Expiry::Paused,
            None => Expiry::Unknown,
        };
        let migrations = match MOVING_SLOTS.into_iter().any(|command| info.command(command).is_some()) {
            true => Migrations::ask(link)?,
            false => Migrations::default(),
        };
        let expiry = if migrations.pausing { Expiry::Paused } else { expiry };
        let pauses = PAUSING
            .into_iter()
            .filter_map(|command| info.command(command))
            .map(|(calls, _)| calls)
            .fold(migrations.ended, u64::wrapping_add);
        Ok(Self {
            expiry,
            pauses,
            saving: is_saving(info),
            main_thread_cpu: info.main_thread_cpu(),
            cpu: info.cpu(),
            scan: ScanStatistics::read(info),
            event_loop: EventLoop::read(info),
            commands: CommandTimes::read(info),
            is_appending: info.text("aof_enabled") == Some("1"),
            counters: KeyspaceCounters::read(info),
        })
    }

    /// Samples only whether a background save runs, which is cheap enough to do often.
    pub fn is_saving(link: &mut Link) -> Result<bool, LinkError> {
        Ok(link.info(&["persistence"])?.is_some_and(|info| is_saving(&info)))
    }
}

/// Slot migrations away from a node. Each pauses expiry during its hand-over, for a moment that may fall between two
/// samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Migrations {
    pausing: bool,
    /// Changes whenever another one ends, even when the server's list is full and drops its oldest.
    ended: u64,
}

impl Migrations {
    /// Asks the server. Where that is refused, only the samples themselves show a pause.
    fn ask(link: &mut Link) -> Result<Self, LinkError> {
        match link.call(&[b"CLUSTER", b"GETSLOTMIGRATIONS"]) {
            Ok(reply) => Ok(Self::read(&reply)),
            Err(LinkError::Server(_)) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn read(reply: &Reply) -> Self {
        let Reply::Array(migrations) = reply else { return Self::default() };
        let away = migrations.iter().filter(|one| field(one, "operation") == Some("EXPORT"));
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

/// Returns a value in a reply of alternating names and values.
fn field<'a>(map: &'a Reply, name: &str) -> Option<&'a str> {
    let Reply::Array(words) = map else { return None };
    words.chunks_exact(2).find(|pair| pair[0].text() == Some(name))?[1].text()
}

fn is_saving(info: &Info) -> bool {
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

    fn migrations(all: &[Reply]) -> Migrations {
        Migrations::read(&Reply::Array(all.to_vec()))
    }

    #[test]
    fn the_hand_over_of_slots_pauses_expiry() {
        for (state, pausing) in [("snapshotting", false), ("failover-paused", true), ("failover-granted", true)] {
            assert_eq!(migrations(&[one("a", "EXPORT", state)]), Migrations { pausing, ended: 0 });
            assert_eq!(migrations(&[one("a", "IMPORT", state)]), Migrations::default(), "the other node pauses");
        }
    }

    #[test]
    fn each_migration_that_ends_changes_the_count_even_when_the_list_is_full() {
        let before = migrations(&[one("a", "EXPORT", "success"), one("b", "EXPORT", "snapshotting")]);
        assert_ne!(before.ended, migrations(&[one("a", "EXPORT", "success"), one("b", "EXPORT", "failed")]).ended);
        assert_ne!(before.ended, migrations(&[one("b", "EXPORT", "success")]).ended);
        assert_eq!(before.ended, migrations(&[one("a", "EXPORT", "success"), one("c", "IMPORT", "success")]).ended);
    }
}
