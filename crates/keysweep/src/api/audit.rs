//! The audit trail of a project.

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    response::IntoResponse,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState,
    error::{ApiError, OnProject},
};
use crate::{
    identity::AuditFormat,
    model::{AuditEntry, Role},
    request::query_value,
    store::AuditPage,
};

const DEFAULT_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 1000;
/// Most entries of an export.
const MAX_EXPORT: u64 = 20_000;

/// A page of the audit trail, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditView {
    entries: Vec<AuditEntryView>,
}

/// An entry of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntryView {
    /// Position in the trail. Send the last one as `before` to get the next page.
    seq: i64,
    happened_at: Timestamp,
    /// The user; null if authentication is off.
    actor: Option<String>,
    /// For example `task.create`.
    action: String,
    /// Id of the object that the action changed.
    subject: String,
    /// Details of the action, without secrets.
    #[schema(value_type = Option<Object>)]
    detail: Option<Box<RawValue>>,
}

impl From<AuditEntry> for AuditEntryView {
    fn from(entry: AuditEntry) -> Self {
        Self {
            seq: entry.seq,
            happened_at: entry.happened_at,
            actor: entry.actor,
            action: entry.action,
            subject: entry.subject,
            detail: entry.detail.and_then(|text| RawValue::from_string(text).ok()),
        }
    }
}

/// Which entries a page or an export has.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditFilter {
    /// Only entries of this time or later, as 2026-01-31T12:00:00Z
    #[param(value_type = String, required = false)]
    since: Option<String>,
    /// Only changes made by this user
    #[param(value_type = String, required = false)]
    actor: Option<String>,
    /// Only changes of one kind, such as instance or task
    #[param(value_type = String, required = false)]
    kind: Option<String>,
    /// Only entries with a smaller seq
    #[param(value_type = i64, required = false)]
    before: Option<String>,
}

impl AuditFilter {
    fn of(query: &str) -> Self {
        let value = |name: &str| query_value(query, name);
        Self { since: value("since"), actor: value("actor"), kind: value("kind"), before: value("before") }
    }
}

/// Read the audit trail, newest first
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/audit", tag = "audit", operation_id = "read_audit",
    params(
        ("project_id" = String, Path, description = "Project"),
        AuditFilter,
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Largest number of entries to return [default: 100]"),
    ),
    responses((status = 200, body = AuditView), OnProject)
)]
pub(super) async fn list(State(state): State<ApiState>, request: Request) -> Result<Json<AuditView>, ApiError> {
    let authorized = state.authorize(request, Role::Admin).await?;
    let page = page(&authorized.query, DEFAULT_LIMIT, MAX_LIMIT)?;
    let entries = state.identity.audit(&authorized.project_id, page).await?;
    Ok(Json(AuditView { entries: entries.into_iter().map(AuditEntryView::from).collect() }))
}

/// Export the audit trail as CSV, newest first
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/audit/export", tag = "audit", operation_id = "export_audit",
    params(
        ("project_id" = String, Path, description = "Project"),
        AuditFilter,
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 20000, description = "Largest number of entries to return [default: 20000]"),
    ),
    responses((status = 200, content_type = "text/csv", body = String), OnProject)
)]
pub(super) async fn export(State(state): State<ApiState>, request: Request) -> Result<impl IntoResponse, ApiError> {
    let authorized = state.authorize(request, Role::Admin).await?;
    let page = page(&authorized.query, MAX_EXPORT, MAX_EXPORT)?;
    let file = state.identity.export_audit(&authorized.project_id, page, AuditFormat::Csv).await?;
    let headers = [
        (CONTENT_TYPE, AuditFormat::Csv.media_type()),
        (CONTENT_DISPOSITION, "attachment; filename=\"keysweep-audit.csv\""),
    ];
    Ok((headers, Body::from_stream(file)))
}

/// Reads which entries a query asks for.
fn page(query: &str, default: u64, most: u64) -> Result<AuditPage, ApiError> {
    let AuditFilter { since, actor, kind, before } = AuditFilter::of(query);
    let invalid = |name: &str, text: &str, remedy: &str| {
        let text: String = text.chars().take(80).collect();
        ApiError::Invalid(format!("invalid parameter {name} {text:?}: {remedy}"))
    };
    let since = since
        .map(|text| text.parse().map_err(|_| invalid("since", &text, "write a time such as 2026-01-31T12:00:00Z")));
    let before = before.map(|text| text.parse().map_err(|_| invalid("before", &text, "write the seq of an entry")));
    let limit = query_value(query, "limit").map_or(Ok(default), |text| {
        let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| invalid("limit", &text, &format!("write a number from 1 to {most}")))
    })?;
    Ok(AuditPage { since: since.transpose()?, before: before.transpose()?, actor, kind, limit })
}
