//! From rows to nouns and back, for every database: where a state that cannot be does not get in.

use std::{collections::HashMap, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{InstanceOverview, Plan, SecretAt, SecretField, StoreError};
use crate::model::{
    AccessKey, AuditEntry, AutoScan, Facts, Grant, Instance, LazyFreeHold, Project, Role, ScanType, Sealed, Task,
    TaskDetail, Token, UnknownName, User, UserRoles, closed_until,
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

/// A row as a database gives it: what a column of this type holds, or nothing.
pub(super) trait Columns {
    fn integer(&self, column: &'static str) -> Result<Option<i64>, StoreError>;
    fn text(&self, column: &'static str) -> Result<Option<&str>, StoreError>;
    fn bytes(&self, column: &'static str) -> Result<Option<Vec<u8>>, StoreError>;
    fn flag(&self, column: &'static str) -> Result<Option<bool>, StoreError>;
}

/// What a single column is read as.
trait Cell<'r>: Sized {
    fn read(row: &'r impl Columns, column: &'static str) -> Result<Option<Self>, StoreError>;
}

impl<'r> Cell<'r> for i64 {
    fn read(row: &'r impl Columns, column: &'static str) -> Result<Option<Self>, StoreError> {
        row.integer(column)
    }
}

impl<'r> Cell<'r> for u32 {
    fn read(row: &'r impl Columns, column: &'static str) -> Result<Option<Self>, StoreError> {
        let number = row.integer(column)?;
        number.map(|number| Self::try_from(number).map_err(|error| unreadable(column, error))).transpose()
    }
}

impl<'r> Cell<'r> for &'r str {
    fn read(row: &'r impl Columns, column: &'static str) -> Result<Option<Self>, StoreError> {
        row.text(column)
    }
}

impl<'r> Cell<'r> for String {
    fn read(row: &'r impl Columns, column: &'static str) -> Result<Option<Self>, StoreError> {
        Ok(row.text(column)?.map(str::to_owned))
    }
}

impl<'r> Cell<'r> for Vec<u8> {
    fn read(row: &'r impl Columns, column: &'static str) -> Result<Option<Self>, StoreError> {
        row.bytes(column)
    }
}

impl<'r> Cell<'r> for bool {
    fn read(row: &'r impl Columns, column: &'static str) -> Result<Option<Self>, StoreError> {
        row.flag(column)
    }
}

/// A column that must hold something, or one that may.
pub(super) trait Column<'r>: Sized {
    fn from(row: &'r impl Columns, column: &'static str) -> Result<Self, StoreError>;
}

impl<'r, T: Cell<'r>> Column<'r> for T {
    fn from(row: &'r impl Columns, column: &'static str) -> Result<Self, StoreError> {
        T::read(row, column)?.ok_or_else(|| unreadable(column, "it is empty"))
    }
}

impl<'r, T: Cell<'r>> Column<'r> for Option<T> {
    fn from(row: &'r impl Columns, column: &'static str) -> Result<Self, StoreError> {
        T::read(row, column)
    }
}

/// A row whose columns are read by name and meaning.
pub(super) struct Reader<'r, R>(pub(super) &'r R);

impl<'r, R: Columns> Reader<'r, R> {
    pub(super) fn get<T: Column<'r>>(&self, column: &'static str) -> Result<T, StoreError> {
        T::from(self.0, column)
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.optional_time(column)?.ok_or_else(|| unreadable(column, "it is empty"))
    }

    pub(super) fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        let micros: Option<i64> = self.get(column)?;
        micros.map(|micros| Timestamp::from_microsecond(micros).map_err(|error| unreadable(column, error))).transpose()
    }

    pub(super) fn count(&self, column: &'static str) -> Result<u64, StoreError> {
        let number: i64 = self.get(column)?;
        u64::try_from(number).map_err(|error| unreadable(column, error))
    }

    fn span(&self, column: &'static str) -> Result<Duration, StoreError> {
        Ok(Duration::from_micros(self.count(column)?))
    }

    pub(super) fn name<T: FromStr<Err = UnknownName>>(&self, column: &'static str) -> Result<T, StoreError> {
        let name: &str = self.get(column)?;
        name.parse().map_err(|error| unreadable(column, error))
    }

    pub(super) fn optional_name<T: FromStr<Err = UnknownName>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let name: Option<&str> = self.get(column)?;
        name.map(|name| name.parse().map_err(|error| unreadable(column, error))).transpose()
    }

    fn sealed(&self, column: &'static str) -> Result<Option<Sealed>, StoreError> {
        let bytes: Option<Vec<u8>> = self.get(column)?;
        Ok(bytes.map(Sealed))
    }
}

