//! Opening the database: brought up to this version's schema by whoever comes first, refused when a newer version has
//! been at it.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{PATIENCE, PostgresStore, fault::Fault};
use crate::store::{StoreError, Timing, doubt::Doubt};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Connections that one replica holds at most. Verbs take milliseconds.
const CONNECTIONS: u32 = 10;
/// PostgreSQL 15, as `server_version_num` counts: the oldest that this is tested with.
const OLDEST: i32 = 150_000;
/// How long a first connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Why a database cannot be the store. None of them repeats the URL, in which there may be a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no database.
    #[error("the database's URL cannot be used; write postgres://user:password@host:5432/name: {0}")]
    Url(String),
    /// The server is too old.
    #[error("PostgreSQL {0} is too old; version 15 or later is needed")]
    Old(String),
    /// A newer keysweep has changed the schema.
    #[error(
        "the database was written by a newer keysweep (schema {found}, this version knows {known}); install that \
         version, or put back the backup from before its upgrade"
    )]
    Newer {
        /// The newest migration in the database that this version does not know.
        found: i64,
        /// The newest migration that this version knows.
        known: i64,
    },
    /// The schema came about in another way than this version's.
    #[error("the database has a schema that no release of keysweep has made: {0}")]
    Foreign(String),
    /// The server does not answer or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PostgresStore {
    /// Opens the store in the database that this URL (`postgres://user:password@host:port/name`) names.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let options = PgConnectOptions::from_str(url).map_err(|error| OpenError::Url(error.to_string()))?;
        let options = options.application_name("keysweep").disable_statement_logging();
        migrate(&options).await?;
        // A replica that is paused or cut off in mid-transaction must not hold its locks: its leases go on without it.
        let bound = format!("{}ms", PATIENCE.as_millis());
        let options = options.options([
            ("statement_timeout", bound.as_str()),
            ("lock_timeout", bound.as_str()),
            ("idle_in_transaction_session_timeout", bound.as_str()),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .idle_timeout(Duration::from_secs(10 * 60))
            .connect_lazy_with(options);
        Ok(Self { pool, timing: Timing::default(), told: std::sync::Arc::default(), doubt: Doubt::default() })
    }
}

async fn migrate(options: &PgConnectOptions) -> Result<(), OpenError> {
    let fault = |error: sqlx::Error| OpenError::Store(Fault::from(error).into());
    let connecting = tokio::time::timeout(CONNECT, PgConnection::connect_with(options));
    let mut connection = connecting
        .await
        .map_err(|_| StoreError::Unavailable(format!("no answer within {} s", CONNECT.as_secs())))?
        .map_err(fault)?;
    let (number, version): (i32, String) =
        sqlx::query_as("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
            .fetch_one(&mut connection)
            .await
            .map_err(fault)?;
    if number < OLDEST {
        return Err(OpenError::Old(version));
    }
    // Not bounded: a later migration of a large table may take its time. Takes an advisory lock, so that replicas that
    // start at the same time queue here. Not `run`: its future cannot be shown to be Send.
    match MIGRATIONS.run_direct(None, &mut connection, false).await {
        Ok(()) => {}
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => return Err(fault(error)),
        Err(MigrateError::VersionMissing(found)) => {
            let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
            return Err(OpenError::Newer { found, known });
        }
        Err(error) => return Err(OpenError::Foreign(error.to_string())),
    }
    connection.close().await.map_err(fault)
}
