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

/// Longest details of an entry, bytes. Callers decide how long settings are, and a project keeps 100,000 entries.
pub const MAX_DETAIL: usize = 2 * 1024;
/// Longest values of details that are too long, in characters: the first with which they fit.
const LONGEST_VALUES: [usize; 3] = [512, 128, 32];

/// Returns details as JSON of at most [`MAX_DETAIL`] bytes: values that are too long are cut, and end with `…`.
fn bounded(detail: &Value) -> String {
    let fits = |text: &String| text.len() <= MAX_DETAIL;
    let whole = Some(detail.to_string()).filter(fits);
    let cut = || LONGEST_VALUES.iter().map(|longest| shortened(detail, *longest).to_string()).find(fits);
    // Too many values.
    whole.or_else(cut).unwrap_or_else(|| json!({ "cut": true }).to_string())
}

/// Returns details whose values have at most so many characters; a list or an object that is longer becomes the beginning of its text.
fn shortened(detail: &Value, longest: usize) -> Value {
    let cut = |text: &str| {
        let begin: String = text.chars().take(longest).collect();
        if begin.len() < text.len() { begin + "…" } else { begin }
    };
    let value = |value: &Value| match value {
        Value::String(text) => cut(text).into(),
        Value::Array(_) | Value::Object(_) if value.to_string().chars().nth(longest).is_some() => {
            cut(&value.to_string()).into()
        }
        other => other.clone(),
    };
    match detail {
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), value(field))).collect(),
        other => value(other),
    }
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
            detail: Some(detail).filter(|detail| !detail.is_null()).map(bounded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_details_are_cut_value_by_value_and_stay_valid_json() {
        let event = AuditEvent { project_id: None, actor: None, action: "instance.add", subject: "i" };
        let stored = |detail: &Value| event.entry(detail).detail.expect("details");
        let short = json!({ "name": "cache", "labels": { "env": "prod" }, "paused": false });
        assert_eq!(stored(&short), short.to_string(), "short ones stay as they are");
        assert_eq!(event.entry(&Value::Null).detail, None);
        let long = "é\u{1}".repeat(400_000);
        for detail in [
            json!({ "name": "cache", "url": long, "paused": true }),
            json!({ "name": "cache", "a": long, "b": long, "c": long, "d": long, "paused": true }),
            json!({ "name": "cache", "labels": { "env": long }, "hosts": [long, long], "paused": true }),
        ] {
            let text = stored(&detail);
            let read: Value = serde_json::from_str(&text).expect("JSON");
            assert!(text.len() <= MAX_DETAIL && text.contains('…'), "{} bytes", text.len());
            assert_eq!((&read["name"], &read["paused"]), (&json!("cache"), &json!(true)), "short values stay");
        }
        let many: Value = (0..1_000).map(|number| (number.to_string(), json!(number))).collect();
        assert_eq!(stored(&many), r#"{"cut":true}"#);
        let text = stored(&json!(long));
        assert!(text.len() <= MAX_DETAIL && text.ends_with("…\""), "{text}");
    }
}
