//! What the pages share: the services behind them, and how a request for a page is authorized.

use axum::extract::Request;

use super::{
    cookies::Cookies,
    error::ConsoleError,
    fields::Fields,
    form_key::{FormKey, verified_form},
};
use crate::{
    auth::{Authenticator, Authorized},
    hold::Holds,
    identity::Identity,
    instances::Instances,
    model::{Instance, Project, Role},
    request::{Peer, read_body},
    task::Tasks,
};

/// State of the pages.
#[derive(Clone)]
pub struct ConsoleState {
    /// Instances, sessions and the audit trail.
    pub identity: Identity,
    pub instances: Instances,
    /// Scan tasks.
    pub tasks: Tasks,
    /// How stale shares are held.
    pub holds: Holds,
    /// Checks sessions and roles.
    pub auth: Authenticator,
    /// Whether the listener speaks TLS, so that cookies are for TLS only.
    pub secure: bool,
}

/// The context of a page of a project, for a request that passed every check that precedes the page's content.
pub(super) struct PageContext {
    pub(super) authorized: Authorized,
    pub(super) project: Project,
    /// All projects that the caller has a role on.
    pub(super) projects: Vec<Project>,
    pub(super) query: Fields,
    pub(super) form: Fields,
    pub(super) form_key: FormKey,
}

impl PageContext {
    /// Returns the name of the user; `None` without authentication.
    pub(super) fn user(&self) -> Option<&str> {
        self.authorized.caller.name.as_deref()
    }

    /// Returns the path of a page of the project.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/console/{}/{rest}", self.project.id)
    }

    pub(super) fn instance_path(&self, instance: &Instance) -> String {
        self.path(&format!("instances/{}", instance.id))
    }
}

impl ConsoleState {
    /// Authorizes a request for a page. The order of the checks is that of the other surfaces, except that credentials are
    /// a session and, for a form, its token.
    pub(super) async fn authorize(&self, request: Request, needed: Role) -> Result<PageContext, ConsoleError> {
        let (mut parts, body) = request.into_parts();
        let cookies = Cookies::of(&parts.headers);
        let Some(caller) = self.auth.session_caller(cookies.session.as_deref()).await? else {
            // After the sign-in the page can be shown again, but a form cannot be sent again.
            return Err(ConsoleError::SignIn { next: parts.uri.path().to_owned() });
        };
        let form_key = parts.extensions.get::<FormKey>().cloned().unwrap_or_default();
        let form = match parts.method.is_safe() {
            true => Fields::default(),
            false => verified_form(&parts.headers, &form_key, &read_body(body, Peer::of(&parts.extensions)).await?)?,
        };
        let authorized = caller.authorize(&mut parts, needed).await?;
        let projects = self.auth.projects_of(&authorized.caller).await?;
        let project = projects.iter().find(|project| project.id == authorized.project_id).cloned();
        let project = project.ok_or(ConsoleError::NotFound("project"))?;
        let query = Fields::parse(authorized.query.as_bytes());
        Ok(PageContext { authorized, project, projects, query, form, form_key })
    }

    /// Authorizes a request for a page of an instance.
    pub(super) async fn authorize_instance(
        &self,
        request: Request,
        needed: Role,
    ) -> Result<(PageContext, Instance), ConsoleError> {
        let context = self.authorize(request, needed).await?;
        let instance = self.auth.instance(&context.authorized).await?;
        Ok((context, instance))
    }
}
