//! How this database's rows give their columns.

use sqlx::{Decode, Postgres, Row, Type, postgres::PgRow};

use super::fault::Fault;
use crate::store::StoreError;
pub(super) use crate::store::row::*;

impl Columns for PgRow {
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

fn read<'r, T>(row: &'r PgRow, column: &'static str) -> Result<Option<T>, StoreError>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    row.try_get(column).map_err(|error| Fault::from(error).into())
}
