//! Which servers the tests run against, and where their binaries are.
//!
//! The set spans what differs for a sweep: before and after `lazyfree` defaults and per-slot tables, and
//! the oldest Redis and the newest Valkey that managed services still run. `scripts/server` installs them
//! and pins the same versions; a test compares the two.

use std::env;
use std::path::{Path, PathBuf};

/// A pinned server that tests can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavor {
    /// Redis 6.2: the oldest that is supported.
    Redis62,
    /// Redis 7.0: what Debian 12 carries.
    Redis70,
    /// Valkey 8.1: one hash table a slot, frees lazily by default.
    Valkey81,
    /// Valkey 9.1: several databases in cluster mode.
    Valkey91,
}

impl Flavor {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::Redis62, Self::Redis70, Self::Valkey81, Self::Valkey91];

    /// The name of its folder, such as `valkey-9.1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis62 => "redis-6.2",
            Self::Redis70 => "redis-7.0",
            Self::Valkey81 => "valkey-8.1",
            Self::Valkey91 => "valkey-9.1",
        }
    }

    /// The exact version, as the server itself reports it.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::Redis62 => "6.2.14",
            Self::Redis70 => "7.0.15",
            Self::Valkey81 => "8.1.8",
            Self::Valkey91 => "9.1.2",
        }
    }

    /// Whether it is Valkey, which reports its own version beside the Redis version it is compatible with.
    #[must_use]
    pub const fn is_valkey(self) -> bool {
        matches!(self, Self::Valkey81 | Self::Valkey91)
    }

    /// The server's binary, `<workspace>/.cache/servers/<name>/`; `KEYSWEEP_SERVERS` names another folder
    /// of such folders.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn binary(self) -> PathBuf {
        let file = if self.is_valkey() { "valkey-server" } else { "redis-server" };
        let path = folder().join(self.name()).join(file);
        assert!(path.is_file(), "{} is not installed at {}: run `make servers`", self.name(), path.display());
        path
    }

    /// Since Redis 7.0 `DEBUG` answers only where the server was started with this; 6.2 always has it and
    /// refuses to start with a directive that it does not know.
    pub(crate) const fn has_enable_debug_command(self) -> bool {
        !matches!(self, Self::Redis62)
    }
}

fn folder() -> PathBuf {
    let workspace = || Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/harness lies in it");
    env::var_os("KEYSWEEP_SERVERS").map_or_else(|| workspace().join(".cache/servers"), PathBuf::from)
}
