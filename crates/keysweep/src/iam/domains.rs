//! `GET /v3/auth/domains`: the only domain. Terraform's provider compares its name with the configured one.

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
use crate::request::query_value;

/// The domains of a caller.
#[derive(Debug, Serialize, ToSchema)]
pub struct Domains {
    domains: Vec<ListedDomain>,
    links: DomainLinks,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListedDomain {
    id: &'static str,
    name: String,
    description: &'static str,
    enabled: bool,
    links: DomainLinks,
}

#[derive(Debug, Serialize, ToSchema)]
struct DomainLinks {
    #[serde(rename = "self")]
    own: String,
}

/// List the caller's domains
///
/// There is one, and every caller belongs to it. `name` filters, as clients expect that compare names.
#[utoipa::path(
    get, path = "/v3/auth/domains", tag = "IAM v3", operation_id = "list_domains", params(("name" = Option<String>, Query, description = "Name of the domain")),
    responses((status = 200, body = Domains), OnList)
)]
pub(super) async fn list(State(state): State<IamState>, request: Request) -> Result<Json<Domains>, IamError> {
    let (_, parts, _) = state.auth.authenticate(request, true).await?;
    let wanted = query_value(parts.uri.query().unwrap_or_default(), "name");
    let name = Some(state.catalog.domain.clone()).filter(|name| wanted.is_none_or(|wanted| wanted == *name));
    let base = state.base(&parts);
    let links = |path: &str| DomainLinks { own: format!("{base}/v3{path}") };
    let domain = |name| ListedDomain {
        id: DOMAIN_ID,
        name,
        description: "",
        enabled: true,
        links: links(&format!("/domains/{DOMAIN_ID}")),
    };
    Ok(Json(Domains { domains: name.map(domain).into_iter().collect(), links: links("/auth/domains") }))
}
