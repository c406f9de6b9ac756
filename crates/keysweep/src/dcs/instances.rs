//! ListInstances and ShowInstance, with which clients look up ids. Field types are odd because clients parse them so.

use axum::{
    Json,
    extract::{Request, State},
};
use keysweep_engine::Address;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    DcsState,
    described::{MIB, ip, mode, primaries, status},
    error::{DcsError, OnInstance, OnProject},
    query::Query,
    task_body::{counter, utc_millis},
};
use crate::model::{Instance, Role};

const DEFAULT_LIMIT: u64 = 1000;
/// A state that DCS documents. Ours are RUNNING, FROZEN (paused) and ERROR (unreachable, or cannot be scanned).
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE")]
#[allow(dead_code, reason = "documents the texts below")]
enum InstanceState {
    Creating,
    CreateFailed,
    Running,
    Restarting,
    Frozen,
    Extending,
    Restoring,
    Flushing,
    Error,
}

/// The mode of an instance.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents the texts of `mode`")]
enum CacheMode {
    Single,
    Ha,
    Cluster,
}

/// The same states.
const STATES: [&str; 9] =
    ["CREATING", "CREATEFAILED", "RUNNING", "RESTARTING", "FROZEN", "EXTENDING", "RESTORING", "FLUSHING", "ERROR"];

/// The instances of a project.
#[derive(Debug, Serialize, ToSchema)]
pub struct DcsInstances {
    instances: Vec<DcsInstance>,
    /// Number of instances that match the filter, on all pages.
    instance_num: i32,
}

/// An instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct DcsInstance {
    instance_id: String,
    name: String,
    /// Always `Redis`, for Valkey as well.
    engine: &'static str,
    engine_version: String,
    #[schema(value_type = InstanceState)]
    status: &'static str,
    /// Addresses of the primaries, separated by commas.
    ip: String,
    port: u16,
    /// Whole GB of `max_memory`.
    capacity: i32,
    /// Fraction of a GB in `max_memory`, as `.125`.
    capacity_minor: String,
    /// MB; 0: no limit, or unknown.
    max_memory: i32,
    /// MB.
    used_memory: i32,
    #[schema(value_type = CacheMode)]
    cache_mode: &'static str,
    /// Always 0, pay per use. Some releases of Terraform's provider stop without it.
    charging_mode: i32,
    spec_code: String,
    /// `true` or `false`, as a string.
    no_password_access: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_user: Option<String>,
    enable_ssl: bool,
    created_at: String,
    db_number: i32,
    replica_count: i32,
    sharding_count: i32,
    #[schema(value_type = Option<Object>)]
    task: Option<()>,
}

impl From<&Instance> for DcsInstance {
    fn from(instance: &Instance) -> Self {
        let stats = instance.stats.as_ref();
        let nodes = primaries(instance);
        let ips: Vec<String> = nodes.iter().map(ip).collect();
        let (used, max) = stats.map_or((0, 0), |stats| (stats.used_memory / MIB, stats.max_memory / MIB));
        let mode = mode(instance);
        Self {
            instance_id: instance.id.clone(),
            name: instance.name.clone(),
            engine: "Redis",
            engine_version: stats.map(|stats| major_minor(&stats.engine_version)).unwrap_or_default(),
            status: status(instance),
            ip: ips.join(","),
            port: nodes.first().and_then(Address::port).unwrap_or(0),
            capacity: counter(max / 1024),
            capacity_minor: minor(max),
            max_memory: counter(max),
            used_memory: counter(used),
            cache_mode: mode,
            charging_mode: 0,
            spec_code: format!("keysweep.{mode}"),
            no_password_access: instance.password.is_none().to_string(),
            access_user: instance.username.clone(),
            enable_ssl: instance.url.value().is_ok_and(|target| target.tls.is_some()),
            created_at: utc_millis(instance.created_at),
            db_number: if mode == "cluster" { 1 } else { 16 },
            replica_count: 1,
            sharding_count: counter(stats.map_or(1, |stats| stats.primaries.len().max(1) as u64)),
            task: None,
        }
    }
}

