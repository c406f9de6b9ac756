//! `POST /v3/auth/tokens` issues a token for a user name and a password, `DELETE` revokes one.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode},
    response::IntoResponse,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    IamState,
    error::{CREATED, IamError, NO_CONTENT, OnSignIn, OnToken},
};
use crate::{
    auth::SignIn,
    request::{Peer, read_body},
    secrets::Secret,
};

const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
/// Id of the only domain, whatever name clients give it.
pub(super) const DOMAIN_ID: &str = "default";

/// A request for a token.
#[derive(Deserialize, ToSchema)]
pub struct SignInBody {
    auth: Auth,
}

#[derive(Deserialize, ToSchema)]
struct Auth {
    identity: Identity,
    scope: Option<Scope>,
}

#[derive(Deserialize, ToSchema)]
struct Identity {
    password: Password,
}

#[derive(Deserialize, ToSchema)]
struct Password {
    user: PasswordUser,
}

#[derive(Deserialize, ToSchema)]
struct PasswordUser {
    name: String,
    password: String,
    domain: Option<Named>,
}

#[derive(Deserialize, ToSchema)]
struct Scope {
    project: Option<Named>,
}

#[derive(Deserialize, ToSchema)]
struct Named {
    id: Option<String>,
    name: Option<String>,
}

/// Description of an issued token. The token itself is in the header X-Subject-Token.
#[derive(Debug, Serialize, ToSchema)]
pub struct IssuedToken {
    token: TokenBody,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokenBody {
    methods: [&'static str; 1],
    issued_at: String,
    expires_at: String,
    user: TokenUser,
    project: TokenProject,
    #[schema(value_type = Vec<Object>)]
    catalog: Vec<()>,
    roles: Vec<TokenRole>,
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

/// Issue a token for a user name and a password
///
/// The token is in the header X-Subject-Token.
#[utoipa::path(
    post, path = "/v3/auth/tokens", tag = "IAM v3", operation_id = "issue_token", request_body = SignInBody,
    responses((status = 201, body = IssuedToken), OnSignIn)
)]
pub(super) async fn issue(State(state): State<IamState>, request: Request) -> Result<impl IntoResponse, IamError> {
    let (parts, body) = request.into_parts();
    let body = read_body(body).await?;
    let SignInBody { auth } = serde_json::from_slice(&body).map_err(|_| {
        IamError::Request("The body must hold auth.identity.password.user with name and password as strings.")
    })?;
    let PasswordUser { name, password, domain } = auth.identity.password.user;
    let project = auth.scope.and_then(|scope| scope.project).and_then(|project| project.id.or(project.name));
    let wanted = SignIn { name, password: Secret::from(password), project };
    let signed_in = state.auth.sign_in(wanted, Peer::of(&parts.extensions)).await?;

    let issued = signed_in.issued;
    let mut header = HeaderValue::from_str(issued.token.expose()).map_err(|_| IamError::Internal)?;
    header.set_sensitive(true);
    let domain =
        Domain { id: DOMAIN_ID, name: domain.and_then(|domain| domain.name).unwrap_or_else(|| DOMAIN_ID.to_owned()) };
    let role = signed_in.role.as_str();
    let token = TokenBody {
        methods: ["password"],
        issued_at: utc_micros(issued.issued_at),
        expires_at: utc_micros(issued.expires_at),
        user: TokenUser {
            id: signed_in.user.id,
            name: signed_in.user.name,
            domain: domain.clone(),
            password_expires_at: "",
        },
        project: TokenProject { id: signed_in.project.id, name: signed_in.project.name, domain },
        catalog: Vec::new(),
        roles: vec![TokenRole { id: role, name: role }],
    };
    Ok((CREATED, [(SUBJECT_TOKEN, header)], Json(IssuedToken { token })))
}

/// Revoke the token in X-Subject-Token, which must belong to the caller
#[utoipa::path(
    delete, path = "/v3/auth/tokens", tag = "IAM v3", operation_id = "revoke_token", params(("X-Subject-Token" = String, Header, description = "The token")),
    responses((status = 204), OnToken)
)]
pub(super) async fn revoke(State(state): State<IamState>, request: Request) -> Result<StatusCode, IamError> {
    // Revoking a token twice has the effect of revoking it once.
    let (caller, parts, _) = state.auth.authenticate(request, true).await?;
    let token = parts.headers.get(SUBJECT_TOKEN).ok_or(IamError::Request("Name the token in X-Subject-Token."))?;
    let holder = state.identity.token_holder(token.as_bytes()).await?.ok_or(IamError::NotFound)?;
    if caller.name.is_some_and(|name| name != holder.user.name) {
        return Err(IamError::NotFound);
    }
    state.identity.revoke_token(token.as_bytes()).await?;
    Ok(NO_CONTENT)
}
