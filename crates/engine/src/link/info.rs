//! An INFO reply as fields.

use std::{collections::HashMap, num::IntErrorKind, time::Duration};

use super::{
    error::LinkError,
    memory::{Held, Kept},
};

/// Most fields that are kept. A server with all statistics, modules and 10,000 databases has some 12,000.
const MAX_FIELDS: usize = 20_000;
/// Most databases with keys.
const MAX_DATABASES: usize = 10_000;

/// Memory of a field beside its texts, bytes.
const FIELD: usize = 96;
/// Memory of what a scan or an estimate keeps of a database, bytes.
const DATABASE: usize = 1_024;

/// What greater counts of keys are taken for: no server has as many, and sums of a thousand of them do not overflow. JSON does not
/// carry the number exactly, so that it is shown as unknown.
const ABSURD: u64 = (1 << 53) + 1;
/// Most CPU time of a server that is believed, seconds: that of a thousand cores for a century.
const MAX_CPU_SECONDS: f64 = 3.2e12;
/// Longest run ID that is kept, characters.
const RUN_ID: usize = 64;
/// Longest version that is kept, characters; real ones have a dozen.
const VERSION: usize = 32;

/// Engines beside Redis and Valkey, and the field of their version.
const OTHER_ENGINES: [(&str, &str); 3] =
    [("dragonfly", "dragonfly_version"), ("kvrocks", "kvrocks_version"), ("garnet", "garnet_version")];

/// The fields of an INFO reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info(HashMap<String, String>, Kept);

/// One line of INFO's keyspace section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyspace {
    /// Number of the database.
    pub database: u32,
    /// Its keys, stale keys included.
    pub keys: u64,
    /// Keys with a TTL.
    pub expires: u64,
    /// Mean TTL that is left of these keys, by the server's samples; `None`: it has taken none.
    pub mean_ttl: Option<Duration>,
}

impl Info {
    /// Parses the text of an INFO reply. Removes control characters, which could drive a terminal.
    pub fn read(text: &str) -> Self {
        // Names of sections are kept as fields without a value.
        let fields = text
            .lines()
            .filter_map(|line| if line.starts_with("# ") { Some((line, "")) } else { line.split_once(':') })
            .take(MAX_FIELDS);
        let plain = |value: &str| value.trim().chars().filter(|c| !c.is_control()).collect();
        Self(fields.map(|(name, value)| (name.trim_end().to_owned(), plain(value))).collect(), Kept::default())
    }

    /// Returns itself with the memory that it takes from where the reply took its own, unless more databases hold keys than are
    /// scanned at once.
    pub(super) fn within(self, memory: &Held) -> Result<Self, LinkError> {
        let databases = self.0.iter().filter(|(name, value)| keyspace_line(name, value).is_some()).count();
        if databases > MAX_DATABASES {
            return Err(LinkError::TooManyDatabases(MAX_DATABASES));
        }
        let fields: usize = self.0.iter().map(|(name, value)| name.len() + value.len() + FIELD).sum();
        let kept = memory.share().take(fields + databases * DATABASE)?;
        Ok(Self(self.0, kept.into()))
    }

    /// Whether the reply lists the databases that hold keys: a server may leave the section out, and it may be empty.
    pub fn lists_databases(&self) -> bool {
        self.0.contains_key("# Keyspace") || !self.keyspace().is_empty()
    }

    /// Returns a field as text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// Returns a field as a number.
    pub fn number<T: std::str::FromStr>(&self, field: &str) -> Option<T> {
        self.text(field)?.parse().ok()
    }

    /// Returns the ID of the server process, cut after 64 characters; real ones have 40.
    pub fn run_id(&self) -> Option<String> {
        self.text("run_id").map(|id| id.chars().take(RUN_ID).collect())
    }

    /// Returns the databases that hold keys, by number.
    pub fn keyspace(&self) -> Vec<Keyspace> {
        let mut databases: Vec<Keyspace> =
            self.0.iter().filter_map(|(name, value)| keyspace_line(name, value)).collect();
        databases.sort_by_key(|line| line.database);
        databases
    }

    /// Returns a database that holds keys.
    pub fn database(&self, number: u32) -> Option<Keyspace> {
        let name = format!("db{number}");
        keyspace_line(&name, self.text(&name)?)
    }

