//! ShowInstanceTopology and ListGroupReplicationInfo: the primaries of an instance as of its last poll.
//!
//! Neither operation connects to a server; values that only the server knows are left out.

use axum::{
    Json,
    extract::{Request, State},
};
use keysweep_engine::Address;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{
    DcsState,
    described::{MIB, ip, mode, primaries, status},
    error::{DcsError, OnInstance},
    task_body::counter,
};
use crate::model::{Instance, Role};

/// The nodes of an instance. All numbers are strings.
#[derive(Debug, Serialize, ToSchema)]
pub struct Topology {
    redis_server: Vec<Server>,
    #[schema(value_type = Vec<Object>)]
    cluster_lvs: Vec<()>,
    #[schema(value_type = Vec<Object>)]
    cluster_admin: Vec<()>,
    #[schema(value_type = Vec<Object>)]
    cluster_proxy: Vec<()>,
    #[schema(value_type = Vec<Object>)]
    master: Vec<()>,
    #[schema(value_type = Vec<Object>)]
    vpcendpoint: Vec<()>,
    #[schema(value_type = Vec<Object>)]
    elb: Vec<()>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Server {
    node_id: String,
    node_name: String,
    ip: String,
    port: String,
    node_type: &'static str,
    /// MB; left out for several nodes, of which only the sum is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_memory: Option<String>,
    /// MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_memory: Option<String>,
    db_num: &'static str,
    group_id: String,
    status: &'static str,
}

/// The shards of an instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct Groups {
    group_list: Vec<Group>,
    group_count: i32,
}

#[derive(Debug, Serialize, ToSchema)]
struct Group {
    group_id: String,
    group_name: String,
    replication_list: Vec<Replication>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Replication {
    replication_role: &'static str,
    replication_ip: String,
    is_replication: bool,
    replication_id: String,
    node_id: String,
    status: &'static str,
    az_code: &'static str,
    #[schema(value_type = Vec<Object>)]
    dimensions: Vec<()>,
}

/// Returns a stable id of a node that no other node has.
fn node_id(instance: &Instance, node: &Address) -> String {
    let node = match node {
        Address::Tcp { host, port } => format!("{host}\n{port}"),
        socket @ Address::Unix(_) => socket.to_string(),
    };
    let digest = Sha256::digest(format!("{}\n{node}", instance.id));
    hex::encode(&digest[..16])
}

/// Show an instance's nodes
#[utoipa::path(
    get, path = "/v2/{project_id}/instances/{instance_id}/nodes", tag = "DCS v2", operation_id = "ShowInstanceTopology",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = Topology), OnInstance)
)]
pub(super) async fn topology(State(state): State<DcsState>, request: Request) -> Result<Json<Topology>, DcsError> {
    let (_, instance) = state.authorize_instance(request, Role::Reader).await?;
    let nodes = primaries(&instance);
    let stats = instance.stats.as_ref().filter(|_| nodes.len() == 1);
    let server = |node: Address| Server {
        node_id: node_id(&instance, &node),
        node_name: node.to_string(),
        node_type: "master",
        max_memory: stats.map(|stats| (stats.max_memory / MIB).to_string()),
        used_memory: stats.map(|stats| (stats.used_memory / MIB).to_string()),
        db_num: if mode(&instance) == "cluster" { "1" } else { "16" },
        group_id: node_id(&instance, &node),
        status: status(&instance),
        ip: ip(&node),
        // A unix socket has none.
        port: node.port().unwrap_or(0).to_string(),
    };
    Ok(Json(Topology {
        redis_server: nodes.into_iter().map(server).collect(),
        cluster_lvs: Vec::new(),
        cluster_admin: Vec::new(),
        cluster_proxy: Vec::new(),
        master: Vec::new(),
        vpcendpoint: Vec::new(),
        elb: Vec::new(),
    }))
}

/// List an instance's shards
#[utoipa::path(
    get, path = "/v2/{project_id}/instance/{instance_id}/groups", tag = "DCS v2", operation_id = "ListGroupReplicationInfo",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = Groups), OnInstance)
)]
pub(super) async fn groups(State(state): State<DcsState>, request: Request) -> Result<Json<Groups>, DcsError> {
    let (_, instance) = state.authorize_instance(request, Role::Reader).await?;
    let group = |(number, node): (usize, Address)| {
        let node_id = node_id(&instance, &node);
        Group {
            group_id: node_id.clone(),
            group_name: format!("group-{number}"),
            replication_list: vec![Replication {
                replication_role: "master",
                replication_ip: ip(&node),
                is_replication: false,
                replication_id: node_id.clone(),
                node_id,
                status: "Active",
                az_code: "",
                dimensions: Vec::new(),
            }],
        }
    };
    let group_list: Vec<Group> = primaries(&instance).into_iter().enumerate().map(group).collect();
    Ok(Json(Groups { group_count: counter(group_list.len() as u64), group_list }))
}
