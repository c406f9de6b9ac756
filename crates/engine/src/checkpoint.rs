//! Where a sweep stands, in a form that outlives the process.
//!
//! A cursor means something only to the server process that gave it out: table positions depend on a hash seed that
//! is drawn at start. The run id tells whether it is still the same process; if not, that shard starts again.

use serde::{Deserialize, Serialize};

use crate::{tally::Tally, topology::SlotSet};

/// The layout that this version writes. A reader that meets another one starts the sweep again.
pub const VERSION: u32 = 1;

/// Where each shard of a sweep stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The layout, see [`VERSION`].
    pub version: u32,
    /// Keys looked at so far, in all shards and passes.
    pub keys_scanned: u64,
    /// Expired keys released so far, in all shards and passes.
    pub keys_released: u64,
    /// Whether `keys_released` is exact.
    pub exact: bool,
    /// The shards that are known.
    pub shards: Vec<ShardCheckpoint>,
}

/// Where one shard stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardCheckpoint {
    /// The primary's address.
    pub address: String,
    /// The process that the cursors belong to; `None` where the server does not tell: the shard then starts again.
    pub run_id: Option<String>,
    /// Whether every database of it is done.
    pub done: bool,
    /// The slots of a cluster that the primary has owned ever since this sweep of it began; when it owns others as well, those are
    /// still to be swept.
    #[serde(default)]
    pub covered: SlotSet,
    /// Only these slots are swept now: they came after the primary had been swept.
    #[serde(default)]
    pub only: Option<SlotSet>,
    /// Keys looked at so far.
    pub keys_scanned: u64,
    /// Expired keys released so far.
    pub keys_released: u64,
    /// `used_memory` when the shard was first seen, bytes.
    pub used_memory_before: Option<u64>,
    /// `used_memory_rss` when the shard was first seen, bytes.
    pub rss_before: Option<u64>,
    /// `used_memory` when the sweep of it had ended, bytes.
    #[serde(default)]
    pub used_memory_after: Option<u64>,
    /// `used_memory_rss` then, bytes.
    #[serde(default)]
    pub rss_after: Option<u64>,
    /// The databases that held keys when the shard was begun.
    pub databases: Vec<DatabaseCheckpoint>,
}

impl ShardCheckpoint {
    /// Whether anything of it is worth going on from.
    pub(crate) fn is_begun(&self) -> bool {
        self.run_id.is_some() || !self.databases.is_empty() || self.keys_scanned > 0
    }
}

/// Where one database stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseCheckpoint {
    /// Its number.
    pub database: u32,
    /// Keys that it held when the shard was begun: its weight in the progress.
    pub keys: u64,
    /// Where SCAN goes on.
    pub cursor: u64,
    /// Whether SCAN has been through it.
    pub done: bool,
    /// What this pass has returned and released so far, for the check at its end.
    #[serde(default)]
    pub tally: Tally,
}
