//! How this database's rows give their columns.

use sqlx::{Decode, Row, Sqlite, Type, sqlite::SqliteRow};

use super::fault::Fault;
use crate::store::StoreError;
pub(super) use crate::store::row::*;

impl Columns for SqliteRow {
    fn integer(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        read(self, column)
    }

    fn text(&self, column: &'static str) -> Result<Option<&str>, StoreError> {
        read(self, column)
    }

    fn bytes(&self, column: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        read(self, column)
    }

    fn flag(&self, column: &'static str) -> Result<Option<bool>, StoreError> {
        read(self, column)
    }
}

fn read<'r, T>(row: &'r SqliteRow, column: &'static str) -> Result<Option<T>, StoreError>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(column).map_err(|error| Fault::from(error).into())
}

/// Texts as one value, for `json_each`: SQLite has no lists.
pub(super) fn texts(texts: &[String]) -> Result<String, StoreError> {
    serde_json::to_string(texts).map_err(|error| StoreError::Internal(format!("a list cannot be written: {error}")))
}