    /// Returns the CPU of the thread that serves clients, since the start; `None` on servers that do not report it.
    pub fn main_thread_cpu(&self) -> Option<Duration> {
        self.seconds("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
    }

    /// Returns the CPU of the whole process without its children, since the start.
    pub fn process_cpu(&self) -> Option<Duration> {
        self.seconds("used_cpu_user", "used_cpu_sys")
    }

    /// Returns the CPU of the thread that serves clients, or of the whole process where the server does not report it.
    pub fn cpu(&self) -> Option<Duration> {
        self.main_thread_cpu().or_else(|| self.process_cpu())
    }

    /// Returns how often a command was called, and the microseconds that its calls took.
    pub fn command(&self, name: &str) -> Option<(u64, u64)> {
        let mut fields = self.text(&format!("cmdstat_{name}"))?.split(',');
        let mut number = |field: &str| fields.next()?.strip_prefix(field)?.strip_prefix('=')?.parse().ok();
        Some((number("calls")?, number("usec")?))
    }

    /// Returns how often any command was called, as far as its statistics are reported.
    pub fn all_commands(&self) -> u64 {
        self.commands().fold(0, |sum, (_, (calls, _))| sum.wrapping_add(calls))
    }

    /// Returns the commands whose statistics are reported, each with those.
    pub fn commands(&self) -> impl Iterator<Item = (&str, (u64, u64))> {
        let names = self.0.keys().filter_map(|field| field.strip_prefix("cmdstat_"));
        names.filter_map(|name| Some((name, self.command(name)?)))
    }

    /// Whether statistics of any command are reported.
    pub fn has_command_statistics(&self) -> bool {
        self.0.keys().any(|field| field.starts_with("cmdstat_"))
    }

    fn seconds(&self, user: &str, system: &str) -> Option<Duration> {
        let seconds = self.number::<f64>(user)? + self.number::<f64>(system)?;
        Duration::try_from_secs_f64(seconds.min(MAX_CPU_SECONDS)).ok()
    }

    /// Returns `valkey`, `redis`, or one of the engines that report a version of their own beside that of Redis.
    pub fn engine(&self) -> &'static str {
        if let Some((engine, _)) = OTHER_ENGINES.iter().find(|(_, field)| self.text(field).is_some()) {
            return engine;
        }
        match self.text("valkey_version").is_some() || self.text("server_name") == Some("valkey") {
            true => "valkey",
            false => "redis",
        }
    }

    /// Whether the server is a Redis or Valkey as far as it tells: others that speak the protocol add a version of their own.
    pub fn is_redis_or_valkey(&self) -> bool {
        let others = self.0.keys().filter(|field| field.ends_with("_version"));
        let mut others =
            others.filter(|field| !["redis_version", "valkey_version", "gcc_version"].contains(&field.as_str()));
        self.engine_version().is_some() && others.next().is_none()
    }

    /// Whether the engine is Valkey or Redis of at least these versions, as (major, minor); `None`: no version of that one.
    pub fn is_since(&self, valkey: (u32, u32), redis: Option<(u32, u32)>) -> bool {
        let mut numbers =
            self.engine_version().unwrap_or_default().split('.').map(|number| number.parse().unwrap_or(0));
        let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let since = if self.engine() == "valkey" { Some(valkey) } else { redis };
        since.is_some_and(|since| version >= since)
    }

    /// Returns the engine's own version: Valkey also reports the Redis version that it is compatible with.
    pub fn engine_version(&self) -> Option<&str> {
        let own = OTHER_ENGINES.iter().find_map(|(_, field)| self.text(field));
        let version = own.or_else(|| self.text("valkey_version")).or_else(|| self.text("redis_version"))?;
        Some(version.char_indices().nth(VERSION).map_or(version, |(end, _)| &version[..end]))
    }
}

/// Returns a sum that stays at the greatest number instead of overflowing: what servers report may be absurd.
pub(crate) fn saturating_sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

fn keyspace_line(name: &str, value: &str) -> Option<Keyspace> {
    let database = name.strip_prefix("db")?.parse().ok()?;
    let count = |field: &str| value.split(',').find_map(|pair| count(pair.strip_prefix(field)?.strip_prefix('=')?));
    let mean_ttl = count("avg_ttl").filter(|millis| *millis > 0).map(Duration::from_millis);
    Some(Keyspace { database, keys: count("keys")?, expires: count("expires").unwrap_or(0), mean_ttl })
}

