//! `GET /v3/projects`: how clients that know a region find out their project's id.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Door,
    error::{IamError, OnList},
    tokens::DOMAIN_ID,
};

/// The answer.
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

/// List the caller's projects
///
/// Clients that were given a region and no project ask for the one project of that name
/// and take nothing but exactly one: where no project has the region's name and the caller has only one, that is it.
#[utoipa::path(
    get, path = "/v3/projects", tag = "IAM v3", operation_id = "list_projects", params(("name" = Option<String>, Query, description = "Only the project of this name")),
    responses((status = 200, body = Projects), OnList)
)]
pub(super) async fn list(State(door): State<Door>, request: Request) -> Result<Json<Projects>, IamError> {
    let (caller, parts, _) = door.identify(request).await?;
    let query = parts.uri.query().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let name = pairs.find(|(key, _)| key == "name").map(|(_, value)| value.into_owned());
    let mut projects = door.auth.projects_of(&caller).await?;
    if let Some(name) = name {
        let is_there = projects.iter().any(|project| project.name == name);
        match (is_there, projects.len()) {
            (true, _) => projects.retain(|project| project.name == name),
            (false, 1) => {}
            (false, _) => projects.clear(),
        }
    }
    let body = |project: crate::model::Project| ListedProject {
        id: project.id,
        name: project.name,
        domain_id: DOMAIN_ID,
        parent_id: DOMAIN_ID,
        description: "",
        enabled: true,
        is_domain: false,
        links: Links {},
    };
    Ok(Json(Projects { projects: projects.into_iter().map(body).collect(), links: Links {} }))
}
