//! The audit trail.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::now;
use crate::csv;

/// Fields of an entry in CSV, as JSON pointers into [`AuditEntry::json`].
pub const AUDIT_FIELDS: [&str; 6] = ["/seq", "/happened_at", "/actor", "/action", "/subject", "/detail"];

/// The actor of changes made on the command line, where access to the database permits every change.
pub const COMMAND_LINE: Option<&str> = Some("(command line)");

/// The actor of what a worker does to hold the stale share of an instance.
pub const HOLD: &str = "(hold)";

/// An entry of the audit trail: an actor changed a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Grows with each entry; assigned by the store.
    pub seq: i64,
    /// When the change was made.
    pub happened_at: Timestamp,
    /// Id of the project that the change concerns; `None`: the whole installation.
    pub project_id: Option<String>,
    /// Name of the user who made the change; `None`: no authentication, or the schedule.
    pub actor: Option<String>,
    /// The change, as `object.action`, for example `task.create`.
    pub action: String,
    /// Id of what was changed.
    pub subject: String,
    /// JSON, without secrets.
    pub detail: Option<String>,
}

impl AuditEntry {
    /// Returns the entry as its readers get it.
    pub fn json(&self) -> Value {
        let detail = self.detail.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        json!({
            "seq": self.seq, "happened_at": self.happened_at, "actor": self.actor, "action": self.action,
            "subject": self.subject, "detail": detail,
        })
    }
}

/// Returns entries as CSV with a header, one line each.
pub fn audit_csv(entries: &[AuditEntry]) -> String {
    let lines = entries.iter().map(|entry| csv::row(&entry.json(), &AUDIT_FIELDS));
    let mut text = [csv::header(&AUDIT_FIELDS)].into_iter().chain(lines).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

/// A change that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct AuditEvent<'a> {
    /// Id of the project that the change concerns; `None`: the whole installation.
    pub project_id: Option<&'a str>,
    /// Name of the user who makes the change; `None`: no authentication.
    pub actor: Option<&'a str>,
    /// The change, as `object.action`.
    pub action: &'static str,
    /// Id of what is changed.
    pub subject: &'a str,
}

impl AuditEvent<'_> {
    /// Returns the entry of the audit trail for this change. `detail` holds no secret; null: none.
    pub fn entry(self, detail: &Value) -> AuditEntry {
        AuditEntry {
            seq: 0,
            happened_at: now(),
            project_id: self.project_id.map(str::to_owned),
            actor: self.actor.map(str::to_owned),
            action: self.action.to_owned(),
            subject: self.subject.to_owned(),
            detail: Some(detail).filter(|detail| !detail.is_null()).map(Value::to_string),
        }
    }
}