fn unreadable(column: &str, cause: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable(format!("{column}: {cause}"))
}

/// Facts with the version of their form.
#[derive(Serialize, Deserialize)]
struct Versioned<F> {
    version: u32,
    #[serde(flatten)]
    facts: F,
}

/// Facts as they are stored.
pub(super) fn facts_to_json(facts: &Facts) -> Result<String, StoreError> {
    serde_json::to_string(&Versioned { version: FACTS_VERSION, facts })
        .map_err(|error| StoreError::Internal(format!("facts cannot be written: {error}")))
}

fn facts_from_json(json: &str) -> Result<Facts, StoreError> {
    let Versioned { version, facts } = serde_json::from_str(json).map_err(|error| unreadable("facts", error))?;
    match version {
        FACTS_VERSION => Ok(facts),
        other => Err(unreadable("facts", format!("version {other} is not known"))),
    }
}

pub(super) fn project(row: &impl Columns) -> Result<Project, StoreError> {
    let row = Reader(row);
    Ok(Project { id: row.get("id")?, name: row.get("name")?, created_at: row.time("created_at")? })
}

pub(super) fn user(row: &impl Columns) -> Result<User, StoreError> {
    let row = Reader(row);
    Ok(User {
        id: row.get("id")?,
        name: row.get("name")?,
        password_hash: row.get("password_hash")?,
        disabled: row.get("disabled")?,
        created_at: row.time("created_at")?,
    })
}

/// Users with the roles of each, from the rows of both.
pub(super) fn users_with_roles<R: Columns>(users: &[R], grants: &[R]) -> Result<Vec<UserRoles>, StoreError> {
    let mut grants_of: HashMap<String, Vec<Grant>> = HashMap::new();
    for row in grants {
        grants_of.entry(Reader(row).get("account_id")?).or_default().push(grant(row)?);
    }
    let with_roles = |row| {
        let user = user(row)?;
        Ok(UserRoles { grants: grants_of.remove(&user.id).unwrap_or_default(), user })
    };
    users.iter().map(with_roles).collect()
}

pub(super) fn grant(row: &impl Columns) -> Result<Grant, StoreError> {
    let row = Reader(row);
    Ok(Grant { project_id: row.get("project_id")?, role: row.name("role")? })
}

pub(super) fn access_key(row: &impl Columns) -> Result<AccessKey, StoreError> {
    let row = Reader(row);
    Ok(AccessKey {
        access: row.get("access")?,
        user_id: row.get("account_id")?,
        secret: Sealed(row.get("secret")?),
        disabled: row.get("disabled")?,
        created_at: row.time("created_at")?,
    })
}

/// From a row with the columns `place`, `field` (its place in [`SecretField::ALL`]) and `sealed`.
pub(super) fn secret(row: &impl Columns) -> Result<SecretAt, StoreError> {
    let row = Reader(row);
    let field: i64 = row.get("field")?;
    let known = usize::try_from(field).ok().and_then(|field| SecretField::ALL.get(field)).copied();
    let field = known.ok_or_else(|| StoreError::Unreadable(format!("a secret of the kind {field}")))?;
    Ok(SecretAt { row: row.get("place")?, field, sealed: Sealed(row.get("sealed")?) })
}

pub(super) fn token(row: &impl Columns) -> Result<Token, StoreError> {
    let row = Reader(row);
    Ok(Token {
        hash: row.get("hash")?,
        user_id: row.get("account_id")?,
        project_id: row.get("project_id")?,
        issued_at: row.time("issued_at")?,
        expires_at: row.time("expires_at")?,
    })
}

