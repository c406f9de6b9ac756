//! How many keys others than the scan have removed meanwhile, at most, as the server counts it. Pure.
//!
//! A key that a pass has neither returned nor reclaimed was removed before the pass came to it, or it was left out. Whether
//! clients can have removed so many need not be guessed: the server counts the keys that expire and are evicted, and the
//! changes that commands make. Each key that a command adds or removes is one change at least, so that a server with as many
//! new keys as changes has lost none to commands.

use std::collections::HashMap;

use crate::link::{Info, saturating_sum};

/// Most databases of a server whose keys are counted in every sample: each is a line of INFO.
const MAX_DATABASES: usize = 64;
/// Part of the changes between two samples by which the counters may differ, 0–1, and the keys beside it: the sections of INFO
/// that hold them are read one after the other.
const SKEW: f64 = 0.02;
const SKEWED_KEYS: u64 = 16;

/// What a server counts of the changes of its keys, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyspaceCounters {
    /// Keys of all databases.
    pub keys: u64,
    /// Keys that were removed since the start because they expired, by whatever met them, or were evicted.
    pub removed: u64,
    /// Fields of hashes that have expired: with its last field a hash goes as well.
    pub fields: u64,
    /// Changes by commands since the last save, each added or removed key one at least.
    pub changes: u64,
    /// When that save was, seconds since 1970.
    pub saved_at: u64,
    /// Whether the next one is under way.
    pub is_saving: bool,
    /// Commands so far. CONFIG RESETSTAT resets this one together with `removed`.
    pub commands: u64,
}

impl KeyspaceCounters {
    /// Reads the counters (sections persistence, stats and keyspace); `None`: the server does not report all of them.
    pub(super) fn read(info: &Info) -> Option<Self> {
        let fields = |name: &str| info.number::<u64>(name).unwrap_or(0);
        info.lists_databases().then_some(Self {
            keys: saturating_sum(info.keyspace().iter().map(|line| line.keys)),
            removed: info.number::<u64>("expired_keys")?.saturating_add(info.number("evicted_keys")?),
            // The two engines have different names for it.
            fields: fields("expired_fields").saturating_add(fields("expired_subkeys")),
            changes: info.number("rdb_changes_since_last_save")?,
            saved_at: info.number("rdb_last_save_time")?,
            is_saving: info.text("rdb_bgsave_in_progress") == Some("1"),
            commands: info.number("total_commands_processed")?,
        })
    }

    /// Returns the keys that others than the scan have removed since `before`, at most, counted or not: a server that drops whole
    /// slots counts no change. `own`: those that the scan has reclaimed. `None`: the counters were reset, or contradict each other.
    fn removed_since(&self, before: &Self, own: u64) -> Option<u64> {
        self.commands.checked_sub(before.commands)?;
        let removed = self.removed.checked_sub(before.removed)?;
        let fields = self.fields.checked_sub(before.fields)?;
        let is_saved = self.saved_at != before.saved_at || self.changes < before.changes;
        let changes = match is_saved {
            false => self.changes - before.changes,
            // What is left are the changes since the save began, which was before the last sample.
            true if before.is_saving => self.changes,
            true => return None,
        };
        let skew = ((changes as f64 * SKEW) as u64 + SKEWED_KEYS).min(changes);
        // What commands have added beyond what they have removed. Less than nothing: what was dropped is in it as well.
        let added = i128::from(self.keys) - i128::from(before.keys) + i128::from(removed);
        let dropped = u64::try_from((-added).max(0)).unwrap_or(u64::MAX);
        let added = u64::try_from(added.max(0)).unwrap_or(u64::MAX);
        let all = removed.saturating_add(fields).saturating_add(changes);
        let is_possible = added <= changes.saturating_add(skew) && own <= all.saturating_add(skew);
        let most = all.saturating_add(dropped).saturating_add(skew);
        is_possible.then(|| most.saturating_sub(added).saturating_sub(own))
    }
}

/// Whether the removals of a server can be counted in every sample, by its INFO reply: other engines count differently.
pub fn are_counted(info: &Info) -> bool {
    info.is_redis_or_valkey() && info.keyspace().len() <= MAX_DATABASES
}

/// Keys that others than the scan remove, from sample to sample.
#[derive(Debug, Clone, Default)]
pub struct Removals {
    last: Option<KeyspaceCounters>,
    /// Keys that the scan has reclaimed since the last sample.
    own: u64,
    total: Total,
    /// The total when the pass over each database began.
    begun: HashMap<u32, Total>,
}

/// What others have removed up to some sample.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    keys: u64,
    /// Samples since whose predecessors it is unknown.
    gaps: u64,
}

impl Removals {
    /// Begins to count at a sample of the counters; `None`: the server does not report them.
    pub fn starting_at(sample: Option<KeyspaceCounters>) -> Self {
        Self { last: sample, ..Self::default() }
    }

    /// Records keys that the scan has reclaimed.
    pub fn record_reclaimed(&mut self, keys: u64) {
        self.own = self.own.saturating_add(keys);
    }

    /// Records a sample that was taken while no slice was under way.
    pub fn record(&mut self, sample: Option<KeyspaceCounters>) {
        let own = std::mem::take(&mut self.own);
        let both = sample.zip(std::mem::replace(&mut self.last, sample));
        match both.and_then(|(now, before)| now.removed_since(&before, own)) {
            Some(keys) => self.total.keys = self.total.keys.saturating_add(keys),
            None => self.total.gaps += 1,
        }
    }

