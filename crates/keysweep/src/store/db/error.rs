//! What the errors of sqlx and of both engines mean to a verb's caller.

use sqlx::{
    error::{DatabaseError, ErrorKind},
    postgres::PgDatabaseError,
};

use crate::store::error::StoreError;

/// Returns the meaning of an error. A reference to a missing row becomes a `Missing` whose name the statement gives.
pub(super) fn meaning(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) => match error.kind() {
            ErrorKind::UniqueViolation => taken(&*error),
            ErrorKind::ForeignKeyViolation => StoreError::Missing("row that another refers to"),
            _ if error.try_downcast_ref::<PgDatabaseError>().is_some() => of_postgres(&*error),
            _ => of_sqlite(&*error),
        },
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Unreadable(error.to_string()),
        // A server that goes away in the middle of an answer looks like a breach of the protocol.
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Io(_) => StoreError::Unavailable(error.to_string()),
        other => StoreError::Internal(other.to_string()),
    }
}

/// Unique columns: the constraint that PostgreSQL names, the column that SQLite names, and what they are to a caller.
const UNIQUE: [(&str, &str, &str, &str); 10] = [
    ("project_pkey", "project.id", "project", "id"),
    ("project_name_key", "project.name", "project", "name"),
    ("account_pkey", "account.id", "user", "id"),
    ("account_name_key", "account.name", "user", "name"),
    ("role_grant_pkey", "role_grant.project_id", "role", "project"),
    ("access_key_pkey", "access_key.access", "access key", "access"),
    ("instance_pkey", "instance.id", "instance", "id"),
    // The pair that tasks refer to, (id, project_id), which only a taken id can violate.
    ("instance_id_project_id_key", "instance.project_id", "instance", "id"),
    ("instance_project_id_name_key", "instance.name", "instance", "name"),
    ("task_id_key", "task.id", "task", "id"),
];

/// SQLite says `UNIQUE constraint failed: instance.project_id, instance.name`: the last column tells them apart.
fn taken(error: &dyn DatabaseError) -> StoreError {
    let constraint = error.constraint().unwrap_or_default();
    let last_column = error.message().rsplit([' ', ',']).next().unwrap_or_default();
    let known = UNIQUE.iter().find(|(name, column, ..)| *name == constraint || *column == last_column);
    match known {
        Some((_, _, what, field)) => StoreError::Taken { what, field },
        None => StoreError::Internal(error.message().to_owned()),
    }
}

/// The low byte of a result code; what stands above it is detail.
pub(super) fn primary_code(error: &dyn DatabaseError) -> u32 {
    error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default() & 0xff
}

/// Returns the meaning of a SQLite error that is no violation of a constraint.
fn of_sqlite(error: &dyn DatabaseError) -> StoreError {
    match primary_code(error) {
        // PERM, BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL (the WAL's locks), AUTH
        3 | 5 | 6 | 7 | 8 | 10 | 13 | 14 | 15 | 23 => StoreError::Unavailable(error.message().to_owned()),
        // CORRUPT, NOTADB
        11 | 26 => StoreError::Unreadable(error.message().to_owned()),
        _ => StoreError::Internal(error.to_string()),
    }
}

/// Returns the meaning of a PostgreSQL error that is no violation of a constraint.
fn of_postgres(error: &dyn DatabaseError) -> StoreError {
    let code = error.code().unwrap_or_default();
    match &*code {
        // Read-only (a standby, or a disk that is kept from filling up), lock not available, idle in a transaction, no
        // such database (yet).
        "25006" | "55P03" | "25P03" | "3D000" => StoreError::Unavailable(error.message().to_owned()),
        "XX001" | "XX002" => StoreError::Unreadable(error.message().to_owned()),
        code => match code.get(..2) {
            // Connection, authorization, rollback, resources, operator intervention, system.
            Some("08" | "28" | "40" | "53" | "57" | "58") => StoreError::Unavailable(error.message().to_owned()),
            _ => StoreError::Internal(error.to_string()),
        },
    }
}
