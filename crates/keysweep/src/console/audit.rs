//! The audit trail: who did what to what.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Request, State},
    response::Response,
};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Door,
    error::{ConsoleError, rendered},
    shell::{Shell, Tab},
    words::Moment,
};
use crate::{
    model::{AuditEntry, Role},
    store::AuditPage,
};

const PAGE: u64 = 50;

#[derive(Template)]
#[template(path = "console/audit.html")]
struct TrailPage {
    shell: Shell,
    rows: Vec<Row>,
    newest: Option<String>,
    older: Option<String>,
}

struct Row {
    when: Moment,
    who: String,
    action: String,
    subject: String,
    /// The subject's page, where it has one.
    href: Option<String>,
    detail: String,
}

/// `name: cache, url: …`.
fn in_words(detail: Option<&Value>) -> String {
    let Some(Value::Object(fields)) = detail else { return String::new() };
    let field = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{}: {text}", name.replace('_', " ")),
        Value::Null => format!("{}: –", name.replace('_', " ")),
        other => format!("{}: {other}", name.replace('_', " ")),
    };
    // Ids say nothing to people, and the subject is in a column of its own.
    fields.iter().filter(|(name, _)| !name.ends_with("_id")).map(field).collect::<Vec<_>>().join(", ")
}

pub(super) async fn list(State(door): State<Door>, request: Request) -> Result<Response, ConsoleError> {
    let guest = door.admit(request, Role::Admin).await?;
    let before = guest.query.text("before").parse::<i64>().ok();
    let entries = door.fleet.audit(&guest.project.id, AuditPage { before, limit: PAGE }).await?;
    let instances = door.fleet.instances_of(&guest.project.id).await?;
    let names: HashMap<&str, &str> =
        instances.iter().map(|instance| (instance.id.as_str(), instance.name.as_str())).collect();
    let now = Timestamp::now();
    let row = |entry: &AuditEntry| {
        let detail = entry.detail.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let instance = detail.as_ref().and_then(|detail| detail["instance_id"].as_str()).and_then(|id| names.get(id));
        let (subject, href) = match (names.get(entry.subject.as_str()), entry.action.split('.').next()) {
            (Some(name), _) => ((*name).to_owned(), Some(guest.path(&format!("instances/{}", entry.subject)))),
            // Its page goes with its instance.
            (None, Some("task")) if instance.is_none() => ("scan of a removed instance".to_owned(), None),
            (None, Some("task")) => {
                (format!("scan of {}", instance.unwrap_or(&"")), Some(guest.path(&format!("tasks/{}", entry.subject))))
            }
            (None, _) => (entry.subject.clone(), None),
        };
        Row {
            when: Moment::new(entry.happened_at, now),
            who: entry.actor.clone().unwrap_or_else(|| "–".to_owned()),
            action: entry.action.clone(),
            subject,
            href,
            detail: in_words(detail.as_ref()),
        }
    };
    let older = entries.last().filter(|_| entries.len() as u64 == PAGE);
    let older = older.map(|last| format!("{}?before={}", guest.path("audit"), last.seq));
    let newest = before.map(|_| guest.path("audit"));
    let rows = entries.iter().map(row).collect();
    let shell = guest.shell("Audit trail", Tab::Audit, guest.path("audit"));
    Ok(rendered(&TrailPage { shell, rows, newest, older }))
}