    /// Records that a pass over a database begins.
    pub fn begin_pass(&mut self, database: u32) {
        self.begun.insert(database, self.total);
    }

    /// Returns how many keys of all databases others have removed from the start of the pass over a database to the last sample,
    /// at most; `None`: that is unknown, or the pass began on an earlier connection.
    pub fn since_start_of(&self, database: u32) -> Option<u64> {
        let begun = self.begun.get(&database).filter(|begun| begun.gaps == self.total.gaps)?;
        Some(self.total.keys - begun.keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: KeyspaceCounters = KeyspaceCounters {
        keys: 1_000,
        removed: 70,
        fields: 3,
        changes: 500,
        saved_at: 1_000_000,
        is_saving: false,
        commands: 9_000,
    };

    /// Returns what others have removed between two samples, at most.
    fn removed(before: KeyspaceCounters, now: KeyspaceCounters, own: u64) -> Option<u64> {
        let mut removals = Removals::starting_at(Some(before));
        removals.begin_pass(0);
        removals.record_reclaimed(own);
        removals.record(Some(now));
        removals.since_start_of(0)
    }

    /// Of these changes the counters may be wrong by so many.
    fn skew(changes: u64) -> u64 {
        (changes / 50 + SKEWED_KEYS).min(changes)
    }

    #[test]
    fn on_a_quiet_server_others_remove_nothing() {
        assert_eq!(removed(START, START, 0), Some(0));
        let reclaimed = KeyspaceCounters { keys: 900, removed: 170, ..START };
        assert_eq!(removed(START, reclaimed, 100), Some(0), "what the scan reclaims is its own");
    }

    #[test]
    fn keys_that_expire_or_are_evicted_and_hashes_that_lose_their_last_field_count() {
        let now = KeyspaceCounters { keys: 900, removed: 170, fields: 13, ..START };
        assert_eq!(removed(START, now, 40), Some(70));
    }

    #[test]
    fn changes_count_as_removed_keys_unless_as_many_were_added() {
        let overwritten = KeyspaceCounters { changes: 1_500, ..START };
        assert_eq!(removed(START, overwritten, 0), Some(1_000 + skew(1_000)));
        let grown = KeyspaceCounters { changes: 1_500, keys: 2_000, ..START };
        assert_eq!(removed(START, grown, 0), Some(skew(1_000)), "every change is a new key");
        // As many new keys as expire: commands remove none.
        let steady = KeyspaceCounters { changes: 1_500, removed: 1_070, ..START };
        assert_eq!(removed(START, steady, 0), Some(1_000 + skew(1_000)));
    }

    #[test]
    fn keys_that_vanish_without_being_counted_are_removed_as_well() {
        let dropped = KeyspaceCounters { keys: 600, ..START };
        assert_eq!(removed(START, dropped, 0), Some(400));
        let dropped_and_expired = KeyspaceCounters { keys: 500, removed: 170, ..START };
        assert_eq!(removed(START, dropped_and_expired, 30), Some(470));
        // Commands may have added as many keys as there are changes, so that more were dropped.
        let written = KeyspaceCounters { changes: 700, ..dropped };
        assert_eq!(removed(START, written, 0), Some(600 + skew(200)));
    }

    #[test]
    fn a_save_that_was_under_way_leaves_the_changes_since_it_began() {
        let saving = KeyspaceCounters { is_saving: true, ..START };
        let saved = KeyspaceCounters { changes: 40, saved_at: 1_000_009, ..START };
        assert_eq!(removed(saving, saved, 0), Some(40 + skew(40)));
        assert_eq!(removed(START, saved, 0), None, "it began and ended between two samples");
    }

    #[test]
    fn counters_that_were_reset_or_contradict_each_other_say_nothing() {
        for now in [
            KeyspaceCounters { removed: 0, ..START },
            KeyspaceCounters { commands: 1, ..START },
            // A server that counts no changes.
            KeyspaceCounters { keys: 1_100, ..START },
        ] {
            assert_eq!(removed(START, now, 0), None, "{now:?}");
        }
        assert_eq!(removed(START, START, 1), None, "a reclaimed key that the server has not counted");
    }

    #[test]
    fn a_pass_that_began_on_an_earlier_connection_and_a_server_that_counts_nothing_are_unknown() {
        let mut removals = Removals::starting_at(None);
        assert_eq!(removals.since_start_of(0), None);
        removals.begin_pass(0);
        removals.record(None);
        assert_eq!(removals.since_start_of(0), None);
    }

    #[test]
    fn the_counters_of_every_supported_version_are_read() {
        let fields = "rdb_changes_since_last_save:500\r\nrdb_bgsave_in_progress:0\r\nrdb_last_save_time:1000000\r\n\
            expired_keys:60\r\nevicted_keys:10\r\ntotal_commands_processed:9000\r\n";
        let keyspace = "# Keyspace\r\ndb0:keys=600,expires=0,avg_ttl=0\r\ndb3:keys=400,expires=9,avg_ttl=5\r\n";
        for name in ["expired_subkeys", "expired_fields"] {
            let info = Info::read(&format!("{fields}{name}:3\r\n{keyspace}"));
            assert_eq!(KeyspaceCounters::read(&info), Some(START), "{name}");
        }
        assert_eq!(KeyspaceCounters::read(&Info::read(fields)), None, "the databases are not listed");
        assert!(are_counted(&Info::read("redis_version:6.2.14\r\n")));
        assert!(!are_counted(&Info::read("redis_version:7.4.0\r\ndragonfly_version:df-1.31.0\r\n")));
    }
}
