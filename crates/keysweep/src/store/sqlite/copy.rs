//! Taking the data out of the file: as another file, while the service runs, or row by row into another database.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path};

use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Row, SqliteConnection, TypeInfo, ValueRef,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use super::{OpenError, SqliteStore, fault::Fault, row::micros};
use crate::store::StoreError;

/// Rows that are taken at a time.
const BATCH: i64 = 500;

/// Writes a whole and consistent copy of a store's file to a new one (mode 0600), whoever is at work in it. The schema stays
/// as it is: a copy from before an upgrade is from before it.
pub async fn backup(from: &Path, to: &Path) -> Result<(), OpenError> {
    let unreadable = |fault: Fault| OpenError::Store { path: from.to_owned(), why: fault.into() };
    let options = SqliteConnectOptions::new().filename(from).read_only(true).disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(|error| unreadable(error.into()))?;
    // Made first, for its owner alone; SQLite writes into a file only if it is empty.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    made.map_err(|why| OpenError::Copy { path: to.to_owned(), why })?;
    let done = sqlx::query("VACUUM INTO ?").bind(to.to_string_lossy()).execute(&mut connection).await;
    if let Err(error) = done {
        // Half a copy would pass for a whole one. That it cannot be removed either is the lesser news.
        let _ = std::fs::remove_file(to);
        return Err(unreadable(error.into()));
    }
    connection.close().await.map_err(|error| unreadable(error.into()))
}

impl SqliteStore {
    /// Gives all rows, as they are at one moment, to `take`: a table after those that it refers to, some hundred rows
    /// at a time, sealed values as `\x` and hexadecimal digits. Refused while a worker is at it: what it writes next would be
    /// in one of the two databases only.
    pub async fn give_all(
        &self,
        mut take: impl AsyncFnMut(&str, Vec<Value>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // Not bounded as other verbs are: it takes as long as there are rows.
        let mut all = async || {
            let mut transaction = self.readers.begin().await?;
            let busy = sqlx::query("SELECT 1 FROM lease WHERE owner IS NOT NULL AND expires_at > ?")
                .bind(micros(Timestamp::now()))
                .fetch_optional(&mut *transaction)
                .await?;
            if busy.is_some() {
                return Err(Fault::Known(StoreError::sweeping()));
            }
            // In the order in which the migrations made them, which is that of their references.
            let tables: Vec<String> = sqlx::query_scalar(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE '_sqlx%'
                 ORDER BY rowid",
            )
            .fetch_all(&mut *transaction)
            .await?;
            for table in &tables {
                let mut last = i64::MIN;
                loop {
                    let sql = format!(
                        "SELECT rowid AS copied_rowid, * FROM \"{table}\" WHERE rowid > ? ORDER BY rowid LIMIT ?"
                    );
                    let rows =
                        sqlx::query(AssertSqlSafe(sql)).bind(last).bind(BATCH).fetch_all(&mut *transaction).await?;
                    let Some(newest) = rows.last() else { break };
                    last = newest.try_get("copied_rowid")?;
                    take(table, rows.iter().map(object).collect::<Result<_, _>>()?).await?;
                }
            }
            Ok(())
        };
        all().await.map_err(StoreError::from)
    }
}

fn object(row: &SqliteRow) -> Result<Value, Fault> {
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
