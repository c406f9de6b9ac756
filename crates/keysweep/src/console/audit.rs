//! The audit trail of a project, page by page and as a file.

use std::collections::HashMap;

use askama::Template;
use axum::{
    body::Body,
    extract::{Request, State},
    http::{
        HeaderValue,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    ConsoleState,
    error::{ConsoleError, rendered},
    format::RelativeTime,
    labels::LabelLink,
    selection::Choice,
    shell::{Shell, Tab},
    state::PageContext,
};
use crate::{
    identity::AuditFormat,
    model::{AuditEntry, Role},
    store::AuditPage,
};

const PAGE: u64 = 50;
/// What actions are about, the part of their names before the point.
const KINDS: [&str; 8] = ["access_key", "auto_scan", "hold", "instance", "project", "survey", "task", "user"];

#[derive(Template)]
#[template(path = "console/audit.html")]
struct AuditPageView {
    shell: Shell,
    rows: Vec<AuditRow>,
    /// Links to the entries of one kind of action.
    kinds: Vec<Choice>,
    /// The user whose entries are shown, with a link to those of all.
    actor: Option<LabelLink>,
    /// Addresses of these entries as a file, with the names of the formats.
    exports: Vec<LabelLink>,
    newest: Option<String>,
    older: Option<String>,
}

struct AuditRow {
    when: RelativeTime,
    actor: String,
    /// Address of the entries of this user; `None`: no user.
    actor_href: Option<String>,
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

/// Which entries the page shows.
#[derive(Clone, Default)]
struct Filter {
    kind: Option<&'static str>,
    actor: Option<String>,
}

impl Filter {
    /// Returns what an address selects. An unknown kind counts as none: a link with one is not followed.
    fn new(context: &PageContext) -> Self {
        let kind = context.query.text("kind");
        Self { kind: KINDS.into_iter().find(|known| *known == kind), actor: context.query.given("actor") }
    }

    /// Returns which entries of the store these are.
    fn page(&self, before: Option<i64>) -> AuditPage {
        AuditPage { before, actor: self.actor.clone(), kind: self.kind.map(str::to_owned), limit: PAGE, since: None }
    }

    /// Returns the query of these entries.
    fn query(&self) -> url::form_urlencoded::Serializer<'static, String> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.kind.map(|kind| ("kind", kind)));
        query.extend_pairs(self.actor.as_deref().map(|actor| ("actor", actor)));
        query
    }

    /// Returns the address of these entries.
    fn href(&self, context: &PageContext, before: Option<i64>) -> String {
        let mut query = self.query();
        query.extend_pairs(before.map(|before| ("before", before.to_string())));
        let (path, query) = (context.path("audit"), query.finish());
        if query.is_empty() { path } else { format!("{path}?{query}") }
    }

    /// Returns the addresses of these entries as a file.
    fn exports(&self, context: &PageContext) -> Vec<LabelLink> {
        let link = |format: &AuditFormat| {
            let query = self.query().append_pair("format", format.as_str()).finish();
            LabelLink {
                text: format.as_str().to_uppercase(),
                href: format!("{}?{query}", context.path("audit/export")),
            }
        };
        AuditFormat::ALL.iter().map(link).collect()
    }

    /// Returns links to the entries of all kinds of actions and of each.
    fn kinds(&self, context: &PageContext) -> Vec<Choice> {
        let all = [None].into_iter().chain(KINDS.into_iter().map(Some));
        let choice = |kind: Option<&'static str>| Choice {
            text: kind.map_or_else(|| "all".to_owned(), |kind| kind.replace('_', " ")),
            href: Self { kind, ..self.clone() }.href(context, None),
            is_current: kind == self.kind,
        };
        all.map(choice).collect()
    }
}

pub(super) async fn list(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Admin).await?;
    let before = context.query.text("before").parse::<i64>().ok();
    let filter = Filter::new(&context);
    let entries = state.identity.audit(&context.project.id, filter.page(before)).await?;
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
            actor_href: entry
                .actor
                .clone()
                .map(|actor| Filter { actor: Some(actor), ..filter.clone() }.href(&context, None)),
            action: entry.action.clone(),
            subject,
            href,
            detail: format_detail(detail.as_ref()),
        }
    };
    let older = entries.last().filter(|_| entries.len() as u64 == PAGE);
    let older = older.map(|last| filter.href(&context, Some(last.seq)));
    let newest = before.map(|_| filter.href(&context, None));
    let rows = entries.iter().map(row).collect();
    let shell = context.shell("Audit trail", Tab::Audit, context.path("audit"));
    let actor = filter
        .actor
        .clone()
        .map(|actor| LabelLink { href: Filter { actor: None, ..filter.clone() }.href(&context, None), text: actor });
    let (kinds, exports) = (filter.kinds(&context), filter.exports(&context));
    Ok(rendered(&AuditPageView { shell, rows, kinds, actor, exports, newest, older }))
}

/// Answers with all entries that an address selects, as a file.
pub(super) async fn export(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Admin).await?;
    // An unknown format counts as none: a link with one is not followed.
    let format: AuditFormat = context.query.text("format").parse().unwrap_or(AuditFormat::Csv);
    let all = AuditPage { limit: u64::MAX, ..Filter::new(&context).page(None) };
    let file = state.identity.export_audit(&context.project.id, all, format).await?;
    let name = match format {
        AuditFormat::Csv => "attachment; filename=\"audit.csv\"",
        AuditFormat::Json => "attachment; filename=\"audit.json\"",
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
        (CONTENT_DISPOSITION, HeaderValue::from_static(name)),
    ];
    Ok((headers, Body::from_stream(file)).into_response())
}