/// Returns `7.0` for `7.0.15`.
fn major_minor(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// Returns the fraction of a GB, in up to three decimals.
fn minor(megabytes: u64) -> String {
    let thousandths = (megabytes % 1024) * 1000 / 1024;
    let digits = format!("{thousandths:03}");
    match digits.trim_end_matches('0') {
        "" => ".0".into(),
        digits => format!(".{digits}"),
    }
}

/// Show an instance
#[utoipa::path(
    get, path = "/v2/{project_id}/instances/{instance_id}", tag = "DCS v2", operation_id = "ShowInstance",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = DcsInstance), OnInstance)
)]
pub(super) async fn show(State(state): State<DcsState>, request: Request) -> Result<Json<DcsInstance>, DcsError> {
    let (_, instance) = state.authorize_instance(request, Role::Reader).await?;
    Ok(Json(DcsInstance::from(&instance)))
}

/// List a project's instances by name
#[utoipa::path(
    get, path = "/v2/{project_id}/instances", tag = "DCS v2", operation_id = "ListInstances",
    params(("project_id" = String, Path, description = "Project ID"), ("offset" = Option<u64>, Query, description = "Entries to skip [default: 0]"), ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Largest number of entries to return [default: 1000]"),
        ("name" = Option<String>, Query, description = "Part of the name"), ("name_equal" = Option<bool>, Query, description = "Whether `name` is the whole name"),
        ("instance_id" = Option<String>, Query), ("status" = Option<InstanceState>, Query, description = "For example RUNNING"), ("ip" = Option<String>, Query)),
    responses((status = 200, body = DcsInstances), OnProject)
)]
pub(super) async fn list(State(state): State<DcsState>, request: Request) -> Result<Json<DcsInstances>, DcsError> {
    let authorized = state.authorize(request, Role::Reader, true).await?;
    let query = Query(authorized.query);
    let (offset, limit) = (query.offset()?, query.limit(DEFAULT_LIMIT)?);
    let filter = Filter::read(&query)?;
    let mut instances = state.instances.list(&authorized.project_id).await?;
    instances.retain(|instance| filter.passes(instance));
    let page = instances.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(limit as usize);
    Ok(Json(DcsInstances {
        instances: page.map(DcsInstance::from).collect(),
        instance_num: counter(instances.len() as u64),
    }))
}

struct Filter {
    name: Option<String>,
    whole_name: bool,
    instance_id: Option<String>,
    status: Option<String>,
    ip: Option<String>,
}

impl Filter {
    fn read(query: &Query) -> Result<Self, DcsError> {
        // Some clients send an empty value where they mean to leave a parameter out.
        let value = |name: &str| query.value(name).filter(|value| !value.is_empty());
        let status = value("status");
        if status.as_deref().is_some_and(|status| !STATES.contains(&status)) {
            return Err(DcsError::Parameter("status"));
        }
        // Python's SDK sends its own spelling, `True`.
        let whole_name = match value("name_equal").map(|value| value.to_ascii_lowercase()).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(DcsError::Parameter("name_equal")),
        };
        Ok(Self { name: value("name"), whole_name, instance_id: value("instance_id"), status, ip: value("ip") })
    }

    fn passes(&self, instance: &Instance) -> bool {
        let named = |name: &String| match self.whole_name {
            true => instance.name == *name,
            false => instance.name.contains(name.as_str()),
        };
        self.name.as_ref().is_none_or(named)
            && self.instance_id.as_ref().is_none_or(|id| instance.id == *id)
            && self.status.as_ref().is_none_or(|wanted| status(instance) == wanted)
            && self
                .ip
                .as_ref()
                .is_none_or(|wanted| primaries(instance).iter().any(|node| ip(node).contains(wanted.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_two_numbers_and_memory_below_a_gigabyte_is_a_fraction() {
        assert_eq!((major_minor("7.0.15"), major_minor("8"), major_minor("")), ("7.0".into(), "8".into(), "".into()));
        assert_eq!([128, 256, 1024, 0, 1536].map(minor), [".125", ".25", ".0", ".0", ".5"]);
    }
}
