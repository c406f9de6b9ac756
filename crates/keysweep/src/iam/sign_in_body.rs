//! The body of a request for a token: which method proves who the caller is, and what the token is to be for.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::IamError;
use crate::{
    auth::{SignIn, TokenScope, UserRef},
    secrets::Secret,
};

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

/// A method by which a caller proves its identity.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents the names, of which others get an answer of their own")]
enum Method {
    Password,
    Token,
}

#[derive(Deserialize, ToSchema)]
struct Identity {
    /// One of password and token. May be left out for a password.
    #[schema(value_type = Option<Vec<Method>>)]
    methods: Option<Vec<String>>,
    password: Option<Password>,
    token: Option<TokenRef>,
}

#[derive(Deserialize, ToSchema)]
struct Password {
    user: PasswordUser,
}

/// A user, by id or by name. The domain is not compared: there is one.
#[derive(Deserialize, ToSchema)]
struct PasswordUser {
    #[schema(min_length = 1)]
    id: Option<String>,
    #[schema(min_length = 1, max_length = 64)]
    name: Option<String>,
    #[schema(min_length = 1, format = Password)]
    password: String,
    #[allow(dead_code, reason = "clients send it; there is one domain")]
    domain: Option<Named>,
}

#[derive(Deserialize, ToSchema)]
struct TokenRef {
    #[schema(min_length = 1)]
    id: String,
}

/// `"unscoped"`, or an object with a project or a domain.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum Scope {
    Word(String),
    Object(ScopeObject),
}

#[derive(Deserialize, ToSchema)]
struct ScopeObject {
    project: Option<Named>,
    domain: Option<Named>,
    #[schema(value_type = Option<Object>)]
    unscoped: Option<Map<String, Value>>,
    #[serde(flatten)]
    #[schema(ignore)]
    others: Map<String, Value>,
}

#[derive(Deserialize, ToSchema)]
struct Named {
    id: Option<String>,
    name: Option<String>,
}

/// What proves who the caller is.
pub(super) enum Wanted {
    /// A password.
    Password(SignIn),
    /// A token, to be exchanged for one of another scope.
    Token(Secret, TokenScope),
}

impl SignInBody {
    /// Parses a body. Returns also whether the token is to be for the domain.
    pub(super) fn parse(body: &[u8]) -> Result<(Wanted, bool), IamError> {
        // The parser's own errors repeat values, which may be secrets.
        let Self { auth } = serde_json::from_slice(body).map_err(|_| {
            IamError::Request(
                "The body must hold auth.identity.methods with auth.identity.password.user (a name or an id, and the \
                 password, as strings) or auth.identity.token.id; auth.scope names a project or a domain, or is \
                 \"unscoped\"."
                    .into(),
            )
        })?;
        let (scope, is_for_domain) = scope(auth.scope)?;
        let Identity { methods, password, token } = auth.identity;
        let missing = |what: &str| IamError::Request(format!("The body must hold auth.identity.{what}."));
        let methods = methods.unwrap_or_else(|| vec!["password".to_owned()]);
        let wanted = match methods.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["password"] => {
                let PasswordUser { id, name, password, domain: _ } =
                    password.ok_or_else(|| missing("password.user with a name or an id, and the password"))?.user;
                let user = match (id, name) {
                    (Some(id), _) => UserRef::Id(id),
                    (None, Some(name)) => UserRef::Name(name),
                    (None, None) => return Err(missing("password.user.name or .id")),
                };
                Wanted::Password(SignIn { user, password: Secret::from(password), scope })
            }
            ["token"] => Wanted::Token(Secret::from(token.ok_or_else(|| missing("token.id"))?.id), scope),
            [] => return Err(missing("methods with one method, password or token")),
            [other] => return Err(unsupported("method", other, "password and token are")),
            [..] => {
                let remedy =
                    "Name one method in auth.identity.methods, password or token: several at once are not supported.";
                return Err(IamError::Request(remedy.to_owned()));
            }
        };
        Ok((wanted, is_for_domain))
    }
}

