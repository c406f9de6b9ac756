//! A checkpoint as it is stored: its bytes have a bound, in all and a second.

use std::time::Duration;

use keysweep_engine::Checkpoint;
use tokio::time::Instant;

/// Most bytes of a stored checkpoint. Those of the most databases that a scan takes fit; a server that divides its slots into
/// chunks of their own in hundreds of databases could exceed it.
const MAX_BYTES: usize = 8 << 20;
/// Bytes of its checkpoint that a task stores a second, in the long run: a larger one is stored less often than once a second.
const BYTES_PER_SECOND: usize = 256 << 10;

/// Returns the JSON of a checkpoint. One of more than [`MAX_BYTES`] is stored without positions, so that the next worker starts its
/// shards again with the counts as they are; `None`: that is too long as well, and the last one stays.
pub(super) fn stored(checkpoint: &Checkpoint) -> Option<String> {
    within(checkpoint, MAX_BYTES)
}

fn within(checkpoint: &Checkpoint, max_bytes: usize) -> Option<String> {
    let json = |checkpoint: &Checkpoint| serde_json::to_string(checkpoint).ok();
    let fits = |json: &String| json.len() <= max_bytes;
    json(checkpoint).filter(fits).or_else(|| json(&checkpoint.without_positions()).filter(fits))
}

/// When the next checkpoint of a task may be stored.
#[derive(Debug, Default)]
pub(super) struct Due(Option<Instant>);

impl Due {
    /// Whether it may be stored at this time.
    pub(super) fn is_at(&self, now: Instant) -> bool {
        self.0.is_none_or(|due| now >= due)
    }

    /// Notes that a checkpoint of so many bytes was stored at this time.
    pub(super) fn stored(&mut self, now: Instant, bytes: usize) {
        // Rounded down: one of less than a second's bytes is stored with every heartbeat.
        self.0 = Some(now + Duration::from_secs((bytes / BYTES_PER_SECOND) as u64));
    }
}

#[cfg(test)]
mod tests {
    use keysweep_engine::{DatabaseCheckpoint, HotSlot, Order, ShardCheckpoint};
    use serde_json::json;

    use super::*;

    const KEYS: u64 = 123_456_789_012;

    fn checkpoint(shards: Vec<ShardCheckpoint>) -> Checkpoint {
        Checkpoint { version: 2, keys_scanned: KEYS, keys_reclaimed: 7, exact: true, shards }
    }

    fn shard(done: bool, databases: Vec<DatabaseCheckpoint>) -> ShardCheckpoint {
        ShardCheckpoint {
            run_id: Some("a".repeat(40)),
            done,
            keys_reclaimed: 7,
            databases,
            ..ShardCheckpoint::default()
        }
    }

    /// Returns a database at the end of its scan, with long numbers.
    fn database(number: u32) -> DatabaseCheckpoint {
        let tally = json!({
            "sizes": [KEYS, KEYS], "returned": KEYS, "returned_early": KEYS as f64 / 7.0, "repeated": KEYS as f64 / 7.0,
            "reclaimed": KEYS, "churn": KEYS, "slices": KEYS
        });
        DatabaseCheckpoint {
            database: number,
            keys: KEYS,
            order: Some(Order::Backward { bits: 16 }),
            begun: 1 << 16,
            share: 1.0,
            done: true,
            tally: serde_json::from_value(tally).expect("a tally"),
            ..DatabaseCheckpoint::default()
        }
    }

    #[test]
    fn a_checkpoint_of_the_most_databases_fits() {
        // The most of one server, twice: the most of a scan.
        let most = checkpoint(vec![shard(true, (0..10_000).map(database).collect()); 2]);
        let json = stored(&most).expect("a text");
        assert!(json.len() > MAX_BYTES / 2 && json.len() <= MAX_BYTES, "{} bytes", json.len());
        assert_eq!(serde_json::from_str::<Checkpoint>(&json).expect("a checkpoint"), most);
    }

    #[test]
    fn a_checkpoint_that_is_too_long_loses_its_positions_and_keeps_its_counts() {
        let max_bytes = 20_000;
        let hot = (0..400).map(|slot| HotSlot { slot, bits: 4 }).collect();
        let order = Some(Order::Blocks { slots: 1, hot });
        let databases = vec![DatabaseCheckpoint { order, ..database(0) }; 3];
        let long = checkpoint(vec![shard(false, databases), shard(true, vec![database(0)])]);
        assert!(serde_json::to_string(&long).expect("JSON").len() > max_bytes);
        let short: Checkpoint = serde_json::from_str(&within(&long, max_bytes).expect("a text")).expect("a checkpoint");
        assert_eq!((short.keys_scanned, short.keys_reclaimed, short.exact), (KEYS, 7, true));
        let [begun, done] = &short.shards[..] else { panic!("{short:?}") };
        assert!(begun.run_id.is_none() && begun.databases.is_empty() && begun.keys_reclaimed == 7, "it starts again");
        assert!(done.run_id.is_some() && done.done && done.databases.is_empty(), "it stays done");
        let many = checkpoint(vec![shard(false, Vec::new()); 400]);
        assert_eq!(within(&many, max_bytes), None, "the last one stays");
    }

    #[test]
    fn a_large_checkpoint_is_stored_less_often_than_a_small_one() {
        let (mut due, now) = (Due::default(), Instant::now());
        assert!(due.is_at(now), "the first one");
        due.stored(now, BYTES_PER_SECOND - 1);
        assert!(due.is_at(now), "with each heartbeat");
        due.stored(now, 6 << 20);
        assert!(!due.is_at(now + Duration::from_millis(23_999)));
        assert!(due.is_at(now + Duration::from_secs(24)), "6 MiB after 24 s");
    }
}
