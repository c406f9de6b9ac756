//! The two database engines behind one interface. No other file of the product uses sqlx.
//!
//! A verb opens a [`Session`] and runs [`sql`] statements in it. One text serves both engines: placeholders are `$1`, `$2`
//! and so on, and what only PostgreSQL needs (row locks, casts) stands in comments like `/*! FOR UPDATE */`, which SQLite
//! skips and which are plain SQL on PostgreSQL.

mod copy;
mod error;
mod open;
mod postgres;
mod row;
mod sqlite;
mod statement;

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{Database, PgPool, Postgres, Sqlite, SqlitePool, Transaction, pool::PoolConnection};
use tokio::time::Instant;

pub use self::{
    copy::{Import, backup},
    open::OpenError,
};
pub(super) use self::{
    row::{Row, time, unreadable},
    statement::{Statement, forked, keys, lock, sql},
};
use super::{StoreError, timing::Meter};

/// How long one verb may take, including the wait for a connection.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Connections to one of the two engines. Clones share them.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    /// One SQLite file. A single connection writes, so that writers queue here, in order, and not at SQLite's lock; WAL
    /// lets the readers go on meanwhile.
    Sqlite {
        /// The one connection that writes.
        writer: SqlitePool,
        /// Read-only connections.
        readers: SqlitePool,
    },
    /// A PostgreSQL database, which replicas share.
    Postgres(PgPool),
}

/// What a session is opened for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    /// One statement that reads.
    Read,
    /// Several statements that read the same state of the database.
    Snapshot,
    /// A transaction that writes.
    Write,
}

impl Pool {
    async fn connect(&self, mode: Mode) -> Result<Connection, sqlx::Error> {
        Ok(match (self, mode) {
            (Self::Sqlite { readers, .. }, Mode::Read) => Connection::Sqlite(Held::Plain(readers.acquire().await?)),
            (Self::Sqlite { readers, .. }, Mode::Snapshot) => Connection::Sqlite(Held::Within(readers.begin().await?)),
            // A transaction that reads first and writes later is refused when another process has written in between.
            (Self::Sqlite { writer, .. }, Mode::Write) => {
                Connection::Sqlite(Held::Within(writer.begin_with("BEGIN IMMEDIATE").await?))
            }
            (Self::Postgres(pool), Mode::Read) => Connection::Postgres(Held::Plain(pool.acquire().await?)),
            (Self::Postgres(pool), Mode::Snapshot) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
                Connection::Postgres(Held::Within(pool.begin_with(begin).await?))
            }
            (Self::Postgres(pool), Mode::Write) => Connection::Postgres(Held::Within(pool.begin().await?)),
        })
    }

    /// Closes all connections once the verbs under way have ended, and leaves no file beside the database.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                // The readers first: the last connection that may write puts the log back into the file.
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// A connection from a pool, inside a transaction or not.
enum Held<D: Database> {
    Plain(PoolConnection<D>),
    Within(Transaction<'static, D>),
}

impl<D: Database> Deref for Held<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match self {
            Self::Plain(connection) => connection,
            Self::Within(transaction) => transaction,
        }
    }
}

impl<D: Database> DerefMut for Held<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        match self {
            Self::Plain(connection) => connection,
            Self::Within(transaction) => transaction,
        }
    }
}

impl<D: Database> Held<D> {
    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Within(transaction) => transaction.commit().await,
        }
    }
}

enum Connection {
    Sqlite(Held<Sqlite>),
    Postgres(Held<Postgres>),
}

/// A connection for one verb, with the time that the verb has left. Dropped without a commit, it undoes what it wrote.
pub(super) struct Session {
    connection: Connection,
    deadline: Instant,
    meter: Meter,
}

impl Session {
    /// Takes a connection from the pool and begins what the mode says. `Unavailable` when none is free in time.
    pub async fn open(pool: &Pool, mode: Mode, meter: Meter) -> Result<Self, StoreError> {
        let deadline = Instant::now() + TIMEOUT;
        let connection = meter.note(bounded(deadline, pool.connect(mode)).await)?;
        Ok(Self { connection, deadline, meter })
    }

    /// Ends the transaction and keeps what it wrote. `Unavailable` when the answer is lost: the writes may have been kept.
    pub async fn commit(self) -> Result<(), StoreError> {
        let Self { connection, deadline, meter } = self;
        meter.note(match connection {
            Connection::Sqlite(held) => bounded(deadline, held.commit()).await,
            Connection::Postgres(held) => bounded(deadline, held.commit()).await,
        })
    }

    /// Returns the time by the database's clock, to the microsecond. A SQLite file has no server: all processes that open it
    /// are on this machine, whose clock they share.
    pub async fn now(&mut self) -> Result<Timestamp, StoreError> {
        match self.connection {
            Connection::Sqlite(_) => row::time("now", Timestamp::now().as_microsecond()),
            Connection::Postgres(_) => {
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
pub(super) enum Queue {
    /// Claims: which scans run, and where, is in many rows.
    Claims = 1,
    /// The master key's check value, which may be absent.
    MasterKey = 2,
    /// Holders of `lazyfree-lazy-expire`: their rows are about to be written or deleted.
    LazyFree = 3,
}

/// Runs one step of a verb until the verb's deadline.
async fn bounded<T>(deadline: Instant, step: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout_at(deadline, step).await {
        Ok(done) => done.map_err(error::meaning),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} s", TIMEOUT.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    async fn store(folder: &tempfile::TempDir) -> Store {
        Store::open_sqlite(&folder.path().join("store.db")).await.expect("a store")
    }

    async fn pragma(pool: &SqlitePool, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(pool).await.expect("a number")
    }

    fn pools(store: &Store) -> (&SqlitePool, &SqlitePool) {
        match &store.pool {
            Pool::Sqlite { writer, readers } => (writer, readers),
            Pool::Postgres(_) => unreachable!("opened on SQLite"),
        }
    }

    #[tokio::test]
    async fn every_commit_is_written_through_and_references_are_kept() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        let (writer, _) = pools(&store);
        assert_eq!(pragma(writer, "PRAGMA synchronous").await, 2, "FULL");
        assert_eq!(pragma(writer, "PRAGMA foreign_keys").await, 1);
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(writer).await.expect("a mode");
        assert_eq!(journal, "wal");
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        sqlx::query("DELETE FROM project").execute(pools(&store).1).await.expect_err("read only");
    }

    #[tokio::test]
    async fn a_full_disk_is_unavailable_and_leaves_nothing_half_done() {
        use crate::model::Project;

        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        let (writer, _) = pools(&store);
        // The one writing connection is told that there is no page left.
        let pages = pragma(writer, "PRAGMA page_count").await;
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(limit).execute(writer).await.expect("set");
        let project = |number: u32| {
            let id = format!("{number:032}");
            Project { name: id.repeat(30), id, created_at: Timestamp::UNIX_EPOCH }
        };
        let mut added = 0;
        let error = loop {
            match store.add_project(&project(added)).await {
                Ok(()) => added += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert_eq!(store.projects().await.expect("read").len(), added as usize);
        // Held by the connection that it was set on; the next one finds space again.
        store.add_project(&project(added)).await.expect("there is space again");
    }
}
