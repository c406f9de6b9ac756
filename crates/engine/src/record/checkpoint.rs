//! Where a sweep stands, in a form that outlives the process.
//!
//! A cursor means something only to the server process that returned it: table positions depend on a hash seed that
//! is drawn at start. The run id tells whether the process is still the same; if not, that shard starts again.

use serde::{Deserialize, Serialize};

use super::{
    order::{Order, Position},
    tally::Tally,
};
use crate::{
    target::{Address, address_or_empty},
    topology::SlotSet,
};

/// Layout that this version writes. A reader that finds a later one starts the sweep again.
pub const VERSION: u32 = 2;
/// Layout without an order of chunks.
const WITHOUT_ORDER: u32 = 1;

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

impl Checkpoint {
    /// Returns the checkpoint in the current layout; `None`: it was written by a later version. Positions of an earlier
    /// layout mean nothing in the current order, so that shards start again; their counts stay.
    pub(crate) fn upgraded(&self) -> Option<Self> {
        match self.version {
            VERSION => Some(self.clone()),
            WITHOUT_ORDER => {
                let mut checkpoint = Self { version: VERSION, ..self.clone() };
                for shard in checkpoint.shards.iter_mut().filter(|shard| !shard.done) {
                    (shard.run_id, shard.restricted_to) = (None, None);
                    shard.databases.clear();
                }
                Some(checkpoint)
            }
            _ => None,
        }
    }

    /// Returns the checkpoint without the databases of its shards, which are most of its size: shards that are not done start
    /// again, and all counts stay.
    pub fn without_positions(&self) -> Self {
        let mut checkpoint = self.clone();
        for shard in &mut checkpoint.shards {
            shard.databases.clear();
            if !shard.done {
                (shard.run_id, shard.restricted_to) = (None, None);
            }
        }
        checkpoint
    }
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
    /// Keys that SCAN returned more than once, because the last call of a chunk reaches beyond its end; an estimate.
    #[serde(default)]
    pub keys_repeated: f64,
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

    /// Whether the shard's primary is at this address.
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        self.address.as_ref() == Some(address)
    }
}

/// Where one database stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseCheckpoint {
    /// Number of the database.
    pub database: u32,
    /// Keys in the database when the shard was started: its weight in the progress.
    pub keys: u64,
    /// Order of the chunks; `None`: the database was not started.
    #[serde(default)]
    pub order: Option<Order>,
    /// Chunks of that order that were begun.
    #[serde(default)]
    pub begun: usize,
    /// Where SCAN resumes: in those of them that are not complete.
    #[serde(default)]
    pub positions: Vec<Position>,
    /// Share of the keys that is done, 0–1.
    #[serde(default)]
    pub share: f64,
    /// Whether all chunks are complete.
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
        let upgraded = checkpoint.upgraded().expect("an earlier layout");
        assert_eq!(
            (upgraded.shards[0].keys_reclaimed, upgraded.shards[0].run_id.as_ref()),
            (4, None),
            "it starts again"
        );
        assert!(upgraded.shards[0].databases.is_empty() && Checkpoint { version: 3, ..upgraded }.upgraded().is_none());
        let written = serde_json::to_string(&checkpoint).expect("JSON");
        assert!(written.contains(r#""address":"[::1]:7000""#) && written.contains(r#""address":"""#), "{written}");
        assert_eq!(serde_json::from_str::<Checkpoint>(&written).expect("a checkpoint"), checkpoint);
    }
}
