//! Connections of either engine, and the one that a verb uses for its time.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use sqlx::{Database, PgPool, Postgres, Sqlite, SqlitePool, Transaction, pool::PoolConnection};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{error, file::OpenFile};
use crate::store::{error::StoreError, timing::Meter};

/// How long one verb may take, including the wait for a connection.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// Connections to one of the two engines. Clones share them.
#[derive(Debug, Clone)]
pub enum Pool {
    /// One SQLite file. A single connection writes, so that writers queue here, in order, and not at SQLite's lock; WAL
    /// lets the readers go on meanwhile.
    Sqlite {
        /// The one connection that writes.
        writer: SqlitePool,
        /// The turn to use it.
        turn: Arc<Semaphore>,
        /// Read-only connections.
        readers: SqlitePool,
        /// The file that they have open; closed after them.
        file: OpenFile,
    },
    /// A PostgreSQL database, which replicas share.
    Postgres(PgPool),
}

/// What a session is opened for.
#[derive(Debug, Clone, Copy)]
pub enum Access {
    /// One statement that reads.
    Read,
    /// Several statements that read the same state of the database.
    Snapshot,
    /// A transaction that writes.
    Write,
}

impl Pool {
    async fn connect(&self, access: Access) -> Result<DbConnection, sqlx::Error> {
        Ok(match (self, access) {
            (Self::Sqlite { readers, .. }, Access::Read) => {
                DbConnection::Sqlite(Handle::Plain(readers.acquire().await?))
            }
            (Self::Sqlite { readers, .. }, Access::Snapshot) => {
                DbConnection::Sqlite(Handle::Within(readers.begin().await?))
            }
            // A transaction that reads first and writes later is refused when another process has written in between.
            (Self::Sqlite { writer, .. }, Access::Write) => {
                DbConnection::Sqlite(Handle::Within(writer.begin_with("BEGIN IMMEDIATE").await?))
            }
            (Self::Postgres(pool), Access::Read) => DbConnection::Postgres(Handle::Plain(pool.acquire().await?)),
            (Self::Postgres(pool), Access::Snapshot) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
                DbConnection::Postgres(Handle::Within(pool.begin_with(begin).await?))
            }
            (Self::Postgres(pool), Access::Write) => DbConnection::Postgres(Handle::Within(pool.begin().await?)),
        })
    }

    /// Waits for the turn to write. `Busy` when it does not come in time: only a verb that has its turn can tell whether the
    /// database takes writes.
    async fn turn(&self, access: Access, deadline: Instant) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
        match (self, access) {
            (Self::Sqlite { turn, .. }, Access::Write) => {
                let turn = timeout_at(deadline, Arc::clone(turn).acquire_owned()).await;
                turn.map(Result::ok).map_err(|_| StoreError::Busy)
            }
            _ => Ok(None),
        }
    }

    /// Whether the database has a clock of its own.
    pub fn has_own_clock(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Checks that the SQLite file at its path is the one that is open, and complete.
    pub fn check_file(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { file, .. } => file.check(),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Checks that the log at its path is the one that the writing connection has open. Certain only for the verb that has this
    /// connection: with a new one there is a new log.
    pub fn check_log(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { file, .. } => file.check_log(),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Closes all connections once the verbs under way have ended, and leaves no file beside the database.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers, .. } => {
                // The readers first: the last connection that may write puts the log back into the file.
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// A connection from a pool, inside a transaction or not.
pub(super) enum Handle<D: Database> {
    Plain(PoolConnection<D>),
    Within(Transaction<'static, D>),
}

impl<D: Database> Deref for Handle<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match self {
            Self::Plain(connection) => connection,
            Self::Within(transaction) => transaction,
        }
    }
}

impl<D: Database> DerefMut for Handle<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        match self {
            Self::Plain(connection) => connection,
            Self::Within(transaction) => transaction,
        }
    }
}

impl<D: Database> Handle<D> {
    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Within(transaction) => transaction.commit().await,
        }
    }

    async fn roll_back(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Within(transaction) => transaction.rollback().await,
        }
    }
}

pub(super) enum DbConnection {
    Sqlite(Handle<Sqlite>),
    Postgres(Handle<Postgres>),
}

/// A connection for one verb, with the time that the verb has left. Dropped without a commit, it undoes what it wrote.
pub struct DbSession {
    pub(super) connection: DbConnection,
    pub(super) deadline: Instant,
    pub(super) meter: Meter,
    /// The turn to write, and the place of the request. Given back after the connection.
    permits: [Option<OwnedSemaphorePermit>; 2],
}

impl DbSession {
    /// Takes a connection from the pool and begins what the access needs. `Unavailable` when none is free in time, `Busy` when
    /// others write for too long.
    pub async fn open(pool: &Pool, access: Access, meter: Meter) -> Result<Self, StoreError> {
        let deadline = Instant::now() + TIMEOUT;
        let turn = pool.turn(access, deadline).await?;
        let connection = meter.note(bounded(deadline, pool.connect(access)).await)?;
        if matches!(access, Access::Write) {
            meter.note(pool.check_log())?;
        }
        Ok(Self { connection, deadline, meter, permits: [turn, None] })
    }

    /// Returns the session, which gives this place back at its end.
    pub fn with_place(mut self, place: Option<OwnedSemaphorePermit>) -> Self {
        self.permits[1] = place;
        self
    }

    /// Ends the transaction and keeps what it wrote. `Unavailable` when the answer is lost: the writes may have been kept.
    pub async fn commit(self) -> Result<(), StoreError> {
        let Self { connection, deadline, meter, permits } = self;
        let committed = meter.note(match connection {
            DbConnection::Sqlite(handle) => bounded(deadline, handle.commit()).await,
            DbConnection::Postgres(handle) => bounded(deadline, handle.commit()).await,
        });
        drop(permits);
        committed
    }

    /// Undoes what the transaction wrote, and releases its locks before it returns. A session that is only dropped keeps them
    /// until the pool gets round to its connection; claims skip what is locked.
    pub async fn roll_back(self) {
        let Self { connection, deadline, meter: _, permits } = self;
        // The pool closes a connection that fails here, and the server then undoes its transaction.
        let _ = match connection {
            DbConnection::Sqlite(handle) => bounded(deadline, handle.roll_back()).await,
            DbConnection::Postgres(handle) => bounded(deadline, handle.roll_back()).await,
        };
        drop(permits);
    }
}

/// Runs one step of a verb until the verb's deadline.
pub(super) async fn bounded<T>(
    deadline: Instant,
    step: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match timeout_at(deadline, step).await {
        Ok(done) => done.map_err(error::meaning),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} s", TIMEOUT.as_secs()))),
    }
}
