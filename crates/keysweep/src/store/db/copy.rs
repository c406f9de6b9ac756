//! All data at once: a backup of a SQLite file while the service runs, and a copy row by row into PostgreSQL.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path};

use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, PgPool, Postgres, Row, SqliteConnection, SqlitePool,
    Transaction, TypeInfo, ValueRef,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use super::{error, open::OpenError, session::Pool};
use crate::store::error::StoreError;

/// Rows that are copied at a time.
const BATCH: i64 = 500;

/// Writes a whole and consistent copy of a SQLite store to a new file (mode 0600), while other processes write. The schema
/// stays as it is: a copy from before an upgrade has the schema from before it.
pub async fn backup(from: &Path, to: &Path) -> Result<(), OpenError> {
    let unreadable = |error: sqlx::Error| OpenError::File { path: from.to_owned(), why: error::meaning(error) };
    let options = SqliteConnectOptions::new().filename(from).read_only(true).disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(unreadable)?;
    // Created first, for its owner alone; SQLite writes into a file only if it is empty.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    made.map_err(|why| OpenError::Copy { path: to.to_owned(), why })?;
    let done = sqlx::query("VACUUM INTO ?").bind(to.to_string_lossy()).execute(&mut connection).await;
    if let Err(error) = done {
        // Half a copy would pass for a whole one. The first error tells more than a failed removal.
        let _ = std::fs::remove_file(to);
        return Err(unreadable(error));
    }
    connection.close().await.map_err(unreadable)
}

/// A copy that is under way: all of it is kept in the end, or nothing.
pub struct Import {
    transaction: Transaction<'static, Postgres>,
}

impl Pool {
    /// Passes all rows of a SQLite file to `take`, as [`Store::export`](crate::store::Store::export) says.
    pub async fn export(
        &self,
        take: impl AsyncFnMut(&str, Vec<Value>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { readers, .. } => export(readers, take).await,
            Self::Postgres(_) => Err(StoreError::Internal("only a SQLite store can be exported".into())),
        }
    }

    /// Begins to copy rows into an empty PostgreSQL database; `None` when it has projects already.
    pub async fn import(&self) -> Result<Option<Import>, StoreError> {
        match self {
            Self::Sqlite { .. } => Err(StoreError::Internal("only a PostgreSQL store can be imported into".into())),
            Self::Postgres(pool) => import(pool).await.map_err(error::meaning),
        }
    }
}

async fn export(
    readers: &SqlitePool,
    mut take: impl AsyncFnMut(&str, Vec<Value>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut transaction = readers.begin().await.map_err(error::meaning)?;
    let busy = sqlx::query("SELECT 1 FROM lease WHERE owner IS NOT NULL AND expires_at > ?")
        .bind(Timestamp::now().as_microsecond())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(error::meaning)?;
    if busy.is_some() {
        return Err(StoreError::scanning());
    }
    // In the order in which the migrations created them, which is that of their references.
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE '_sqlx%'
         ORDER BY rowid",
    )
    .fetch_all(&mut *transaction)
    .await
    .map_err(error::meaning)?;
    for table in &tables {
        let mut last = i64::MIN;
        loop {
            let sql =
                format!("SELECT rowid AS copied_rowid, * FROM \"{table}\" WHERE rowid > ? ORDER BY rowid LIMIT ?");
            let batch = sqlx::query(AssertSqlSafe(sql)).bind(last).bind(BATCH).fetch_all(&mut *transaction).await;
            let rows = batch.map_err(error::meaning)?;
            let Some(newest) = rows.last() else { break };
            last = newest.try_get("copied_rowid").map_err(error::meaning)?;
            take(table, rows.iter().map(object).collect::<Result<_, _>>().map_err(error::meaning)?).await?;
        }
    }
    Ok(())
}

fn object(row: &SqliteRow) -> Result<Value, sqlx::Error> {
    let mut object = Map::new();
    for (index, column) in row.columns().iter().enumerate().skip(1) {
        let value = row.try_get_raw(index)?;
        let value = match value.type_info().name() {
            _ if value.is_null() => Value::Null,
            "INTEGER" => row.try_get::<i64, _>(index)?.into(),
            "BLOB" => format!("\\x{}", hex::encode(row.try_get::<Vec<u8>, _>(index)?)).into(),
            _ => row.try_get::<String, _>(index)?.into(),
        };
        object.insert(column.name().to_owned(), value);
    }
    Ok(Value::Object(object))
}

async fn import(pool: &PgPool) -> Result<Option<Import>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // Keeps every other process from beginning to fill it meanwhile.
    sqlx::query("LOCK TABLE project IN EXCLUSIVE MODE").execute(&mut *transaction).await?;
    let filled = sqlx::query("SELECT 1 FROM project LIMIT 1").fetch_optional(&mut *transaction).await?;
    Ok(filled.is_none().then_some(Import { transaction }))
}

impl Import {
    /// Adds rows, as objects from column to value, to a table.
    pub async fn add(&mut self, table: &str, rows: Vec<Value>) -> Result<(), StoreError> {
        let sql =
            format!("INSERT INTO \"{table}\" SELECT * FROM jsonb_populate_recordset(NULL::\"{table}\", $1::jsonb)");
        let rows = Value::Array(rows).to_string();
        let added = sqlx::query(AssertSqlSafe(sql)).bind(rows).execute(&mut *self.transaction).await;
        added.map(drop).map_err(error::meaning)
    }

    /// Commits all rows.
    pub async fn finish(self) -> Result<(), StoreError> {
        self.renumber_and_commit().await.map_err(error::meaning)
    }

    async fn renumber_and_commit(mut self) -> Result<(), sqlx::Error> {
        let numbered: Vec<(String, String)> = sqlx::query_as(
            "SELECT table_name::text, column_name::text FROM information_schema.columns
             WHERE table_schema = current_schema() AND is_identity = 'YES'",
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        for (table, column) in numbered {
            // New numbers follow the highest that was copied.
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('\"{table}\"', '{column}'), MAX({column})) FROM \"{table}\"
                 HAVING MAX({column}) IS NOT NULL"
            );
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *self.transaction).await?;
        }
        self.transaction.commit().await
    }
}