pub(super) fn audit_entry(row: &impl Columns) -> Result<AuditEntry, StoreError> {
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

pub(super) fn auto_scan(row: &impl Columns) -> Result<AutoScan, StoreError> {
    let row = Reader(row);
    Ok(AutoScan {
        instance_id: row.get("instance_id")?,
        enabled: row.get("enabled")?,
        first_scan_at: row.optional_time("first_scan_at")?,
        interval: row.span("interval_us")?,
        timeout: row.span("timeout_us")?,
        scan_keys_count: row.get("scan_keys_count")?,
        updated_at: row.time("updated_at")?,
    })
}

pub(super) fn instance(row: &impl Columns) -> Result<Instance, StoreError> {
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

pub(super) fn task(row: &impl Columns) -> Result<Task, StoreError> {
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
        attempts: row.get("attempts")?,
        keys_per_second: keys_per_second.map(|_| row.count("keys_per_second")).transpose()?,
        released: row.count("released")?,
        scanned: row.count("scanned")?,
        exact: row.get("exact")?,
    })
}

/// A schedule with its instance and what came of it so far.
pub(super) fn plan(found: &impl Columns) -> Result<Plan, StoreError> {
    let row = Reader(found);
    Ok(Plan {
        config: auto_scan(found)?,
        instance: instance(found)?,
        handled: row.optional_time("handled_at")?,
        active: row.get("is_active")?,
        last_end: row.optional_time("last_end")?,
    })
}

/// When the window of the row's instance opens, where it is closed for such a task.
pub(super) fn opening(row: &impl Columns, scan_type: ScanType, now: i64) -> Result<Option<Timestamp>, StoreError> {
    let row = Reader(row);
    let window: Option<&str> = row.get("off_peak_window")?;
    Ok(closed_until(window, row.get("window_binds_manual")?, scan_type, time(now)?))
}

/// How long ago a stored time was; zero when it is yet to come, or there is none.
pub(super) fn since(micros: Option<i64>, now: i64) -> Duration {
    let passed = micros.map_or(0, |micros| now.saturating_sub(micros));
    Duration::from_micros(u64::try_from(passed).unwrap_or(0))
}

/// What metrics tell of an instance.
pub(super) fn instance_overview(row: &impl Columns) -> Result<InstanceOverview, StoreError> {
    let row = Reader(row);
    let facts: Option<&str> = row.get("facts")?;
    let unreachable: Option<bool> = row.get("is_unreachable")?;
    let seen = facts.is_some();
    let interval: Option<i64> = row.get("interval_us")?;
    Ok(InstanceOverview {
        id: row.get("id")?,
        facts: facts.map(facts_from_json).transpose()?,
        reachable: match unreachable {
            Some(true) => Some(false),
            _ => seen.then_some(true),
        },
        last_success: row.optional_time("last_success")?,
        scans_since: row.optional_time("scans_since")?,
        auto_scan_interval: interval.map(|_| row.span("interval_us")).transpose()?,
    })
}

/// A hold among the columns of a row that shows its instance as well.
pub(super) fn lazyfree_hold(row: &impl Columns) -> Result<LazyFreeHold, StoreError> {
    let row = Reader(row);
    Ok(LazyFreeHold {
        run_id: row.get("hold_run_id")?,
        task_id: row.get("hold_task_id")?,
        address: row.get("hold_address")?,
    })
}

/// A task with the documents beside it, which there may be none of.
pub(super) fn task_detail(found: &impl Columns) -> Result<TaskDetail, StoreError> {
    let has_documents = found.integer("version")?.is_some();
    let [progress, checkpoint, report] = documents(has_documents.then_some(found))?;
    Ok(TaskDetail { task: task(found)?, progress, checkpoint, report })
}

/// A user's role on a project.
pub(super) fn role(found: &impl Columns) -> Result<(Project, Role), StoreError> {
    Ok((project(found)?, Reader(found).name("role")?))
}

/// The documents beside a task's row, or none: progress, checkpoint, report.
pub(super) fn documents(row: Option<&impl Columns>) -> Result<[Option<String>; 3], StoreError> {
    let Some(row) = row.map(Reader) else { return Ok([None, None, None]) };
    match row.get::<i64>("version")? {
        DOCUMENT_VERSION => Ok([row.get("progress")?, row.get("checkpoint")?, row.get("report")?]),
        other => Err(unreadable("task_document", format!("version {other} is not known"))),
    }
}
