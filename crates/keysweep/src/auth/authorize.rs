//! What a caller may do: the checks between a request and its handler, the same in the same order for every surface.
//!
//! Credentials, format of the project id, match of the project, format of the instance or task id, role, existence. The
//! order matters: a caller learns nothing about projects that its credentials are not for.

use axum::{
    body::Bytes,
    extract::{FromRequestParts, RawPathParams, Request},
    http::request::Parts,
};

use super::{AuthError, Authenticator, Caller};
use crate::{
    instances::InstanceError,
    model::{Instance, Role, is_id},
};

/// A request that passed every check up to the role.
#[derive(Debug)]
pub struct Authorized {
    /// The user or service that sent the request.
    pub caller: Caller,
    /// The caller's role on the project.
    pub role: Role,
    /// Id of the project in the path.
    pub project_id: String,
    /// Id of the instance, task or survey in the path; empty if the path names none of them.
    pub subject_id: String,
    /// The query, still encoded.
    pub query: String,
    /// The body; empty for the console, which has read its form before.
    pub body: Bytes,
}

/// Why a request is denied, in the order of the checks. Each surface turns it into an error of its own.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The request has no valid credentials.
    #[error(transparent)]
    Credentials(#[from] AuthError),
    /// The path holds bytes that are not UTF-8.
    #[error("the path is not UTF-8")]
    Path,
    /// The project id in the path is malformed.
    #[error("the project id is malformed")]
    ProjectFormat {
        /// The segment of the path.
        project_id: String,
    },
    /// The credentials are not for this project.
    #[error("the credentials are not for this project")]
    OtherProject,
    /// The instance or task id in the path is malformed.
    #[error("the id in the path is malformed")]
    SubjectFormat,
    /// The caller's role on the project is too low.
    #[error("the role {needed} is required")]
    Role {
        /// The lowest role that suffices.
        needed: Role,
        /// The project.
        project_id: String,
    },
    /// The project has no such instance.
    #[error("the project has no such instance")]
    NoInstance,
    /// The store failed.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

impl Authenticator {
    /// Checks a request up to the role that `needed` names. `repeatable`: see [`Authenticator::authenticate`].
    pub async fn authorize(&self, request: Request, needed: Role, repeatable: bool) -> Result<Authorized, Denied> {
        let (caller, mut parts, body) = self.authenticate(request, repeatable).await?;
        Ok(Authorized { body, ..caller.authorize(&mut parts, needed).await? })
    }

    /// Returns the instance that an authorized request names: the last check.
    pub async fn instance(&self, authorized: &Authorized) -> Result<Instance, Denied> {
        let found = self.instances.get(&authorized.project_id, &authorized.subject_id).await?;
        found.ok_or(Denied::NoInstance)
    }
}

impl Caller {
    /// Checks the ids in a request's path and the caller's role. The first id in the path is the project's, the second
    /// one that of an instance, a task or a survey.
    pub async fn authorize(self, parts: &mut Parts, needed: Role) -> Result<Authorized, Denied> {
        let params = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| Denied::Path)?;
        let mut ids = params.iter().map(|(_, id)| id.to_owned());
        let (project_id, subject_id) = (ids.next().unwrap_or_default(), ids.next());
        let role = self.require_role(&project_id, subject_id.as_deref(), needed)?;
        Ok(Authorized {
            caller: self,
            role,
            project_id,
            subject_id: subject_id.unwrap_or_default(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: Bytes::new(),
        })
    }

    /// Returns the caller's role on a project if it is at least `needed`.
    fn require_role(&self, project_id: &str, subject_id: Option<&str>, needed: Role) -> Result<Role, Denied> {
        if !is_id(project_id) {
            return Err(Denied::ProjectFormat { project_id: project_id.to_owned() });
        }
        let role = self.role_on(project_id).ok_or(Denied::OtherProject)?;
        if !subject_id.is_none_or(is_id) {
            return Err(Denied::SubjectFormat);
        }
        match role < needed {
            true => Err(Denied::Role { needed, project_id: project_id.to_owned() }),
            false => Ok(role),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{
        super::{Credential, Permissions},
        *,
    };
    use crate::model::Grant;

    const SHOP: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    #[rstest]
    #[case::project_format("p", Some("i"), "ProjectFormat")]
    #[case::project_match(OTHER, Some("i"), "OtherProject")]
    #[case::subject_format(SHOP, Some("i"), "SubjectFormat")]
    #[case::role(SHOP, Some(OTHER), "Role")]
    #[case::role_on_the_project(SHOP, None, "Role")]
    fn the_first_failing_check_decides(#[case] project: &str, #[case] subject: Option<&str>, #[case] denied: &str) {
        let grant = Grant { project_id: SHOP.into(), role: Role::Reader };
        let permissions = Permissions::Granted(vec![grant]);
        let reader = Caller { name: Some("ada".into()), permissions, credential: Credential::None };
        let error = reader.require_role(project, subject, Role::Operator).expect_err("a reader is no operator");
        assert!(format!("{error:?}").starts_with(denied), "{error:?}");
        assert_eq!(reader.require_role(SHOP, Some(OTHER), Role::Reader).expect("a reader"), Role::Reader);
    }
}
