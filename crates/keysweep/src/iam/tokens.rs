//! `POST /v3/auth/tokens`: a token for a name and a password; `DELETE`: its end.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode},
    response::IntoResponse,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Door,
    error::{CREATED, IamError, NO_CONTENT},
};
use crate::{
    auth::SignIn,
    fleet::Secret,
    http::{Peer, read_body},
};

const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
/// There is one domain, whatever a client calls it.
pub(super) const DOMAIN_ID: &str = "default";

#[derive(Deserialize)]
struct Wanted {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    identity: Identity,
    scope: Option<Scope>,
}

#[derive(Deserialize)]
struct Identity {
    password: Password,
}

#[derive(Deserialize)]
struct Password {
    user: PasswordUser,
}

#[derive(Deserialize)]
struct PasswordUser {
    name: String,
    password: String,
    domain: Option<Named>,
}

#[derive(Deserialize)]
struct Scope {
    project: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: Option<String>,
    name: Option<String>,
}

/// The answer; the token itself is in the header X-Subject-Token.
#[derive(Debug, Serialize)]
pub struct Issued {
    token: TokenBody,
}

#[derive(Debug, Serialize)]
struct TokenBody {
    methods: [&'static str; 1],
    issued_at: String,
    expires_at: String,
    user: UserBody,
    project: ProjectBody,
    catalog: Vec<()>,
    roles: Vec<RoleBody>,
}

#[derive(Debug, Serialize)]
struct UserBody {
    id: String,
    name: String,
    domain: Domain,
    password_expires_at: &'static str,
}

#[derive(Debug, Serialize)]
struct ProjectBody {
    id: String,
    name: String,
    domain: Domain,
}

#[derive(Debug, Serialize, Clone)]
struct Domain {
    id: &'static str,
    name: String,
}

#[derive(Debug, Serialize)]
struct RoleBody {
    id: &'static str,
    name: &'static str,
}

fn utc_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Issues a token.
pub(super) async fn issue(State(door): State<Door>, request: Request) -> Result<impl IntoResponse, IamError> {
    let (parts, body) = request.into_parts();
    let body = read_body(body).await?;
    let Wanted { auth } = serde_json::from_slice(&body).map_err(|_| {
        IamError::Request("The body must hold auth.identity.password.user with name and password as strings.")
    })?;
    let PasswordUser { name, password, domain } = auth.identity.password.user;
    let project = auth.scope.and_then(|scope| scope.project).and_then(|project| project.id.or(project.name));
    let wanted = SignIn { name, password: Secret::from(password), project };
    let signed_in = door.auth.sign_in(wanted, Peer::of(&parts.extensions)).await?;

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
        user: UserBody {
            id: signed_in.user.id,
            name: signed_in.user.name,
            domain: domain.clone(),
            password_expires_at: "",
        },
        project: ProjectBody { id: signed_in.project.id, name: signed_in.project.name, domain },
        catalog: Vec::new(),
        roles: vec![RoleBody { id: role, name: role }],
    };
    Ok((CREATED, [(SUBJECT_TOKEN, header)], Json(Issued { token })))
}

/// Ends the token in X-Subject-Token, which must be the caller's.
pub(super) async fn revoke(State(door): State<Door>, request: Request) -> Result<StatusCode, IamError> {
    let (caller, parts, _) = door.identify(request).await?;
    let token = parts.headers.get(SUBJECT_TOKEN).ok_or(IamError::Request("Name the token in X-Subject-Token."))?;
    let holder = door.fleet.token_holder(token.as_bytes()).await?.ok_or(IamError::NotFound)?;
    if caller.name.is_some_and(|name| name != holder.user.name) {
        return Err(IamError::NotFound);
    }
    door.fleet.revoke_token(token.as_bytes()).await?;
    Ok(NO_CONTENT)
}
