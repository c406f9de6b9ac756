//! Rows of either engine, read by column name and type: an impossible value does not get into the model.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type, postgres::PgRow, sqlite::SqliteRow};

use super::error;
use crate::{
    model::{MarkKind, Reason, Role, Sampling, ScanType, Sealed, Status, Stored},
    store::error::StoreError,
};

/// A row as its engine returned it.
pub enum Row {
    /// From SQLite.
    Sqlite(SqliteRow),
    /// From PostgreSQL.
    Postgres(PgRow),
}

impl Row {
    /// Returns the value of a column: of a `T`, which must be there, or of an `Option`. `Unreadable` names the column.
    pub fn get<T: Column>(&self, column: &str) -> Result<T, StoreError> {
        T::from_row(self, column)
    }

    fn read<T>(&self, column: &str) -> Result<Option<T>, StoreError>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let value = match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        };
        value.map_err(error::meaning)
    }
}

/// The error of a column whose value this version cannot read.
pub fn unreadable(column: &str, cause: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable(format!("{column}: {cause}"))
}

/// Reads a time from microseconds since the epoch.
pub fn time(column: &str, micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|error| unreadable(column, error))
}

/// A type that a column's value is read as.
pub trait Cell: Sized {
    /// Reads the column's value; `None`: NULL.
    fn read(row: &Row, column: &str) -> Result<Option<Self>, StoreError>;
}

/// A column that must have a value, or one that may.
pub trait Column: Sized {
    /// Reads the column.
    fn from_row(row: &Row, column: &str) -> Result<Self, StoreError>;
}

impl<T: Cell> Column for T {
    fn from_row(row: &Row, column: &str) -> Result<Self, StoreError> {
        T::read(row, column)?.ok_or_else(|| unreadable(column, "it is empty"))
    }
}

impl<T: Cell> Column for Option<T> {
    fn from_row(row: &Row, column: &str) -> Result<Self, StoreError> {
        T::read(row, column)
    }
}

/// Types that both engines decode, and types that are made of one.
macro_rules! cells {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            fn read(row: &Row, column: &str) -> Result<Option<Self>, StoreError> {
                row.read(column)
            }
        }
    )+};
    ($($type:ty: $from:ty, |$column:ident, $value:ident| $read:expr;)+) => {$(
        impl Cell for $type {
            fn read(row: &Row, $column: &str) -> Result<Option<Self>, StoreError> {
                row.read::<$from>($column)?.map(|$value| $read).transpose()
            }
        }
    )+};
}

/// A text that cannot be read is a value of its own: the row around it is readable.
impl<T: FromStr<Err: fmt::Display>> Cell for Stored<T> {
    fn read(row: &Row, column: &str) -> Result<Option<Self>, StoreError> {
        Ok(row.read::<String>(column)?.map(Self::read))
    }
}

cells!(i64, String, Vec<u8>, bool);

cells! {
    u32: i64, |column, number| number.try_into().map_err(|error| unreadable(column, error));
    u64: i64, |column, number| number.try_into().map_err(|error| unreadable(column, error));
    Timestamp: i64, |column, micros| time(column, micros);
    Duration: i64, |column, micros| match micros.try_into() {
        Ok(micros) => Ok(Duration::from_micros(micros)),
        Err(error) => Err(unreadable(column, error)),
    };
    Sealed: Vec<u8>, |_column, bytes| Ok(Sealed(bytes));
    Status: String, |column, name| name.parse().map_err(|error| unreadable(column, error));
    ScanType: String, |column, name| name.parse().map_err(|error| unreadable(column, error));
    Sampling: String, |column, name| name.parse().map_err(|error| unreadable(column, error));
    MarkKind: String, |column, name| name.parse().map_err(|error| unreadable(column, error));
    Role: String, |column, name| name.parse().map_err(|error| unreadable(column, error));
    Reason: String, |_column, code| Ok(Reason::from(code));
}
