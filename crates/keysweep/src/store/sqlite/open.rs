//! Opening the file: made for its owner alone when it is absent, brought up to this version's schema, refused when a
//! newer version has been at it.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{PATIENCE, SqliteStore, fault::Fault};
use crate::store::{StoreError, Timing, doubt::Doubt};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long SQLite waits for a lock. Less than a verb's patience, so that its own answer comes in time.
const BUSY: Duration = Duration::from_millis(2_500);
/// How long to look again after a lock that SQLite does not wait for.
const RETRY_EVERY: Duration = Duration::from_millis(50);
const READERS: u32 = 4;

/// Why a file cannot be the store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file, or its folder, cannot be made.
    #[error(
        "cannot create {path}: {why}; let this user write there, or choose another place with --database sqlite:PATH",
        path = path.display()
    )]
    Create {
        /// What could not be made.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// There is no room for a copy under this name.
    #[error("cannot write {path}: {why}; choose a new name, in a folder that this user may write to", path = path.display())]
    Copy {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A newer keysweep has changed the schema.
    #[error(
        "{path} was written by a newer keysweep (schema {found}, this version knows {known}); install that version, or \
         put back the backup from before its upgrade",
        path = path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The newest migration in the file that this version does not know.
        found: i64,
        /// The newest migration that this version knows.
        known: i64,
    },
    /// The schema came about in another way than this version's.
    #[error("{path} has a schema that no release of keysweep has made: {detail}", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// The file does not let itself be opened or read.
    #[error("{path}: {why}", path = path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        why: StoreError,
    },
}

impl SqliteStore {
    /// Opens the store in this file. Makes the file (mode 0600) and its folder (0700) when they are absent.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let path = &std::path::absolute(path).map_err(|why| OpenError::Create { path: path.to_owned(), why })?;
        create(path)?;
        // What a task was promised must survive a power cut: FULL writes the log through at every commit.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        migrate(path, &options).await?;
        // Connections are kept: opening one takes longer than most verbs. But when SQLite rolls a transaction back by
        // itself (a full disk), sqlx believes to be in it for good and can begin no other: such a one is replaced.
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(PATIENCE)
                .idle_timeout(None)
                .max_lifetime(None)
                .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        };
        Ok(Self {
            told: std::sync::Arc::default(),
            writer: pool().max_connections(1).connect_lazy_with(options.clone()),
            readers: pool().max_connections(READERS).connect_lazy_with(options.read_only(true)),
            timing: Timing::default(),
            doubt: Doubt::default(),
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

async fn migrate(path: &Path, options: &SqliteConnectOptions) -> Result<(), OpenError> {
    // Not bounded as a whole: a later migration of a large file may take its time. Waits for others are.
    let outcome = async {
        let mut connection = connect(options).await?;
        let outcome = upgrade(&mut connection).await?;
        connection.close().await?;
        Ok::<_, Fault>(outcome)
    };
    let path = path.to_owned();
    match outcome.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(MigrateError::VersionMissing(found))) => {
            let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
            Err(OpenError::Newer { path, found, known })
        }
        Ok(Err(error)) => Err(OpenError::Foreign { path, detail: error.to_string() }),
        Err(fault) => Err(OpenError::Store { path, why: fault.into() }),
    }
}

/// A connection for migrations. References are off: a migration that makes a table anew must not take the rows with
/// it that refer to the old one.
async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, Fault> {
    let options = options.clone().foreign_keys(false).journal_mode(SqliteJournalMode::Wal);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match SqliteConnection::connect_with(&options).await {
            // The change to WAL needs the file alone and does not wait for it: somebody else is opening it, too.
            Err(error) if is_busy(&error) && Instant::now() < deadline => tokio::time::sleep(RETRY_EVERY).await,
            connected => return Ok(connected?),
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
}

/// Runs what is missing of the migrations, all or nothing, and one process at a time.
async fn upgrade(connection: &mut SqliteConnection) -> Result<Result<(), MigrateError>, Fault> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    // Not `run`: its future cannot be shown to be Send.
    match MIGRATIONS.run_direct(None, &mut *transaction, false).await {
        Ok(()) => {}
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => return Err(error.into()),
        Err(error) => return Ok(Err(error)),
    }
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut *transaction).await?;
    if dangling.is_some() {
        let detail = "after the upgrade, rows refer to others that do not exist; nothing was changed".to_owned();
        return Err(StoreError::Unreadable(detail).into());
    }
    transaction.commit().await?;
    Ok(Ok(()))
}
