//! The audit trail of a project, page by page.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Request, State},
    response::Response,
};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    ConsoleState,
    error::{ConsoleError, rendered},
    format::RelativeTime,
    shell::{Shell, Tab},
};
use crate::{
    model::{AuditEntry, Role},
    store::AuditPage,
};

const PAGE: u64 = 50;

#[derive(Template)]
#[template(path = "console/audit.html")]
struct AuditPageView {
    shell: Shell,
    rows: Vec<AuditRow>,
    newest: Option<String>,
    older: Option<String>,
}

struct AuditRow {
    when: RelativeTime,
    actor: String,
    action: String,
    subject: String,
    /// Path of the subject's page; `None` if it has none.
    href: Option<String>,
    detail: String,
}

/// Formats the details of an entry as `name: cache, url: …`.
fn format_detail(detail: Option<&Value>) -> String {
    let Some(Value::Object(fields)) = detail else { return String::new() };
    let field = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{}: {text}", name.replace('_', " ")),
        Value::Null => format!("{}: –", name.replace('_', " ")),
        other => format!("{}: {other}", name.replace('_', " ")),
    };
    // Ids mean nothing to readers, and the subject has a column of its own.
    fields.iter().filter(|(name, _)| !name.ends_with("_id")).map(field).collect::<Vec<_>>().join(", ")
}

pub(super) async fn list(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Admin).await?;
    let before = context.query.text("before").parse::<i64>().ok();
    let entries = state.identity.audit(&context.project.id, AuditPage { before, limit: PAGE }).await?;
    let instances = state.instances.list(&context.project.id).await?;
    let names: HashMap<&str, &str> =
        instances.iter().map(|instance| (instance.id.as_str(), instance.name.as_str())).collect();
    let now = Timestamp::now();
    let row = |entry: &AuditEntry| {
        let detail = entry.detail.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let instance = detail.as_ref().and_then(|detail| detail["instance_id"].as_str()).and_then(|id| names.get(id));
        let (subject, href) = match (names.get(entry.subject.as_str()), entry.action.split('.').next()) {
            (Some(name), _) => ((*name).to_owned(), Some(context.path(&format!("instances/{}", entry.subject)))),
            // Removing an instance removes the pages of its tasks.
            (None, Some("task")) if instance.is_none() => ("scan of a removed instance".to_owned(), None),
            (None, Some("task")) => (
                format!("scan of {}", instance.unwrap_or(&"")),
                Some(context.path(&format!("tasks/{}", entry.subject))),
            ),
            (None, _) => (entry.subject.clone(), None),
        };
        AuditRow {
            when: RelativeTime::new(entry.happened_at, now),
            actor: entry.actor.clone().unwrap_or_else(|| "–".to_owned()),
            action: entry.action.clone(),
            subject,
            href,
            detail: format_detail(detail.as_ref()),
        }
    };
    let older = entries.last().filter(|_| entries.len() as u64 == PAGE);
    let older = older.map(|last| format!("{}?before={}", context.path("audit"), last.seq));
    let newest = before.map(|_| context.path("audit"));
    let rows = entries.iter().map(row).collect();
    let shell = context.shell("Audit trail", Tab::Audit, context.path("audit"));
    Ok(rendered(&AuditPageView { shell, rows, newest, older }))
}
