//! The audit trail of a project.

use axum::{
    Json,
    extract::{Request, State},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    ApiState,
    error::{ApiError, OnProject},
};
use crate::{
    model::{AuditEntry, Role},
    request::query_value,
    store::AuditPage,
};

const DEFAULT_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 1000;

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

/// Read the audit trail, newest first
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/audit", tag = "audit", operation_id = "read_audit",
    params(
        ("project_id" = String, Path, description = "Project"),
        ("before" = Option<i64>, Query, description = "Only entries with a smaller seq"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Largest number of entries to return [default: 100]"),
    ),
    responses((status = 200, body = AuditView), OnProject)
)]
pub(super) async fn list(State(state): State<ApiState>, request: Request) -> Result<Json<AuditView>, ApiError> {
    let authorized = state.authorize(request, Role::Admin).await?;
    let value = |name: &str| query_value(&authorized.query, name);
    let invalid = |name: &str, form: &str| ApiError::Invalid(format!("the parameter {name} must be {form}"));
    let before =
        value("before").map(|text| text.parse().map_err(|_| invalid("before", "the seq of an entry"))).transpose()?;
    let limit = value("limit").map_or(Some(DEFAULT_LIMIT), |text| text.parse().ok());
    let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| invalid("limit", "1–1000"))?;
    let entries =
        state.identity.audit(&authorized.project_id, AuditPage { before, limit, ..AuditPage::default() }).await?;
    Ok(Json(AuditView { entries: entries.into_iter().map(AuditEntryView::from).collect() }))
}
