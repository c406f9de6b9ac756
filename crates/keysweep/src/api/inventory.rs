//! Making a project's instances those of an inventory.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState, body,
    error::{ApiError, OnChange},
    instance::ConnectionBody,
};
use crate::{
    instances::{InventoryPlan, InventoryPlanError, ListedInstance, PlannedInstance},
    model::{Labels, Role},
};

/// The instances that a project is to have.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InventoryBody {
    /// The instances, found by their names.
    #[schema(max_items = 1000)]
    instances: Vec<InventoryEntryBody>,
    /// Whether other instances of the project are removed with their tasks [default: false].
    prune: Option<bool>,
    /// Whether only the plan is made [default: false].
    dry_run: Option<bool>,
    /// `plan` of an earlier answer. The request is refused with 409 if the plan would be another one now.
    plan: Option<String>,
}

/// An instance of an inventory. Settings that it does not have, such as the pace, are left alone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InventoryEntryBody {
    /// Unique in the project; 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// redis://host:port, and the other URLs of `register_instance`.
    #[schema(min_length = 1)]
    url: String,
    /// User (ACL) [default: the one in the URL].
    username: Option<String>,
    /// Password [default: the one in the URL]. Stored encrypted, never shown.
    password: Option<String>,
    /// How the nodes are reached, apart from the URL [default: as the URL says].
    connection: Option<ConnectionBody>,
    /// All labels, as an object from names to values [default: none].
    labels: Option<BTreeMap<String, String>>,
}

/// What applying an inventory does, or did.
#[derive(Debug, Serialize, ToSchema)]
pub struct InventoryView {
    /// Send it with the same inventory, to apply exactly these changes.
    plan: String,
    /// Whether the changes were made; false for a dry run, and if there are none.
    applied: bool,
    /// Every listed and every registered instance, by name.
    instances: Vec<PlannedInstanceView>,
}

/// What applying an inventory does, or did, to an instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlannedInstanceView {
    name: String,
    /// Id of an instance that is registered already.
    instance_id: Option<String>,
    /// add, change, remove; keep: it is as listed; unlisted: it is not listed, and stays.
    action: &'static str,
    /// Fields that change.
    fields: Vec<&'static str>,
}

impl From<&PlannedInstance> for PlannedInstanceView {
    fn from(step: &PlannedInstance) -> Self {
        Self {
            name: step.name.clone(),
            instance_id: step.instance_id.clone(),
            action: step.action.as_str(),
            fields: step.fields.clone(),
        }
    }
}

fn view(plan: &InventoryPlan, applied: bool) -> Json<InventoryView> {
    let instances = plan.steps.iter().map(PlannedInstanceView::from).collect();
    Json(InventoryView { plan: plan.digest(), applied, instances })
}

/// Returns the entries, or a sentence for each with invalid labels.
fn listed(entries: Vec<InventoryEntryBody>) -> Result<Vec<ListedInstance>, InventoryPlanError> {
    let (mut listed, mut errors) = (Vec::with_capacity(entries.len()), Vec::new());
    for entry in entries {
        match Labels::new(entry.labels.unwrap_or_default()) {
            Ok(labels) => listed.push(ListedInstance {
                name: entry.name,
                url: entry.url,
                username: entry.username,
                password: entry.password.filter(|password| !password.is_empty()).map(Into::into),
                connection: entry.connection.map(Into::into).unwrap_or_default(),
                labels,
            }),
            Err(error) => errors.push(format!("instance {:?}: {error}", entry.name)),
        }
    }
    match errors.is_empty() {
        true => Ok(listed),
        false => Err(InventoryPlanError::Entries(errors)),
    }
}

/// Make a project's instances those of an inventory
///
/// Adds and changes instances, and removes others only with `prune`: all of it, or nothing. Every entry is checked first. No server
/// is connected to; new instances are polled within a minute.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/inventory", tag = "instances", operation_id = "apply_inventory",
    params(("project_id" = String, Path, description = "Project")), request_body = InventoryBody,
    responses((status = 200, body = InventoryView), OnChange)
)]
pub(super) async fn apply(State(state): State<ApiState>, request: Request) -> Result<Json<InventoryView>, ApiError> {
    let authorized = state.authorize(request, Role::Admin).await?;
    let wanted: InventoryBody = body::read(&authorized.body)?;
    let listed = listed(wanted.instances)?;
    let prune = wanted.prune.unwrap_or_default();
    let plan = state.instances.plan_inventory(&authorized.project_id, &listed, prune).await?;
    if wanted.plan.is_some_and(|confirmed| confirmed != plan.digest()) {
        return Err(InventoryPlanError::Outdated.into());
    }
    if wanted.dry_run.unwrap_or_default() || !plan.has_changes() {
        return Ok(view(&plan, false));
    }
    state.instances.apply_inventory(&plan, authorized.caller.name.as_deref()).await?;
    Ok(view(&plan, true))
}
