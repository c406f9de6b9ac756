//! Data sets with exact numbers of live and stale keys.
//!
//! The server's expiry cycle is switched off (`DEBUG SET-ACTIVE-EXPIRE 0`), so a stale key stays in memory until a command
//! touches it, and the number of reclaimed keys can be compared exactly.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Connection;

use crate::condition::eventually;
use crate::key::{Kind, Names};
use crate::server::Server;

/// Number of keys per pipeline.
const KEYS_PER_PIPELINE: u64 = 1_000;
/// Approximate size of a pipeline; a pipeline of large keys has fewer keys.
const BYTES_PER_PIPELINE: usize = 8 * 1_024 * 1_024;
/// Time from the PEXPIREAT to the expiry of a stale key, milliseconds. A time in the past would delete the key at once, so this must
/// be longer than a pipeline of PEXPIREATs takes; if it was not, the keys are loaded again with a longer time.
const LEAD_MS: u64 = 500;
/// Longest wait for the expiry of the stale keys.
const EXPIRY_TIMEOUT: Duration = Duration::from_secs(20);
const DAY_MS: u64 = 86_400_000;

/// Description of a data set. A setting (`prefix`, `database`, `kind`, `names`, `elements`, `value_bytes`) applies to the
/// keys that are added after it:
///
/// ```no_run
/// # use keysweep_harness::{DataSet, Flavor, Kind, Names, Server};
/// # let server = Server::start(Flavor::Valkey91);
/// DataSet::new()
///     .live(800).stale(200)
///     .names(Names::Binary).stale(10)
///     .database(3).names(Names::Plain).kind(Kind::Hash).elements(1_000_000).stale(1)
///     .load(&server);
/// ```
#[derive(Clone, Debug)]
pub struct DataSet {
    next: Batch,
    batches: Vec<Batch>,
}

/// A number of keys with the same settings.
#[derive(Clone, Debug)]
struct Batch {
    prefix: String,
    database: u32,
    kind: Kind,
    names: Names,
    elements: usize,
    value_bytes: usize,
    is_stale: bool,
    keys: u64,
}

/// Keys that a load has added to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Number of keys that do not expire during a test: every second one has a TTL of a day, the others have none.
    pub live: u64,
    /// Number of keys that have expired and are still in memory.
    pub stale: u64,
    /// Counts of each database that received keys.
    pub per_database: BTreeMap<u32, Counts>,
}

impl Loaded {
    /// Returns how many of the stale keys of a data set without a prefix a server holds. MEMORY USAGE reads a key without expiring
    /// it.
    #[must_use]
    pub fn stale_held_by(&self, server: &Server) -> u64 {
        let mut pipeline = redis::pipe();
        for number in self.live..self.live + self.stale {
            pipeline.cmd("MEMORY").arg("USAGE").arg(format!("stale:{number}"));
        }
        let sizes: Vec<Option<u64>> = pipeline.query(&mut server.connection()).expect("sizes or nothing");
        sizes.iter().flatten().count() as u64
    }
}

/// Counts of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of keys that do not expire during a test.
    pub live: u64,
    /// Number of keys that have expired and are still in memory.
    pub stale: u64,
}

impl Default for DataSet {
    fn default() -> Self {
        let next = Batch {
            prefix: String::new(),
            database: 0,
            kind: Kind::String,
            names: Names::Plain,
            elements: 3,
            value_bytes: 16,
            is_stale: false,
            keys: 0,
        };
        Self { next, batches: Vec::new() }
    }
}