/// Returns the scope of a request, and whether it is the domain.
fn scope(scope: Option<Scope>) -> Result<(TokenScope, bool), IamError> {
    let object = match scope {
        None => return Ok((TokenScope::Default, false)),
        Some(Scope::Word(word)) if word == "unscoped" => return Ok((TokenScope::Unscoped, false)),
        Some(Scope::Word(word)) => return Err(unsupported_scope(&word)),
        Some(Scope::Object(object)) => object,
    };
    match object {
        ScopeObject { project: Some(project), .. } => {
            let project = project.id.or(project.name);
            Ok((project.map_or(TokenScope::Default, TokenScope::Project), false))
        }
        ScopeObject { domain: Some(_), .. } => Ok((TokenScope::Unscoped, true)),
        ScopeObject { unscoped: Some(_), .. } => Ok((TokenScope::Unscoped, false)),
        ScopeObject { others, .. } => match others.keys().next() {
            Some(other) => Err(unsupported_scope(other)),
            None => Ok((TokenScope::Default, false)),
        },
    }
}

fn unsupported_scope(name: &str) -> IamError {
    unsupported("scope", name, "a project, a domain and \"unscoped\" are")
}

fn unsupported(what: &str, name: &str, supported: &str) -> IamError {
    let name: String = name.chars().take(80).collect();
    IamError::Request(format!("The {what} {name:?} is not supported; {supported}."))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const MISSING: &str = "The body must hold";

    fn refused(identity: Value, scope: Value) -> String {
        let body = json!({ "auth": { "identity": identity, "scope": scope } }).to_string();
        match SignInBody::parse(body.as_bytes()) {
            Err(IamError::Request(sentence)) => sentence,
            Err(error) => panic!("{error:?}"),
            Ok(_) => String::new(),
        }
    }

    #[rstest]
    #[case(json!({ "methods": ["totp"], "totp": {} }), json!(null), "The method \"totp\" is not supported")]
    #[case(json!({ "methods": ["application_credential"] }), json!(null), "The method \"application_credential\"")]
    #[case(json!({ "methods": ["hw_assume_role"] }), json!(null), "The method \"hw_assume_role\"")]
    #[case(json!({ "methods": ["password", "token"] }), json!(null), "Name one method")]
    #[case(json!({ "methods": [] }), json!(null), "The body must hold auth.identity.methods")]
    #[case(json!({ "methods": ["token"] }), json!(null), "The body must hold auth.identity.token.id")]
    #[case(json!({ "methods": ["password"] }), json!(null), "The body must hold auth.identity.password.user")]
    #[case(json!({ "methods": ["password"], "password": { "user": { "password": "p" } } }), json!(null), "The body must hold auth.identity.password.user.name or .id")]
    #[case(json!({ "methods": ["token"], "token": { "id": "t" } }), json!({ "system": { "all": true } }), "The scope \"system\"")]
    #[case(json!({ "methods": ["token"], "token": { "id": "t" } }), json!("everything"), "The scope \"everything\"")]
    #[case(json!({ "methods": "password" }), json!(null), MISSING)]
    fn a_refusal_names_what_is_missing_or_not_supported(
        #[case] identity: Value,
        #[case] scope: Value,
        #[case] begin: &str,
    ) {
        let sentence = refused(identity, scope);
        assert!(sentence.starts_with(begin), "{sentence}");
    }

    #[test]
    fn scopes_are_read_as_keystone_writes_them() {
        let parsed = |scope: Value| {
            let identity = json!({ "methods": ["token"], "token": { "id": "t" } });
            let body = json!({ "auth": { "identity": identity, "scope": scope } }).to_string();
            match SignInBody::parse(body.as_bytes()) {
                Ok((Wanted::Token(_, scope), is_for_domain)) => (scope, is_for_domain),
                _ => panic!("{body}"),
            }
        };
        assert_eq!(parsed(json!(null)), (TokenScope::Default, false));
        assert_eq!(parsed(json!({})), (TokenScope::Default, false));
        assert_eq!(parsed(json!("unscoped")), (TokenScope::Unscoped, false));
        assert_eq!(parsed(json!({ "unscoped": {} })), (TokenScope::Unscoped, false));
        assert_eq!(parsed(json!({ "domain": { "name": "d" } })), (TokenScope::Unscoped, true));
        let project = json!({ "project": { "name": "shop", "domain": { "id": "default" } } });
        assert_eq!(parsed(project), (TokenScope::Project("shop".into()), false));
    }
}
