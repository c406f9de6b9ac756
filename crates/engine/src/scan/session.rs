//! Connecting to the primary of a shard: pre-flight checks, permissions, databases, and whether the checkpoint still
//! holds for this server process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{shard_map::Location, sweeper::ShardSweeper};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Capabilities, Info, Link, RoleView},
    pacing::PrimaryProfile,
    record::{Counters, DatabaseCheckpoint, ShardStatus},
    server::{self, Check, Expiry, ExpirySettings, Inquiry, LazyFreeRegistry, ServerState, Setting, Verdict},
    speed::DISTANT,
    target::{Address, Mode},
    topology::{self, Primary, SlotSet},
};

/// Most databases of all shards of a scan: each takes some 300 bytes of the checkpoint, whose size has a bound.
const MAX_DATABASES: usize = 20_000;

/// A connection that is ready for slices.
pub(super) struct Session {
    pub address: Address,
    pub link: Link,
    /// Further connections, for several cursors at once.
    pub others: Vec<Link>,
    pub capabilities: Capabilities,
    /// Whether the server tells its time.
    pub tells_time: bool,
    pub role: RoleView,
    /// Whether each slot has a table of its own, which shapes the cursors.
    pub per_slot_tables: bool,
    pub settings: ExpirySettings,
    /// The server's INFO reply of the connection's start; empty where INFO is refused.
    pub info: Info,
    pub lazyfree: Option<LazyFreeLease>,
    /// The server's state of the connection's start, and when it was sampled.
    pub state: (ServerState, Instant),
    /// Keys that expire a second, once that was measured.
    pub expired_per_second: Option<f64>,
    /// Slices run without a transaction until then, because the server is out of memory; `None`: it is not.
    pub plain_until: Option<Instant>,
}

/// The recorded use of the server's setting for lazy frees, to be released at the end.
pub(super) struct LazyFreeLease {
    pub registry: Arc<dyn LazyFreeRegistry>,
    pub run_id: String,
}

impl Session {
    /// Returns how many keys a database held when the connection was made; `None`: the server does not report it.
    pub fn keys(&self, database: u32) -> Option<u64> {
        self.info.database(database).map(|line| line.keys)
    }

    /// Whether a database had a key with a TTL when the connection was made, as far as the server reports it.
    pub fn may_expire(&self, database: u32) -> bool {
        self.info.database(database).is_none_or(|line| line.expires > 0)
    }

    /// Returns the mean TTL that is left in a database; `None`: the server does not report it.
    pub fn mean_ttl(&self, database: u32) -> Option<Duration> {
        self.info.database(database)?.mean_ttl
    }
}

/// Returns what INFO (sections stats and keyspace) counts for the scanned databases; `None`: it is refused.
pub(super) fn counters(info: &Info, databases: &[DatabaseCheckpoint]) -> Option<Counters> {
    let is_scanned = |number: u32| databases.iter().any(|scanned| scanned.database == number);
    let lines = info.keyspace().into_iter().filter(|line| is_scanned(line.database));
    let counters = Counters { expired: info.number("expired_keys")?, ..Counters::default() };
    Some(lines.fold(counters, |sum, line| Counters {
        keys: sum.keys.saturating_add(line.keys),
        with_ttl: sum.with_ttl.saturating_add(line.expires),
        ..sum
    }))
}

