//! One statement with its values, for either engine.

use std::borrow::Cow;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Postgres, Sqlite};

use super::{
    row::Row,
    session::{DbConnection, DbSession, bounded},
};
use crate::{
    model::{MarkKind, Reason, Role, Sampling, ScanType, Sealed, Status},
    store::error::StoreError,
};

/// A value for a placeholder. PostgreSQL needs the type of an absent one as well.
#[derive(Debug, Clone)]
pub enum Value {
    /// A number, a time in microseconds since the epoch, or a duration in microseconds.
    Integer(Option<i64>),
    /// A text, the name of an enum's variant, or JSON.
    Text(Option<String>),
    /// A boolean.
    Flag(Option<bool>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
}

/// Lets types be bound, and options of them.
macro_rules! bindable {
    ($($type:ty => $variant:ident, |$value:ident| $stored:expr;)+) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                Self::$variant(Some($stored))
            }
        }

        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value.map(|$value| $stored))
            }
        }
    )+};
}

bindable! {
    i64 => Integer, |number| number;
    u32 => Integer, |number| number.into();
    // No count reaches the bound.
    u64 => Integer, |number| i64::try_from(number).unwrap_or(i64::MAX);
    Timestamp => Integer, |time| time.as_microsecond();
    // The bound is 292,000 years.
    std::time::Duration => Integer, |duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    bool => Flag, |flag| flag;
    &str => Text, |text| text.to_owned();
    &String => Text, |text| text.clone();
    String => Text, |text| text;
    Status => Text, |status| status.as_str().to_owned();
    ScanType => Text, |scan_type| scan_type.as_str().to_owned();
    Sampling => Text, |sampling| sampling.as_str().to_owned();
    MarkKind => Text, |kind| kind.as_str().to_owned();
    Role => Text, |role| role.as_str().to_owned();
    &Reason => Text, |reason| reason.as_str().to_owned();
    &[u8] => Bytes, |bytes| bytes.to_vec();
    &Vec<u8> => Bytes, |bytes| bytes.clone();
    &Sealed => Bytes, |sealed| sealed.0.clone();
}

/// A list of texts as one value, whose elements are the keys of `json_each($1/*!::json*/)`: SQLite has no arrays.
pub fn keys<'t>(texts: impl IntoIterator<Item = &'t String>) -> String {
    let keys = texts.into_iter().map(|text| (text.clone(), serde_json::Value::Null));
    serde_json::Value::Object(keys.collect()).to_string()
}

/// A statement and the values of its placeholders, in their order.
#[must_use = "a statement does nothing until it is run"]
pub struct Statement {
    /// `None`: SQLite skips it.
    sqlite: Option<Cow<'static, str>>,
    postgres: Cow<'static, str>,
    values: Vec<Value>,
    refers_to: Option<&'static str>,
}

/// A statement with the same text for both engines.
pub fn sql(text: impl Into<Cow<'static, str>>) -> Statement {
    let text = text.into();
    let postgres = match text.contains("/*!") {
        true => text.replace("/*!", "").replace("*/", "").into(),
        false => text.clone(),
    };
    Statement { sqlite: Some(text), postgres, values: Vec::new(), refers_to: None }
}

/// A statement that no single text can say to both engines.
pub fn forked(sqlite: &'static str, postgres: &'static str) -> Statement {
    Statement { sqlite: Some(sqlite.into()), ..sql(postgres) }
}

/// A statement that only takes locks. SQLite, which has one writer, skips it.
pub fn lock(text: &'static str) -> Statement {
    Statement { sqlite: None, ..sql(text) }
}

/// The sqlx query of a statement, for one engine.
macro_rules! query {
    ($engine:ty, $text:expr, $values:expr) => {
        $values.into_iter().fold(sqlx::query::<$engine>(AssertSqlSafe($text)), |query, value| match value {
            Value::Integer(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Flag(flag) => query.bind(flag),
            Value::Bytes(bytes) => query.bind(bytes),
        })
    };
}

/// Runs a statement on the session's engine. Evaluates to what `$fetch` returns there, or to `$skipped`.
macro_rules! run {
    ($statement:ident, $session:ident, $fetch:ident, $skipped:expr, $sqlite:expr, $postgres:expr) => {{
        let Statement { sqlite, postgres, values, refers_to } = $statement;
        let DbSession { connection, deadline, meter, .. } = $session;
        let answer = match (connection, sqlite) {
            (DbConnection::Sqlite(_), None) => return $skipped,
            (DbConnection::Sqlite(handle), Some(text)) => {
                bounded(*deadline, query!(Sqlite, text, values).$fetch(&mut **handle)).await.map($sqlite)
            }
            (DbConnection::Postgres(handle), _) => {
                bounded(*deadline, query!(Postgres, postgres, values).$fetch(&mut **handle)).await.map($postgres)
            }
        };
        meter.note(answer.map_err(|error| match (error, refers_to) {
            (StoreError::Missing(_), Some(what)) => StoreError::Missing(what),
            (error, _) => error,
        }))
    }};
}

impl Statement {
    /// Adds the next placeholder's value.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Names what the statement's references point to, for the error when it does not exist: engines do not always say.
    pub fn refers_to(self, what: &'static str) -> Self {
        Self { refers_to: Some(what), ..self }
    }

    /// Runs the statement and returns how many rows it changed.
    pub async fn execute(self, session: &mut DbSession) -> Result<u64, StoreError> {
        run!(self, session, execute, Ok(0), |done| done.rows_affected(), |done| done.rows_affected())
    }

    /// Changes one row of a `what`. `Missing` when the statement found none.
    pub async fn change(self, what: &'static str, session: &mut DbSession) -> Result<(), StoreError> {
        match self.execute(session).await? {
            0 => Err(StoreError::Missing(what)),
            _ => Ok(()),
        }
    }

    /// Returns the first row, if any.
    pub async fn optional(self, session: &mut DbSession) -> Result<Option<Row>, StoreError> {
        run!(self, session, fetch_optional, Ok(None), |row| row.map(Row::Sqlite), |row| row.map(Row::Postgres))
    }

    /// Returns the row that the statement always has.
    pub async fn one(self, session: &mut DbSession) -> Result<Row, StoreError> {
        let found = self.optional(session).await?;
        found.ok_or_else(|| StoreError::Internal("a statement returned no row".into()))
    }

    /// Returns all rows.
    pub async fn all(self, session: &mut DbSession) -> Result<Vec<Row>, StoreError> {
        run!(self, session, fetch_all, Ok(Vec::new()), |rows| rows.into_iter().map(Row::Sqlite).collect(), |rows| rows
            .into_iter()
            .map(Row::Postgres)
            .collect())
    }

    /// Returns all rows, each read by `read`.
    pub async fn list<T>(
        self,
        session: &mut DbSession,
        read: impl FnMut(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.all(session).await?.iter().map(read).collect()
    }
}
