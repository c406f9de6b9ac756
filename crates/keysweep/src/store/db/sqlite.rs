//! The store in one SQLite file: how it is created, opened and upgraded.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Semaphore;

use super::{
    error,
    file::OpenFile,
    migrations,
    open::{OpenError, UpgradeError},
    session::{Pool, TIMEOUT},
};
use crate::store::error::StoreError;

/// How long SQLite waits for a lock. Less than a verb's time, so that its own answer comes first.
const BUSY_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Interval between attempts to get a lock that SQLite does not wait for.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
const READERS: u32 = 4;

impl Pool {
    /// Opens the store in this file. Creates the file (mode 0600) and its folder (0700) when they are absent.
    pub async fn open_sqlite(path: &Path) -> Result<Self, OpenError> {
        let path = &std::path::absolute(path).map_err(|why| OpenError::Create { path: path.to_owned(), why })?;
        create(path)?;
        // A task that was confirmed must survive a power cut: FULL writes the log through at every commit.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        upgrade(&options)
            .await
            .map_err(|error| error.at(path.display().to_string(), |why| OpenError::File { path: path.clone(), why }))?;
        // Connections are kept: opening one takes longer than most verbs. But when SQLite rolls a transaction back by
        // itself (a full disk), sqlx keeps counting it as open and begins no other: such a connection is replaced.
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        };
        let file = OpenFile::at(path).map_err(|why| OpenError::File { path: path.clone(), why })?;
        let opened = file.clone();
        let writer = pool().max_connections(1).after_connect(move |connection, _| {
            let opened = opened.clone();
            Box::pin(async move {
                // A connection opens the log with its first read. One that cannot read will say so when it begins to write.
                let read = sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1").fetch_optional(connection).await;
                opened.note_log(read.is_ok());
                Ok(())
            })
        });
        Ok(Self::Sqlite {
            file,
            writer: writer.connect_lazy_with(options.clone()),
            turn: Arc::new(Semaphore::new(1)),
            readers: pool().max_connections(READERS).connect_lazy_with(options.read_only(true)),
        })
    }
}

fn create(path: &Path) -> Result<(), OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |why| OpenError::Create { path, why }
    };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    }
    // SQLite gives its log and its index the mode of the file.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(_) if path.is_dir() => Err(failed(path)(ErrorKind::IsADirectory.into())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Runs the migrations that are missing, all or none, and one process at a time. Not bounded as a whole: a later migration
/// of a large file may take minutes. Waits for other processes are bounded.
async fn upgrade(options: &SqliteConnectOptions) -> Result<(), UpgradeError> {
    let mut connection = connect(options).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    // Not `run`: its future cannot be shown to be Send.
    let migrated = migrations::SQLITE.run_direct(None, &mut *transaction, false).await;
    migrated.map_err(|error| UpgradeError::new(error, &migrations::SQLITE))?;
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut *transaction).await?;
    if dangling.is_some() {
        let detail = "after the upgrade, rows refer to others that do not exist; nothing was changed".to_owned();
        return Err(UpgradeError::Store(StoreError::Unreadable(detail)));
    }
    transaction.commit().await?;
    Ok(connection.close().await?)
}

/// A connection for migrations. References are off: a migration that makes a table anew must not delete the rows that
/// refer to the old one.
async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let options = options.clone().foreign_keys(false).journal_mode(SqliteJournalMode::Wal);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match SqliteConnection::connect_with(&options).await {
            // The change to WAL needs the file alone and does not wait for it: another process is opening it, too.
            Err(error) if is_busy(&error) && Instant::now() < deadline => tokio::time::sleep(RETRY_INTERVAL).await,
            connected => return connected,
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error::primary_code(error) == 5)
}
