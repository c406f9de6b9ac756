//! What a verb asks of the database itself: the time, its turn in a queue, and whether it takes writes.

use jiff::Timestamp;

use super::{
    row,
    session::{DbConnection, DbSession},
    statement::{forked, lock, sql},
};
use crate::store::error::StoreError;

impl DbSession {
    /// Returns the time by the database's clock, to the microsecond. A SQLite file has no server: all processes that open it
    /// are on this machine, whose clock they share.
    pub async fn now(&mut self) -> Result<Timestamp, StoreError> {
        match self.connection {
            DbConnection::Sqlite(_) => row::time("now", Timestamp::now().as_microsecond()),
            DbConnection::Postgres(_) => {
                let now = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) AS now";
                sql(now).one(self).await?.get("now")
            }
        }
    }

    /// Waits for an advisory lock and holds it until the transaction ends, where rows alone cannot order what verbs decide.
    pub async fn queue(&mut self, queue: Queue) -> Result<(), StoreError> {
        let wait = lock("SELECT pg_advisory_xact_lock(CAST($1 AS INT), CAST($2 AS INT))");
        wait.bind(LOCKS).bind(queue as i64).execute(self).await.map(drop)
    }

    /// Writes more than any task needs and removes it again. `Unavailable` when the database takes no writes.
    pub async fn try_to_write(&mut self) -> Result<(), StoreError> {
        // On PostgreSQL in a table of its own, so that room left in others does not make up for a full disk; its rows are
        // too short to be compressed, and unlogged, so that subscribers of all tables do not receive them.
        let trial = forked(
            "CREATE TABLE keysweep_trial AS SELECT zeroblob(131072) AS filler",
            "CREATE UNLOGGED TABLE keysweep_trial AS SELECT repeat('x', 1000) AS filler FROM generate_series(1, 128)",
        );
        trial.execute(self).await?;
        sql("DROP TABLE keysweep_trial").execute(self).await?;
        Ok(())
    }
}

/// First number of keysweep's advisory locks ("keys"), which tells them from those of other programs in the database.
const LOCKS: i64 = 0x6b65_7973;

/// What verbs of all replicas queue for.
#[derive(Debug, Clone, Copy)]
pub enum Queue {
    /// Claims: which scans run, and where, is in many rows.
    Claims = 1,
    /// The master key's check value, which may be absent.
    MasterKey = 2,
    /// Holders of `lazyfree-lazy-expire`: their rows are about to be written or deleted.
    LazyFree = 3,
}