impl ShardSweeper<'_> {
    /// Connects to the shard's current primary.
    fn find_primary(&mut self) -> Result<(Primary, SlotSet), ShardError> {
        if matches!(self.target().mode, Mode::Server) {
            return Ok((topology::primary(self.connector)?, SlotSet::default()));
        }
        match self.shard_map.locate(self.shard) {
            Location::At(node) => Ok((topology::connect(&node, self.connector)?, node.slots)),
            Location::Absorbed => Err(ShardError::Absorbed),
            Location::Unknown => Err(ShardError::Demoted),
        }
    }

    /// Connects to the primary, and drops what the checkpoint holds for another process or address.
    pub fn connect(&mut self) -> Result<Session, ShardError> {
        let (mut primary, slots) = self.find_primary()?;
        let moved = !self.state().checkpoint.is_at(&primary.address);
        if moved {
            // Another server has other replicas, other permissions and other clients.
            self.profile = PrimaryProfile::default();
        }
        primary.link.set_reply_timeout(self.options.reply_timeout);
        let inquiry = Inquiry::make(&mut primary.link, &self.target().mode, self.stop());
        let inquiry = inquiry.map_err(|error| ShardError::at(&primary.address, error))?;
        if !self.profile.is_checked() {
            let checks = server::examine(&mut primary, &inquiry, self.connector, self.options.limits);
            self.apply_checks(&primary.address, checks.map_err(|error| ShardError::at(&primary.address, error))?)?;
        }
        let Primary { address, mut link, role } = primary;
        let Inquiry { info, rights, skew, settings, state: sample, sampled, .. } = inquiry;
        let mut capabilities = rights.capabilities;
        self.review_reply_cap(&mut link, &address)?;
        if role == RoleView::Unknown {
            self.warn(format!("{address} does not report its role; it is treated as a primary"));
        }
        let run_id = info.as_ref().and_then(Info::run_id);
        let databases = match info.as_ref().filter(|info| info.lists_databases()) {
            Some(info) => info.keyspace().into_iter().map(|line| (line.database, line.keys)).collect(),
            None => server::find_databases(&mut link, &address, capabilities, self.target().database)?,
        };
        let wanted = |database: u32| self.target().database.is_none_or(|only| only == database);
        let databases: Vec<(u32, u64)> = databases.into_iter().filter(|(database, _)| wanted(*database)).collect();
        if let Some((database, _)) = databases.iter().find(|(database, _)| *database != 0 && !capabilities.select) {
            let sentence = format!(
                "{address} refuses SELECT, without which database {database} cannot be scanned; grant +select, or name database 0 in the URL"
            );
            return Err(ShardError::Fatal(Failure::new(FailureKind::Denied, sentence)));
        }
        self.check_database_count(&address, databases.len())?;
        let info = info.unwrap_or_default();
        self.apply_check(&address, &settings.check())?;
        self.profile.plain_slices |= settings.nested_expiry == Setting::Off;
        capabilities.transaction &= !self.profile.plain_slices;
        // Later versions, and every Valkey, stop the clock during a transaction.
        let has_moving_clock = info.engine_version().is_some() && !info.is_since((0, 0), Some((7, 2)));
        let asks_time = has_moving_clock || link.round_trip() > DISTANT;
        capabilities.time = asks_time && capabilities.transaction && skew.is_some();
        let per_slot_tables = server::has_per_slot_tables(&info);

        let mut state = self.state();
        state.server = info.engine_version().map(|version| format!("{} {version}", info.engine()));
        state.status = ShardStatus::Scanning;
        state.exact &= capabilities.exact();
        state.slots_at_start = slots.clone();
        if moved && (state.checkpoint.address.is_some() || self.leads_elsewhere(&address)) {
            self.monitor.note(&format!("{} leads to the primary {address}, which is scanned", self.target()));
        }
        if moved || state.checkpoint.run_id.is_none() || state.checkpoint.run_id != run_id {
            let checkpoint = &mut state.checkpoint;
            (checkpoint.address, checkpoint.run_id, checkpoint.covered) = (Some(address.clone()), run_id, slots);
            state.reset(None);
        }
        // The slices since the last sample count, unless expiry may have been paused meanwhile. Without this a connection that
        // breaks every second would make no progress.
        match sample.expiry != Expiry::Paused && state.pauses_sampled == Some(sample.pauses) {
            true => state.commit(),
            false => state.roll_back(),
        }
        let checkpoint = &mut state.checkpoint;
        checkpoint.used_memory_before = checkpoint.used_memory_before.or(info.number("used_memory"));
        checkpoint.rss_before = checkpoint.rss_before.or(info.number("used_memory_rss"));
        if !per_slot_tables {
            checkpoint.restricted_to = None;
        }
        // Databases in the checkpoint without counters: an earlier run began the pass.
        let is_new = checkpoint.databases.is_empty();
        for (database, keys) in databases {
            if !checkpoint.databases.iter().any(|known| known.database == database) {
                checkpoint.databases.push(DatabaseCheckpoint { database, keys, ..DatabaseCheckpoint::default() });
            }
        }
        if is_new {
            state.counters = counters(&info, &state.checkpoint.databases).map(|counters| (counters, Instant::now()));
        }
        state.commit();
        drop(state);
        Ok(Session {
            address,
            link,
            others: Vec::new(),
            capabilities,
            tells_time: skew.is_some(),
            role,
            per_slot_tables,
            settings,
            info,
            lazyfree: None,
            state: (sample, sampled),
            expired_per_second: None,
            plain_until: None,
        })
    }

    /// Fails where all shards together have more databases than a checkpoint may list. `databases`: those of this shard.
    fn check_database_count(&self, address: &Address, databases: usize) -> Result<(), ShardError> {
        let shards = self.shard_map.shards();
        let others = shards.iter().filter(|shard| !std::ptr::eq(&raw const ***shard, self.shard));
        let all = others.map(|shard| shard.state().checkpoint.databases.len()).sum::<usize>() + databases;
        if all <= MAX_DATABASES {
            return Ok(());
        }
        let sentence = format!(
            "{address} and the other primaries have keys in more than {MAX_DATABASES} databases, the most that are scanned at once; name one in the URL"
        );
        Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)))
    }

    /// Whether the server in the URL has led to another one.
    fn leads_elsewhere(&self, address: &Address) -> bool {
        matches!(self.target().mode, Mode::Server) && address != self.target().seed()
    }

    /// Applies the pre-flight checks: warnings, the limit of reclaims, or a refusal.
    fn apply_checks(&mut self, address: &Address, checks: Vec<Check>) -> Result<(), ShardError> {
        checks.iter().try_for_each(|check| self.apply_check(address, check))?;
        self.profile.set_checked(checks.iter().find_map(Check::reclaims_cap));
        Ok(())
    }

    /// Applies one check: a warning or a refusal.
    pub fn apply_check(&self, address: &Address, check: &Check) -> Result<(), ShardError> {
        // In a cluster a warning names its primary.
        let prefix = if matches!(self.target().mode, Mode::Cluster) { format!("{address}: ") } else { String::new() };
        let remedy = check.remedy.as_deref().unwrap_or_default();
        match check.verdict {
            Verdict::Ok => {}
            // The sweep is about to turn the setting on.
            Verdict::Warning if check.is_about_freeing() && self.options.lazyfree.is_some() => {}
            Verdict::Slower | Verdict::Warning => {
                self.warn(format!("{prefix}{}: {}; {remedy}", check.name, check.finding));
            }
            Verdict::Refused if check.name == "rights" => {
                let sentence = format!("{address} cannot be scanned: {}; {remedy}", check.finding);
                return Err(ShardError::Fatal(Failure::new(FailureKind::Denied, sentence)));
            }
            Verdict::Refused if check.is_about_engine() => {
                let sentence = format!("{address} cannot be scanned: {}; {remedy}", check.finding);
                return Err(ShardError::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
            }
            Verdict::Refused => {
                let sentence = format!("{prefix}{}: {}; {remedy}", check.name, check.finding);
                return Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
            }
        }
        Ok(())
    }
}
