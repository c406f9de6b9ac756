//! `/v3/auth/tokens`: issues a token for a password or for another token, shows a token, and revokes one.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header::CACHE_CONTROL, request::Parts},
    response::IntoResponse,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    IamState,
    catalog::CatalogEntry,
    error::{CREATED, IamError, NO_CONTENT, OnSignIn, OnToken},
    sign_in_body::{SignInBody, Wanted},
};
use crate::{
    auth::SignedIn,
    request::{Peer, read_body},
};

const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
/// Id of the only domain.
pub(super) const DOMAIN_ID: &str = "default";

/// Description of an issued token. The token itself is in the header X-Subject-Token.
#[derive(Debug, Serialize, ToSchema)]
pub struct IssuedToken {
    token: TokenBody,
}

/// A token. One for a project has `project`, `roles` and `catalog`, one for the domain `domain`, an unscoped one none of these.
#[derive(Debug, Serialize, ToSchema)]
struct TokenBody {
    methods: Vec<&'static str>,
    issued_at: String,
    expires_at: String,
    user: TokenUser,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<TokenProject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<Domain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog: Option<Vec<CatalogEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<TokenRole>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokenUser {
    id: String,
    name: String,
    domain: Domain,
    password_expires_at: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokenProject {
    id: String,
    name: String,
    domain: Domain,
}

#[derive(Debug, Serialize, Clone, ToSchema)]
struct Domain {
    id: &'static str,
    name: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokenRole {
    id: &'static str,
    name: &'static str,
}

fn utc_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

impl IamState {
    /// Returns the answer that describes a token, with the token in its header.
    fn describe(
        &self,
        signed_in: SignedIn,
        methods: Vec<&'static str>,
        is_for_domain: bool,
        parts: &Parts,
    ) -> Result<impl IntoResponse + use<>, IamError> {
        let issued = signed_in.issued;
        let mut header = HeaderValue::from_str(issued.token.expose()).map_err(|_| IamError::Internal)?;
        header.set_sensitive(true);
        let domain = Domain { id: DOMAIN_ID, name: self.catalog.domain.clone() };
        let wants_catalog = !parts.uri.query().unwrap_or_default().split('&').any(|pair| pair.starts_with("nocatalog"));
        let project_id = signed_in.project.as_ref().map(|(project, _)| project.id.as_str());
        let has_catalog = wants_catalog && (project_id.is_some() || is_for_domain);
        let token = TokenBody {
            methods,
            issued_at: utc_micros(issued.issued_at),
            expires_at: utc_micros(issued.expires_at),
            user: TokenUser {
                id: signed_in.user.id,
                name: signed_in.user.name,
                domain: domain.clone(),
                password_expires_at: "",
            },
            catalog: has_catalog.then(|| self.entries(&self.base(parts), project_id)),
            domain: is_for_domain.then(|| domain.clone()),
            roles: match &signed_in.project {
                Some((_, role)) => Some(vec![TokenRole { id: role.as_str(), name: role.as_str() }]),
                None => is_for_domain.then(Vec::new),
            },
            project: signed_in.project.map(|(project, _)| TokenProject { id: project.id, name: project.name, domain }),
        };
        let no_store = HeaderValue::from_static("no-store");
        Ok(([(SUBJECT_TOKEN, header), (CACHE_CONTROL, no_store)], Json(IssuedToken { token })))
    }
}

/// Issue a token
///
/// Methods are `password`, with a user by name or id, and `token`, which issues another token until the given one expires. The
/// scope is a project, the domain, or `unscoped`; without a scope it is the only project that the user has a role on. A token
/// for the domain and an unscoped one list projects and are exchanged for a token of a project; they open nothing else. The
/// token is in the header X-Subject-Token.
#[utoipa::path(
    post, path = "/v3/auth/tokens", tag = "IAM v3", operation_id = "issue_token", request_body = SignInBody,
    responses((status = 201, body = IssuedToken), OnSignIn)
)]
pub(super) async fn issue(State(state): State<IamState>, request: Request) -> Result<impl IntoResponse, IamError> {
    let (parts, body) = request.into_parts();
    let body = read_body(body, Peer::of(&parts.extensions)).await?;
    let (wanted, is_for_domain) = SignInBody::parse(&body)?;
    let (signed_in, methods) = match wanted {
        Wanted::Password(sign_in) => {
            (state.auth.sign_in(sign_in, Peer::of(&parts.extensions)).await?, vec!["password"])
        }
        Wanted::Token(token, scope) => {
            (state.auth.rescope(token.expose().as_bytes(), scope).await?, vec!["token", "password"])
        }
    };
    Ok((CREATED, state.describe(signed_in, methods, is_for_domain, &parts)?))
}

/// Show the token in X-Subject-Token, which must belong to the caller
#[utoipa::path(
    get, path = "/v3/auth/tokens", tag = "IAM v3", operation_id = "show_token", params(("X-Subject-Token" = String, Header, description = "The token")),
    responses((status = 200, body = IssuedToken), OnToken)
)]
pub(super) async fn show(State(state): State<IamState>, request: Request) -> Result<impl IntoResponse, IamError> {
    let (caller, parts, _) = state.auth.authenticate(request, true).await?;
    let token = parts.headers.get(SUBJECT_TOKEN).ok_or(IamError::NoSubject)?;
    let signed_in = state.auth.token(token.as_bytes()).await?.ok_or(IamError::NotFound)?;
    if caller.name.is_some_and(|name| name != signed_in.user.name) {
        return Err(IamError::NotFound);
    }
    state.describe(signed_in, vec!["password"], false, &parts)
}

/// Revoke the token in X-Subject-Token, which must belong to the caller
#[utoipa::path(
    delete, path = "/v3/auth/tokens", tag = "IAM v3", operation_id = "revoke_token", params(("X-Subject-Token" = String, Header, description = "The token")),
    responses((status = 204), OnToken)
)]
pub(super) async fn revoke(State(state): State<IamState>, request: Request) -> Result<StatusCode, IamError> {
    // Revoking a token twice has the effect of revoking it once.
    let (caller, parts, _) = state.auth.authenticate(request, true).await?;
    let token = parts.headers.get(SUBJECT_TOKEN).ok_or(IamError::NoSubject)?;
    let holder = state.identity.token_holder(token.as_bytes()).await?.ok_or(IamError::NotFound)?;
    if caller.name.is_some_and(|name| name != holder.user.name) {
        return Err(IamError::NotFound);
    }
    state.identity.revoke_token(token.as_bytes()).await?;
    Ok(NO_CONTENT)
}
