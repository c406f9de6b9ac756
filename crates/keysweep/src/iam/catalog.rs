//! The service catalog: where clients find the surfaces of this service, by type and region, and `GET /v3/auth/catalog`.

use axum::{
    Json,
    extract::{Request, State},
    http::{header::HOST, request::Parts, uri::Authority},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    IamState,
    error::{IamError, OnList},
};
use crate::request::ForwardedHost;

/// The header in which clients that sign name their project.
const PROJECT_HEADER: &str = "x-project-id";
/// The header with which a proxy that speaks TLS says so.
const PROTOCOL_HEADER: &str = "x-forwarded-proto";

/// A catalog.
#[derive(Debug, Serialize, ToSchema)]
pub struct Catalog {
    catalog: Vec<CatalogEntry>,
    links: CatalogLinks,
}

#[derive(Debug, Serialize, ToSchema)]
struct CatalogLinks {
    #[serde(rename = "self")]
    own: String,
}

/// A service of the catalog.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CatalogEntry {
    id: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    endpoints: [Endpoint; 1],
}

#[derive(Debug, Serialize, ToSchema)]
struct Endpoint {
    id: String,
    interface: &'static str,
    region: String,
    region_id: String,
    url: String,
}

impl IamState {
    /// Returns the URL of this service as the sender of a request knows it, without a slash at the end. Empty, so that URLs
    /// are relative, if the request names no host.
    pub(super) fn base(&self, Parts { headers, extensions, .. }: &Parts) -> String {
        if let Some(url) = &self.catalog.public_url {
            return url.clone();
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let forwarded = extensions.get::<ForwardedHost>().and_then(|host| host.0.to_str().ok());
        let host = forwarded.or_else(|| text(HOST.as_str())).and_then(|host| host.parse::<Authority>().ok());
        let scheme = match self.secure || text(PROTOCOL_HEADER) == Some("https") {
            true => "https",
            false => "http",
        };
        host.filter(|host| !host.as_str().contains('@')).map(|host| format!("{scheme}://{host}")).unwrap_or_default()
    }

    /// Returns the catalog of a caller: the identity API, and the DCS API of the project that its credentials are for.
    pub(super) fn entries(&self, base: &str, project_id: Option<&str>) -> Vec<CatalogEntry> {
        let region = &self.catalog.region;
        let entry = |kind: &'static str, url: String| CatalogEntry {
            id: kind,
            kind,
            name: kind,
            endpoints: [Endpoint {
                id: format!("{kind}-public"),
                interface: "public",
                region: region.clone(),
                region_id: region.clone(),
                url,
            }],
        };
        let identity = ["identity", "iam"].map(|kind| entry(kind, format!("{base}/v3")));
        let dcs = project_id.map(|project_id| entry("dcs", format!("{base}/v2/{project_id}")));
        identity.into_iter().chain(dcs).collect()
    }
}

/// Show the service catalog
///
/// It holds the DCS API if the credentials are for one project, or the header X-Project-Id names one of theirs.
#[utoipa::path(
    get, path = "/v3/auth/catalog", tag = "IAM v3", operation_id = "show_catalog",
    responses((status = 200, body = Catalog), OnList)
)]
pub(super) async fn show(State(state): State<IamState>, request: Request) -> Result<Json<Catalog>, IamError> {
    let (caller, parts, _) = state.auth.authenticate(request, true).await?;
    // The token of no project opens no DCS API, whatever it can be exchanged for.
    let mut projects = if caller.is_unscoped() { Vec::new() } else { state.auth.projects_of(&caller).await? };
    if let Some(named) = parts.headers.get(PROJECT_HEADER).and_then(|id| id.to_str().ok()) {
        projects.retain(|project| project.id == named);
    }
    let project_id = Some(projects).filter(|found| found.len() == 1).and_then(|mut found| found.pop());
    let project_id = project_id.map(|project| project.id);
    let base = state.base(&parts);
    let links = CatalogLinks { own: format!("{base}/v3/auth/catalog") };
    Ok(Json(Catalog { catalog: state.entries(&base, project_id.as_deref()), links }))
}
