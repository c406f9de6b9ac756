//! Taking over the data of another database.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Postgres, Transaction};

use super::{PostgresStore, fault::Fault};
use crate::store::StoreError;

/// A copy that is under way: all of it is kept in the end, or nothing.
pub struct Intake {
    transaction: Transaction<'static, Postgres>,
}

impl PostgresStore {
    /// Begins to take over another database's rows; `None` where there are projects already.
    pub async fn intake(&self) -> Result<Option<Intake>, StoreError> {
        let begun = async {
            let mut transaction = self.pool.begin().await?;
            // Nobody else may begin to fill it meanwhile.
            sqlx::query("LOCK TABLE project IN EXCLUSIVE MODE").execute(&mut *transaction).await?;
            let filled = sqlx::query("SELECT 1 FROM project LIMIT 1").fetch_optional(&mut *transaction).await?;
            Ok(filled.is_none().then_some(Intake { transaction }))
        };
        begun.await.map_err(|fault: Fault| fault.into())
    }
}

impl Intake {
    /// Adds rows, as objects from column to value, to a table.
    pub async fn add(&mut self, table: &str, rows: Vec<Value>) -> Result<(), StoreError> {
        let sql =
            format!("INSERT INTO \"{table}\" SELECT * FROM jsonb_populate_recordset(NULL::\"{table}\", $1::jsonb)");
        let rows = Value::Array(rows).to_string();
        let added = sqlx::query(AssertSqlSafe(sql)).bind(rows).execute(&mut *self.transaction).await;
        added.map_err(|error| StoreError::from(Fault::from(error)))?;
        Ok(())
    }

    /// Keeps it all.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        let finished = async {
            let numbered: Vec<(String, String)> = sqlx::query_as(
                "SELECT table_name::text, column_name::text FROM information_schema.columns
                 WHERE table_schema = current_schema() AND is_identity = 'YES'",
            )
            .fetch_all(&mut *self.transaction)
            .await?;
            for (table, column) in numbered {
                // Numbers go on after the highest that was taken over.
                let sql = format!(
                    "SELECT setval(pg_get_serial_sequence('\"{table}\"', '{column}'), MAX({column})) FROM \"{table}\"
                     HAVING MAX({column}) IS NOT NULL"
                );
                sqlx::query(AssertSqlSafe(sql)).execute(&mut *self.transaction).await?;
            }
            self.transaction.commit().await?;
            Ok::<_, Fault>(())
        };
        finished.await.map_err(StoreError::from)
    }
}