/// Reads a count, which saturates; `None`: it is not a number.
fn count(digits: &str) -> Option<u64> {
    match digits.parse::<u64>() {
        Ok(count) => Some(count.min(ABSURD)),
        Err(error) => (*error.kind() == IntErrorKind::PosOverflow).then_some(ABSURD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALKEY: &str = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nrun_id:abc\r\n\r\n\
        # Keyspace\r\ndb11:keys=3,expires=2,avg_ttl=1500\r\ndb2:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\ndb_foo:keys=9\r\n";

    #[test]
    fn the_keyspace_is_ordered_by_database() {
        let lines = Info::read(VALKEY).keyspace();
        let expected = [
            Keyspace { database: 2, keys: 1, expires: 0, mean_ttl: None },
            Keyspace { database: 11, keys: 3, expires: 2, mean_ttl: Some(Duration::from_millis(1_500)) },
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_empty_server_lists_its_databases_and_a_reply_without_the_section_does_not() {
        assert!(Info::read("# Keyspace\r\n").lists_databases());
        assert!(Info::read("db0:keys=1,expires=0,avg_ttl=0\r\n").lists_databases());
        assert!(!Info::read("# Server\r\nredis_version:7.0.15\r\n").lists_databases());
    }

    #[test]
    fn more_databases_than_are_scanned_are_an_error_and_absurd_numbers_saturate() {
        let lines = |count: u32| {
            let line = |number| format!("db{number}:keys=18446744073709551615,expires=1,avg_ttl=0\r\n");
            Info::read(&(0..count).map(line).collect::<String>())
        };
        let within = |info: Info| info.within(&Held::default());
        let many = within(lines(10_000)).expect("as many as may be");
        assert_eq!(saturating_sum(many.keyspace().iter().map(|line| line.keys)), u64::MAX);
        assert!(matches!(within(lines(10_001)), Err(LinkError::TooManyDatabases(10_000))));
        assert!(matches!(within(lines(200_000)), Err(LinkError::TooManyDatabases(_))));
        let cpu = Info::read("used_cpu_user:1e300\r\nused_cpu_sys:1e300\r\n").cpu().expect("a time");
        assert!(cpu.checked_add(cpu).is_some());
    }

    #[test]
    fn absurd_counts_of_a_database_saturate_and_do_not_hide_it() {
        let line = |keys: &str| Info::read(&format!("db0:keys={keys},expires={keys},avg_ttl={keys}\r\n")).keyspace();
        for keys in ["9007199254740994", "18446744073709551615", "18446744073709551616", &"9".repeat(400)] {
            let [Keyspace { keys, expires, mean_ttl, .. }] = line(keys)[..] else {
                panic!("{keys} hides its database")
            };
            assert_eq!((keys, expires, mean_ttl), (ABSURD, ABSURD, Some(Duration::from_millis(ABSURD))));
        }
        assert_eq!(line("9007199254740992")[0].keys, 1 << 53, "the greatest number that counts");
        for keys in ["", "-1", "x", "1e3"] {
            assert_eq!(line(keys), [], "{keys:?} is not a number");
        }
        assert!(ABSURD.checked_mul(1_000).is_some(), "a sum of plain numbers");
    }

    #[test]
    fn the_version_of_valkey_is_its_own() {
        let info = Info::read(VALKEY);
        assert_eq!((info.engine(), info.engine_version()), ("valkey", Some("9.1.2")));
        let redis = Info::read("redis_version:7.0.15\r\n");
        assert_eq!((redis.engine(), redis.engine_version()), ("redis", Some("7.0.15")));
    }

    #[test]
    fn the_statistics_of_a_command_are_its_calls_and_their_time() {
        let info = Info::read("cmdstat_scan:calls=3,usec=42,usec_per_call=14.00,rejected_calls=0\r\ncmdstat_odd:x\r\n");
        assert_eq!((info.command("scan"), info.command("odd"), info.command("get")), (Some((3, 42)), None, None));
        assert!(info.has_command_statistics() && !Info::read(VALKEY).has_command_statistics());
        let all = Info::read("cmdstat_scan:calls=3,usec=42\r\ncmdstat_client|setname:calls=4,usec=9\r\n");
        assert_eq!((all.all_commands(), Info::read(VALKEY).all_commands()), (7, 0));
    }

    #[test]
    fn a_version_cannot_drive_a_terminal_or_fill_it() {
        let info = Info::read(&format!("redis_version:7.0\u{1b}[2J\u{7}\u{9b}1m{}\r\n", "é".repeat(40)));
        let version = info.engine_version().expect("a version");
        assert!(version.starts_with("7.0[2J1mé") && version.chars().count() == 32, "{version:?}");
    }

    #[test]
    fn a_version_is_compared_with_that_of_its_own_engine() {
        let valkey = Info::read(VALKEY);
        assert!(valkey.is_since((9, 1), None) && !valkey.is_since((9, 2), Some((7, 0))));
        let redis = Info::read("redis_version:7.4.1\r\n");
        assert!(redis.is_since((9, 0), Some((7, 4))) && !redis.is_since((7, 0), None));
    }
}
