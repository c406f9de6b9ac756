//! `GET /v3/projects`, with which clients that know a region find the id of their project, and `GET /v3/auth/projects`.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    IamState,
    error::{IamError, OnList},
    tokens::DOMAIN_ID,
};
use crate::{model::Project, request::query_value};

/// The projects of a caller.
#[derive(Debug, Serialize, ToSchema)]
pub struct Projects {
    projects: Vec<ListedProject>,
    links: Links,
}

#[derive(Debug, Serialize, ToSchema)]
struct Links {}

#[derive(Debug, Serialize, ToSchema)]
struct ListedProject {
    id: String,
    name: String,
    domain_id: &'static str,
    parent_id: &'static str,
    description: &'static str,
    enabled: bool,
    is_domain: bool,
    links: Links,
}

impl Projects {
    fn new(projects: Vec<Project>) -> Self {
        let listed = |project: Project| ListedProject {
            id: project.id,
            name: project.name,
            domain_id: DOMAIN_ID,
            parent_id: DOMAIN_ID,
            description: "",
            enabled: true,
            is_domain: false,
            links: Links {},
        };
        Self { projects: projects.into_iter().map(listed).collect(), links: Links {} }
    }
}

/// List the projects that the credentials can be used for
///
/// With an unscoped token these are the projects for which it can be exchanged.
#[utoipa::path(
    get, path = "/v3/auth/projects", tag = "IAM v3", operation_id = "list_auth_projects",
    responses((status = 200, body = Projects), OnList)
)]
pub(super) async fn list_of_token(State(state): State<IamState>, request: Request) -> Result<Json<Projects>, IamError> {
    let (caller, _, _) = state.auth.authenticate(request, true).await?;
    Ok(Json(Projects::new(state.auth.projects_of(&caller).await?)))
}

/// List the caller's projects
///
/// Clients that are configured with a region and no project ask for the project of that name and accept exactly one. If no
/// project has the name and the caller has one project only, the answer is that project.
#[utoipa::path(
    get, path = "/v3/projects", tag = "IAM v3", operation_id = "list_projects", params(("name" = Option<String>, Query, description = "Name of the project")),
    responses((status = 200, body = Projects), OnList)
)]
pub(super) async fn list(State(state): State<IamState>, request: Request) -> Result<Json<Projects>, IamError> {
    let (caller, parts, _) = state.auth.authenticate(request, true).await?;
    let name = query_value(parts.uri.query().unwrap_or_default(), "name");
    let mut projects = state.auth.projects_of(&caller).await?;
    if let Some(name) = name {
        let is_there = projects.iter().any(|project| project.name == name);
        match (is_there, projects.len()) {
            (true, _) => projects.retain(|project| project.name == name),
            (false, 1) => {}
            (false, _) => projects.clear(),
        }
    }
    Ok(Json(Projects::new(projects)))
}