impl DataSet {
    /// Returns an empty data set: database 0, strings of 16 bytes, plain names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the prefix of the key names. A second load into a server needs another prefix than the first.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.next.prefix = prefix.into();
        self
    }

    /// Sets the database.
    #[must_use]
    pub fn database(mut self, index: u32) -> Self {
        self.next.database = index;
        self
    }

    /// Sets the type of the keys.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.next.kind = kind;
        self
    }

    /// Sets the form of the key names.
    #[must_use]
    pub fn names(mut self, names: Names) -> Self {
        self.next.names = names;
        self
    }

    /// Sets the number of fields, members or entries of each collection.
    #[must_use]
    pub fn elements(mut self, elements: usize) -> Self {
        assert!(elements > 0, "an empty collection is no key");
        self.next.elements = elements;
        self
    }

    /// Sets the size of a value, or of each element of a collection, in bytes.
    #[must_use]
    pub fn value_bytes(mut self, bytes: usize) -> Self {
        self.next.value_bytes = bytes;
        self
    }

    /// Adds keys that do not expire during a test.
    #[must_use]
    pub fn live(self, keys: u64) -> Self {
        self.add(keys, false)
    }

    /// Adds keys that are stale when the load ends.
    #[must_use]
    pub fn stale(self, keys: u64) -> Self {
        self.add(keys, true)
    }

    fn add(mut self, keys: u64, is_stale: bool) -> Self {
        self.batches.push(Batch { keys, is_stale, ..self.next.clone() });
        self
    }

    /// Switches the server's expiry cycle off for the rest of its life, loads all keys, and waits until the stale keys have expired
    /// by the server's clock.
    ///
    /// # Panics
    /// If a command fails or the number of keys in the server is wrong afterwards.
    pub fn load(self, server: &Server) -> Loaded {
        let mut connection = server.connection();
        redis::cmd("DEBUG").arg("SET-ACTIVE-EXPIRE").arg(0).exec(&mut connection).expect("DEBUG is allowed");

        let mut per_database = BTreeMap::<u32, Counts>::new();
        for batch in &self.batches {
            let counts = per_database.entry(batch.database).or_default();
            *(if batch.is_stale { &mut counts.stale } else { &mut counts.live }) += batch.keys;
        }
        let before: Vec<u64> = per_database.keys().map(|database| size(&mut connection, *database)).collect();

        let (mut number, mut deadline) = (0, None);
        for batch in &self.batches {
            select(&mut connection, batch.database);
            let end = number + batch.keys;
            while number < end {
                let some = number..end.min(number + batch.keys_per_pipeline());
                number = some.end;
                let keys: Vec<_> = some.map(|n| (n, batch.names.name(&batch.prefix, batch.is_stale, n))).collect();
                let at = batch.load(&mut connection, &keys, LEAD_MS);
                if batch.is_stale {
                    deadline = deadline.max(Some(at));
                }
            }
        }
        if let Some(deadline) = deadline {
            eventually("expiry of the stale keys", EXPIRY_TIMEOUT, || {
                (server_ms(&mut connection) > deadline).then_some(())
            });
        }

        for ((database, counts), before) in per_database.iter().zip(before) {
            let added = size(&mut connection, *database).checked_sub(before);
            let meant = counts.live + counts.stale;
            assert_eq!(added, Some(meant), "keys added to database {database}; a second load needs another prefix");
        }
        Loaded {
            live: per_database.values().map(|counts| counts.live).sum(),
            stale: per_database.values().map(|counts| counts.stale).sum(),
            per_database,
        }
    }
}

impl Batch {
    fn keys_per_pipeline(&self) -> u64 {
        let elements = if self.kind == Kind::String { 1 } else { self.elements };
        let name = if self.names == Names::Long { Names::LONG } else { 64 };
        let keys = BYTES_PER_PIPELINE / (name + elements * (self.value_bytes + 32));
        u64::try_from(keys).expect("usize fits").clamp(1, KEYS_PER_PIPELINE)
    }

    /// Loads the keys first and sets their TTLs in a second pipeline, so that the time that the values take does not use up the
    /// TTL. Returns the time at which the keys expire, milliseconds by the server's clock.
    fn load(&self, connection: &mut Connection, keys: &[(u64, Vec<u8>)], lead: u64) -> u64 {
        let mut fill = redis::pipe();
        for (_, key) in keys {
            self.kind.fill(&mut fill, key, self.elements, self.value_bytes);
        }
        fill.exec(connection).expect("keys can be loaded");

        let at = server_ms(connection) + if self.is_stale { lead } else { DAY_MS };
        let mut expire = redis::pipe();
        for (_, key) in keys.iter().filter(|(number, _)| self.is_stale || number % 2 == 0) {
            expire.cmd("PEXPIREAT").arg(key).arg(at).ignore();
        }
        expire.exec(connection).expect("keys can be given a TTL");
        if server_ms(connection) < at {
            return at;
        }
        // The machine stalled, and the last keys may have been deleted at once.
        let mut delete = redis::pipe();
        for (_, key) in keys {
            delete.cmd("DEL").arg(key).ignore();
        }
        delete.exec(connection).expect("keys can be deleted");
        self.load(connection, keys, (lead * 4).max(LEAD_MS))
    }
}

fn select(connection: &mut Connection, database: u32) {
    redis::cmd("SELECT").arg(database).exec(connection).expect("the database exists");
}

fn size(connection: &mut Connection, database: u32) -> u64 {
    select(connection, database);
    redis::cmd("DBSIZE").query(connection).expect("DBSIZE answers a number")
}

/// Returns the server's clock in milliseconds.
fn server_ms(connection: &mut Connection) -> u64 {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(connection).expect("TIME answers two numbers");
    seconds * 1_000 + micros / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binaries::Flavor;

    #[test]
    fn keys_whose_ttl_was_set_too_late_are_loaded_again() {
        let server = Server::start(Flavor::Valkey91);
        let mut connection = server.connection();
        let set = DataSet::new().kind(Kind::List).elements(3).stale(1_000);
        let keys: Vec<_> = (0..1_000).map(|number| (number, format!("key:{number}").into_bytes())).collect();
        redis::cmd("DEBUG").arg("SET-ACTIVE-EXPIRE").arg(0).exec(&mut connection).expect("DEBUG is allowed");
        let begun = server_ms(&mut connection);
        // A time of 0 ms has always passed when the keys are loaded.
        let at = set.batches[0].load(&mut connection, &keys, 0);
        assert!(at >= begun + LEAD_MS, "the keys are loaded again with a longer time");
        assert_eq!(size(&mut connection, 0), 1_000);
    }
}
