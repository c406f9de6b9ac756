//! What goes wrong inside a verb, and what its caller hears of it.

use sqlx::error::{DatabaseError, ErrorKind};

use crate::store::StoreError;

/// An error before it is known what it means to the caller.
pub(super) enum Fault {
    /// PostgreSQL's or sqlx's.
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

/// For a statement that refers to a `what`.
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
        sqlx::Error::Database(error) => from_postgres(&*error),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Unreadable(error.to_string()),
        // A server that goes away in mid-answer shows as a breach of the protocol, too.
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

fn from_postgres(error: &dyn DatabaseError) -> StoreError {
    if error.kind() == ErrorKind::UniqueViolation {
        return taken(error.constraint().unwrap_or_default());
    }
    let code = error.code().unwrap_or_default();
    match &*code {
        // Read-only (a standby, or a disk that is kept from filling up), lock not to be had, idle in a transaction, no
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

fn taken(constraint: &str) -> StoreError {
    let (what, field) = match constraint {
        "project_pkey" => ("project", "id"),
        "project_name_key" => ("project", "name"),
        "account_pkey" => ("user", "id"),
        "account_name_key" => ("user", "name"),
        "role_grant_pkey" => ("role", "project"),
        "access_key_pkey" => ("access key", "access"),
        // The second is the pair that tasks refer to, which only a taken id can violate.
        "instance_pkey" | "instance_id_project_id_key" => ("instance", "id"),
        "instance_project_id_name_key" => ("instance", "name"),
        "task_id_key" => ("task", "id"),
        other => return StoreError::Internal(format!("{other} is violated")),
    };
    StoreError::Taken { what, field }
}
