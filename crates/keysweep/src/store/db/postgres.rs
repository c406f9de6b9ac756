//! The store in a PostgreSQL database: how it is opened and upgraded.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    error, migrations,
    open::{OpenError, UpgradeError},
    session::{Pool, TIMEOUT},
};
use crate::store::error::StoreError;

/// Connections that one replica holds at most. Verbs take milliseconds.
const CONNECTIONS: u32 = 10;
/// PostgreSQL 15, as `server_version_num` counts: the oldest that the tests run on.
const OLDEST: i32 = 150_000;
/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Pool {
    /// Opens the store in the database that this URL (`postgres://user:password@host:port/name`) names.
    pub async fn open_postgres(url: &str) -> Result<Self, OpenError> {
        let options = PgConnectOptions::from_str(url).map_err(|error| OpenError::Url(error.to_string()))?;
        let options = options.application_name("keysweep").disable_statement_logging();
        upgrade(&options).await?;
        // A replica that is paused or cut off in the middle of a transaction must not keep its locks: its leases expire.
        let bound = format!("{}ms", TIMEOUT.as_millis());
        let options = options.options([
            ("statement_timeout", bound.as_str()),
            ("lock_timeout", bound.as_str()),
            ("idle_in_transaction_session_timeout", bound.as_str()),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(TIMEOUT)
            .idle_timeout(Duration::from_secs(10 * 60))
            .connect_lazy_with(options);
        Ok(Self::Postgres(pool))
    }
}

/// Runs the migrations that are missing. Not bounded: a later migration of a large table may take minutes. It takes an
/// advisory lock, at which replicas that start at the same time queue.
async fn upgrade(options: &PgConnectOptions) -> Result<(), OpenError> {
    let store = |error: sqlx::Error| OpenError::Store(error::meaning(error));
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options));
    let mut connection = connecting
        .await
        .map_err(|_| StoreError::Unavailable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))?
        .map_err(store)?;
    let (number, version): (i32, String) =
        sqlx::query_as("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
            .fetch_one(&mut connection)
            .await
            .map_err(store)?;
    if number < OLDEST {
        return Err(OpenError::Old(version));
    }
    // Not `run`: its future cannot be shown to be Send.
    let migrated = migrations::POSTGRES.run_direct(None, &mut connection, false).await;
    migrated
        .map_err(|error| UpgradeError::new(error, &migrations::POSTGRES).at("the database".into(), OpenError::Store))?;
    connection.close().await.map_err(store)
}
