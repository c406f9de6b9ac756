//! Versions of the servers that tests run against, and the paths of their binaries.
//!
//! The set spans the differences that matter for a scan: lazyfree defaults, tables per slot, the order of the expiry cycle, and
//! the oldest Redis and the newest Valkey that managed services run. `scripts/server` installs the same versions; a test
//! compares the two.

use std::env;
use std::path::{Path, PathBuf};

/// A pinned server that tests can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavor {
    /// Redis 6.2: the oldest that is supported.
    Redis62,
    /// Redis 7.0: the version in Debian 12.
    Redis70,
    /// Redis 8.2: one hash table per slot, `lazyexpire-nested-arbitrary-keys`.
    Redis82,
    /// Valkey 8.1: one hash table per slot, lazyfree by default.
    Valkey81,
    /// Valkey 9.1: several databases in cluster mode.
    Valkey91,
}

impl Flavor {
    /// All flavors, oldest first.
    pub const ALL: [Self; 5] = [Self::Redis62, Self::Redis70, Self::Redis82, Self::Valkey81, Self::Valkey91];

    /// Returns the name of the folder, such as `valkey-9.1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis62 => "redis-6.2",
            Self::Redis70 => "redis-7.0",
            Self::Redis82 => "redis-8.2",
            Self::Valkey81 => "valkey-8.1",
            Self::Valkey91 => "valkey-9.1",
        }
    }

    /// Returns the exact version, as the server reports it.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::Redis62 => "6.2.14",
            Self::Redis70 => "7.0.15",
            Self::Redis82 => "8.2.3",
            Self::Valkey81 => "8.1.8",
            Self::Valkey91 => "9.1.2",
        }
    }

    /// Returns whether the server is Valkey, which reports its own version beside the compatible Redis version.
    #[must_use]
    pub const fn is_valkey(self) -> bool {
        matches!(self, Self::Valkey81 | Self::Valkey91)
    }

    /// Returns the server's binary in `<workspace>/.cache/servers/<name>/`; `KEYSWEEP_SERVERS` replaces
    /// `<workspace>/.cache/servers`.
    ///
    /// # Panics
    /// If it is not installed.
    #[must_use]
    pub fn binary(self) -> PathBuf {
        let file = if self.is_valkey() { "valkey-server" } else { "redis-server" };
        let path = folder().join(self.name()).join(file);
        assert!(path.is_file(), "{} is not installed at {}: run `make servers`", self.name(), path.display());
        path
    }

    /// Returns whether `DEBUG` must be enabled by a directive, as since Redis 7.0. Version 6.2 always allows `DEBUG` and refuses to
    /// start with an unknown directive.
    pub(crate) const fn has_enable_debug_command(self) -> bool {
        !matches!(self, Self::Redis62)
    }
}

fn folder() -> PathBuf {
    let workspace = || Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/harness lies in it");
    env::var_os("KEYSWEEP_SERVERS").map_or_else(|| workspace().join(".cache/servers"), PathBuf::from)
}
