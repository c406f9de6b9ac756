//! From rows to nouns and back: where a state that cannot be does not get in.

use std::{str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{ColumnIndex, Decode, Postgres, Row, Type, postgres::PgRow};

use super::fault::Fault;
use crate::{
    model::{AccessKey, AuditEntry, AutoScan, Facts, Grant, Instance, Project, Sealed, Task, Token, UnknownName, User},
    store::StoreError,
};

/// The form of the JSON documents that this version writes.
pub(super) const DOCUMENT_VERSION: i64 = 1;
/// The form of the facts that this version writes.
const FACTS_VERSION: u32 = 1;

/// A time as it is stored.
pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// A stored time.
pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|error| StoreError::Unreadable(format!("a time: {error}")))
}

/// A duration as it is stored. Nobody waits 292,000 years to notice the bound.
pub(super) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A number as it is stored.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A row whose columns are read by name and meaning.
pub(super) struct Reader<'r>(pub(super) &'r PgRow);

impl<'r> Reader<'r> {
    pub(super) fn get<T>(&self, column: &'static str) -> Result<T, Fault>
    where
        T: Decode<'r, Postgres> + Type<Postgres>,
        &'static str: ColumnIndex<PgRow>,
    {
        Ok(self.0.try_get(column)?)
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, Fault> {
        self.optional_time(column)?.ok_or_else(|| unreadable(column, "it is empty"))
    }

    pub(super) fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, Fault> {
        let micros: Option<i64> = self.get(column)?;
        micros.map(|micros| Timestamp::from_microsecond(micros).map_err(|error| unreadable(column, error))).transpose()
    }

    pub(super) fn count(&self, column: &'static str) -> Result<u64, Fault> {
        let number: i64 = self.get(column)?;
        u64::try_from(number).map_err(|error| unreadable(column, error))
    }

    pub(super) fn small(&self, column: &'static str) -> Result<u32, Fault> {
        let number: i64 = self.get(column)?;
        u32::try_from(number).map_err(|error| unreadable(column, error))
    }

    fn span(&self, column: &'static str) -> Result<Duration, Fault> {
        Ok(Duration::from_micros(self.count(column)?))
    }

    pub(super) fn name<T: FromStr<Err = UnknownName>>(&self, column: &'static str) -> Result<T, Fault> {
        let name: &str = self.get(column)?;
        name.parse().map_err(|error| unreadable(column, error))
    }

    pub(super) fn optional_name<T: FromStr<Err = UnknownName>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, Fault> {
        let name: Option<&str> = self.get(column)?;
        name.map(|name| name.parse().map_err(|error| unreadable(column, error))).transpose()
    }

    fn sealed(&self, column: &'static str) -> Result<Option<Sealed>, Fault> {
        let bytes: Option<Vec<u8>> = self.get(column)?;
        Ok(bytes.map(Sealed))
    }
}

fn unreadable(column: &str, cause: impl std::fmt::Display) -> Fault {
    Fault::Known(StoreError::Unreadable(format!("{column}: {cause}")))
}

/// Facts with the version of their form.
#[derive(Serialize, Deserialize)]
struct Versioned<F> {
    version: u32,
    #[serde(flatten)]
    facts: F,
}

/// Facts as they are stored.
pub(super) fn facts_to_json(facts: &Facts) -> Result<String, Fault> {
    serde_json::to_string(&Versioned { version: FACTS_VERSION, facts })
        .map_err(|error| Fault::Known(StoreError::Internal(format!("facts cannot be written: {error}"))))
}

fn facts_from_json(json: &str) -> Result<Facts, Fault> {
    let Versioned { version, facts } = serde_json::from_str(json).map_err(|error| unreadable("facts", error))?;
    match version {
        FACTS_VERSION => Ok(facts),
        other => Err(unreadable("facts", format!("version {other} is not known"))),
    }
}

pub(super) fn project(row: &PgRow) -> Result<Project, Fault> {
    let row = Reader(row);
    Ok(Project { id: row.get("id")?, name: row.get("name")?, created_at: row.time("created_at")? })
}

pub(super) fn user(row: &PgRow) -> Result<User, Fault> {
    let row = Reader(row);
    Ok(User {
        id: row.get("id")?,
        name: row.get("name")?,
        password_hash: row.get("password_hash")?,
        disabled: row.get("disabled")?,
        created_at: row.time("created_at")?,
    })
}

pub(super) fn grant(row: &PgRow) -> Result<Grant, Fault> {
    let row = Reader(row);
    Ok(Grant { project_id: row.get("project_id")?, role: row.name("role")? })
}

pub(super) fn access_key(row: &PgRow) -> Result<AccessKey, Fault> {
    let row = Reader(row);
    Ok(AccessKey {
        access: row.get("access")?,
        user_id: row.get("account_id")?,
        secret: Sealed(row.get("secret")?),
        disabled: row.get("disabled")?,
        created_at: row.time("created_at")?,
    })
}

pub(super) fn token(row: &PgRow) -> Result<Token, Fault> {
    let row = Reader(row);
    Ok(Token {
        hash: row.get("hash")?,
        user_id: row.get("account_id")?,
        project_id: row.get("project_id")?,
        issued_at: row.time("issued_at")?,
        expires_at: row.time("expires_at")?,
    })
}

pub(super) fn audit_entry(row: &PgRow) -> Result<AuditEntry, Fault> {
    let row = Reader(row);
    Ok(AuditEntry {
        seq: row.get("seq")?,
        happened_at: row.time("happened_at")?,
        project_id: row.get("project_id")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        subject: row.get("subject")?,
        detail: row.get("detail")?,
    })
}

pub(super) fn auto_scan(row: &PgRow) -> Result<AutoScan, Fault> {
    let row = Reader(row);
    Ok(AutoScan {
        instance_id: row.get("instance_id")?,
        enabled: row.get("enabled")?,
        first_scan_at: row.optional_time("first_scan_at")?,
        interval: row.span("interval_us")?,
        timeout: row.span("timeout_us")?,
        scan_keys_count: row.small("scan_keys_count")?,
        updated_at: row.time("updated_at")?,
    })
}

pub(super) fn instance(row: &PgRow) -> Result<Instance, Fault> {
    let row = Reader(row);
    let facts: Option<&str> = row.get("facts")?;
    Ok(Instance {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        url: row.get("url")?,
        username: row.get("username")?,
        password: row.sealed("password")?,
        sentinel_username: row.get("sentinel_username")?,
        sentinel_password: row.sealed("sentinel_password")?,
        ca_pem: row.get("ca_pem")?,
        cert_pem: row.get("cert_pem")?,
        client_key: row.sealed("client_key")?,
        server_name: row.get("server_name")?,
        address_map: row.get("address_map")?,
        pace: row.get("pace")?,
        window: row.get("off_peak_window")?,
        window_binds_manual: row.get("window_binds_manual")?,
        manage_lazyfree: row.get("manage_lazyfree")?,
        paused: row.get("paused")?,
        facts: facts.map(facts_from_json).transpose()?,
        unreachable: row.get("unreachable")?,
        created_at: row.time("created_at")?,
    })
}

pub(super) fn task(row: &PgRow) -> Result<Task, Fault> {
    let row = Reader(row);
    let keys_per_second: Option<i64> = row.get("keys_per_second")?;
    Ok(Task {
        seq: row.get("seq")?,
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        instance_id: row.get("instance_id")?,
        status: row.name("status")?,
        reason: row.optional_name("reason")?,
        reason_detail: row.get("reason_detail")?,
        scan_type: row.name("scan_type")?,
        requested_by: row.get("requested_by")?,
        created_at: row.time("created_at")?,
        started_at: row.optional_time("started_at")?,
        finished_at: row.optional_time("finished_at")?,
        due_at: row.optional_time("due_at")?,
        cancel_requested: row.get("cancel_requested")?,
        timeout: row.span("timeout_us")?,
        used: row.span("used_us")?,
        attempts: row.small("attempts")?,
        keys_per_second: keys_per_second.map(|_| row.count("keys_per_second")).transpose()?,
        released: row.count("released")?,
        scanned: row.count("scanned")?,
        exact: row.get("exact")?,
    })
}

/// The documents beside a task's row, or none: progress, checkpoint, report.
pub(super) fn documents(row: Option<&PgRow>) -> Result<[Option<String>; 3], Fault> {
    let Some(row) = row.map(Reader) else { return Ok([None, None, None]) };
    match row.get::<i64>("version")? {
        DOCUMENT_VERSION => Ok([row.get("progress")?, row.get("checkpoint")?, row.get("report")?]),
        other => Err(unreadable("task_document", format!("version {other} is not known"))),
    }
}
