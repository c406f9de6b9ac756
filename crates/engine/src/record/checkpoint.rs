//! Where a sweep stands, in a form that outlives the process.
//!
//! A cursor means something only to the server process that returned it: table positions depend on a hash seed that
//! is drawn at start. The run id tells whether the process is still the same; if not, that shard starts again.

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::{
    target::{Address, address_or_empty},
    topology::SlotSet,
};

/// Layout that this version writes. A reader that finds another one starts the sweep again.
pub const VERSION: u32 = 1;

/// Where each shard of a sweep stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Version of the layout. A checkpoint of another version is not used.
    pub version: u32,
    /// Keys scanned so far, in all shards and passes.
    pub keys_scanned: u64,
    /// Expired keys reclaimed so far, in all shards and passes.
    #[serde(alias = "keys_released")]
    pub keys_reclaimed: u64,
    /// Whether `keys_reclaimed` is exact.
    pub exact: bool,
    /// The shards that are known.
    pub shards: Vec<ShardCheckpoint>,
}

/// Where one shard stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardCheckpoint {
    /// The primary's address; `None` (an empty string in JSON) before the first connection.
    #[serde(with = "address_or_empty")]
    pub address: Option<Address>,
    /// The process that the cursors belong to; `None` where the server does not report it: the shard then starts again.
    pub run_id: Option<String>,
    /// Whether every database of the shard is done.
    pub done: bool,
    /// The slots of a cluster that the primary has owned without a break since the shard was started. Slots that the
    /// primary owns beyond these remain to be swept.
    #[serde(default)]
    pub covered: SlotSet,
    /// The only slots that are swept now: they came after the primary had been swept. `None`: no restriction.
    #[serde(default, alias = "only")]
    pub restricted_to: Option<SlotSet>,
    /// Keys scanned so far.
    pub keys_scanned: u64,
    /// Expired keys reclaimed so far.
    #[serde(alias = "keys_released")]
    pub keys_reclaimed: u64,
    /// `used_memory` when the shard was first seen, bytes.
    pub used_memory_before: Option<u64>,
    /// `used_memory_rss` when the shard was first seen, bytes.
    pub rss_before: Option<u64>,
    /// `used_memory` after the shard was swept, bytes.
    #[serde(default)]
    pub used_memory_after: Option<u64>,
    /// `used_memory_rss` after the shard was swept, bytes.
    #[serde(default)]
    pub rss_after: Option<u64>,
    /// The databases that held keys when the shard was started.
    pub databases: Vec<DatabaseCheckpoint>,
}

impl ShardCheckpoint {
    /// Whether the shard has anything to resume from.
    pub(crate) fn is_started(&self) -> bool {
        self.run_id.is_some() || !self.databases.is_empty() || self.keys_scanned > 0
    }

    /// Returns the cursor from which a pass over a database starts: that of the first slot to sweep.
    pub(crate) fn first_cursor(&self) -> u64 {
        self.restricted_to.as_ref().and_then(|slots| slots.next_from(0)).map_or(0, u64::from)
    }

    /// Whether the shard's primary is at this address.
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        self.address.as_ref() == Some(address)
    }
}

/// Where one database stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseCheckpoint {
    /// Number of the database.
    pub database: u32,
    /// Keys in the database when the shard was started: its weight in the progress.
    pub keys: u64,
    /// Where SCAN resumes.
    pub cursor: u64,
    /// Whether SCAN has returned to cursor 0.
    pub done: bool,
    /// Sums of this pass, for the check at its end.
    #[serde(default)]
    pub tally: Tally,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_0_1_0_still_opens() {
        let stored = r#"{"version":1,"keys_scanned":9,"keys_released":4,"exact":true,"shards":[{"address":"[::1]:7000",
            "run_id":"abc","done":false,"covered":"0-99","only":"5","keys_scanned":9,"keys_released":4,
            "used_memory_before":1,"rss_before":null,"databases":[{"database":0,"keys":20,"cursor":7,"done":false,
            "tally":{"sizes":[20,16],"returned":5,"released":4,"churn":0}}]},
            {"address":"","run_id":null,"done":false,"keys_scanned":0,"keys_released":0,"used_memory_before":null,
            "rss_before":null,"databases":[]}]}"#;
        let checkpoint: Checkpoint = serde_json::from_str(stored).expect("a checkpoint");
        assert_eq!((checkpoint.keys_reclaimed, checkpoint.shards[0].keys_reclaimed), (4, 4));
        assert_eq!(checkpoint.shards[0].address, Some(Address::tcp("::1", 7000)));
        assert_eq!(checkpoint.shards[0].restricted_to.as_ref().map(SlotSet::len), Some(1));
        assert_eq!(checkpoint.shards[1].address, None);
        let written = serde_json::to_string(&checkpoint).expect("JSON");
        assert!(written.contains(r#""address":"[::1]:7000""#) && written.contains(r#""address":"""#), "{written}");
        assert_eq!(serde_json::from_str::<Checkpoint>(&written).expect("a checkpoint"), checkpoint);
    }
}
