//! What goes wrong inside a verb, and what its caller hears of it.

use sqlx::error::{DatabaseError, ErrorKind};

use crate::store::StoreError;

/// An error before it is known what it means to the caller.
pub(super) enum Fault {
    /// SQLite's or sqlx's.
    Sql(sqlx::Error),
    /// One whose meaning is known.
    Known(StoreError),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Known(error)
    }
}

/// For a statement that refers to a `what`: SQLite does not say which reference failed.
pub(super) fn missing(what: &'static str) -> impl Fn(sqlx::Error) -> Fault {
    move |error| match error.as_database_error().map(DatabaseError::kind) {
        Some(ErrorKind::ForeignKeyViolation) => Fault::Known(StoreError::Missing(what)),
        _ => Fault::Sql(error),
    }
}

/// For a change of one `what`: that there was one to change.
pub(super) fn found(rows: u64, what: &'static str) -> Result<(), Fault> {
    if rows == 0 { Err(Fault::Known(StoreError::Missing(what))) } else { Ok(()) }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Known(error) => error,
            Fault::Sql(error) => from_sql(error),
        }
    }
}

fn from_sql(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) => from_sqlite(&*error),
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed
        | sqlx::Error::Io(_) => StoreError::Unavailable(error.to_string()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Unreadable(error.to_string()),
        other => StoreError::Internal(other.to_string()),
    }
}

fn from_sqlite(error: &dyn DatabaseError) -> StoreError {
    if error.kind() == ErrorKind::UniqueViolation {
        return taken(error.message());
    }
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
    // The low byte is the primary code; what stands above it is detail.
    match code & 0xff {
        // PERM, BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL (the WAL's locks), AUTH
        3 | 5 | 6 | 7 | 8 | 10 | 13 | 14 | 15 | 23 => StoreError::Unavailable(error.message().to_owned()),
        // CORRUPT, NOTADB
        11 | 26 => StoreError::Unreadable(error.message().to_owned()),
        _ => StoreError::Internal(error.to_string()),
    }
}

/// Reads `UNIQUE constraint failed: instance.project_id, instance.name`: the last column is the one that tells.
fn taken(message: &str) -> StoreError {
    let column = message.rsplit([' ', ',']).next().unwrap_or_default();
    let (what, field) = match column {
        "project.id" => ("project", "id"),
        "project.name" => ("project", "name"),
        "account.id" => ("user", "id"),
        "account.name" => ("user", "name"),
        "role_grant.project_id" => ("role", "project"),
        "access_key.access" => ("access key", "access"),
        // The second is the pair that tasks refer to, (id, project_id), which only a taken id can violate.
        "instance.id" | "instance.project_id" => ("instance", "id"),
        "instance.name" => ("instance", "name"),
        "task.id" => ("task", "id"),
        _ => return StoreError::Internal(message.to_owned()),
    };
    StoreError::Taken { what, field }
}
