//! Version discovery: `GET /` and `GET /v3` tell OpenStack clients where the identity API is, whichever of both they were
//! configured with.

use axum::{
    Json,
    extract::{Request, State},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::IamState;

/// Version of the identity API that clients are shown: Keystone's of 2020, whose requests for tokens are these.
const VERSION: &str = "v3.14";
/// When that version was released.
const RELEASED: &str = "2020-04-07T00:00:00Z";

/// All versions of the identity API.
#[derive(Debug, Serialize)]
struct Versions {
    versions: VersionList,
}

#[derive(Debug, Serialize)]
struct VersionList {
    values: [Version; 1],
}

/// One version of the identity API.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionDocument {
    version: Version,
}

#[derive(Debug, Serialize, ToSchema)]
struct Version {
    id: &'static str,
    status: &'static str,
    updated: &'static str,
    links: [VersionLink; 1],
    #[serde(rename = "media-types")]
    media_types: [MediaType; 1],
}

#[derive(Debug, Serialize, ToSchema)]
struct VersionLink {
    rel: &'static str,
    href: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct MediaType {
    base: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

fn version(base: &str) -> Version {
    Version {
        id: VERSION,
        status: "stable",
        updated: RELEASED,
        links: [VersionLink { rel: "self", href: format!("{base}/v3/") }],
        media_types: [MediaType { base: "application/json", kind: "application/vnd.openstack.identity-v3+json" }],
    }
}

impl IamState {
    /// Returns the answer to `GET /`: all versions.
    pub fn versions(&self, parts: &Parts) -> Response {
        Json(Versions { versions: VersionList { values: [version(&self.base(parts))] } }).into_response()
    }
}

/// Show the version of the identity API
#[utoipa::path(
    get, path = "/v3", tag = "IAM v3", operation_id = "show_identity_version",
    responses((status = 200, body = VersionDocument))
)]
pub(super) async fn show(State(state): State<IamState>, request: Request) -> Json<VersionDocument> {
    Json(VersionDocument { version: version(&state.base(&request.into_parts().0)) })
}
