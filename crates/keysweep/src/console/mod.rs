//! The web console: pages for people, rendered on the server, so that they work without script as well.

mod activity;
mod assets;
mod audit;
mod auto_scan;
mod cookies;
mod edit;
mod error;
mod estimate;
mod fields;
mod format;
mod history;
mod hold;
mod instance;
mod instances;
mod labels;
mod live;
mod protection;
mod selection;
mod shell;
mod sign_in;
mod status;
mod survey;
mod task;
mod trend;

use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};

use self::{cookies::Cookies, fields::Fields, protection::FormKey};
pub use self::{error::ConsoleError, protection::security_headers};
use crate::{
    auth::{Authenticator, Authorized},
    hold::Holds,
    identity::Identity,
    instances::Instances,
    model::{Instance, Project, Role},
    request::read_body,
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
struct PageContext {
    authorized: Authorized,
    project: Project,
    /// All projects that the caller has a role on.
    projects: Vec<Project>,
    query: Fields,
    form: Fields,
    form_key: FormKey,
}

impl PageContext {
    /// Returns the name of the user; `None` without authentication.
    fn user(&self) -> Option<&str> {
        self.authorized.caller.name.as_deref()
    }

    /// Returns the path of a page of the project.
    fn path(&self, rest: &str) -> String {
        format!("/console/{}/{rest}", self.project.id)
    }

    fn instance_path(&self, instance: &Instance) -> String {
        self.path(&format!("instances/{}", instance.id))
    }
}

impl ConsoleState {
    /// Authorizes a request for a page. The order of the checks is that of the other surfaces, except that credentials are
    /// a session and, for a form, its token.
    async fn authorize(&self, request: Request, needed: Role) -> Result<PageContext, ConsoleError> {
        let (mut parts, body) = request.into_parts();
        let cookies = Cookies::of(&parts.headers);
        let Some(caller) = self.auth.session_caller(cookies.session.as_deref()).await? else {
            // After the sign-in the page can be shown again, but a form cannot be sent again.
            return Err(ConsoleError::SignIn { next: parts.uri.path().to_owned() });
        };
        let form_key = parts.extensions.get::<FormKey>().cloned().unwrap_or_default();
        let form = match parts.method.is_safe() {
            true => Fields::default(),
            false => protection::verified_form(&parts.headers, &form_key, &read_body(body).await?)?,
        };
        let authorized = caller.authorize(&mut parts, needed).await?;
        let projects = self.auth.projects_of(&authorized.caller).await?;
        let project = projects.iter().find(|project| project.id == authorized.project_id).cloned();
        let project = project.ok_or(ConsoleError::NotFound("project"))?;
        let query = Fields::parse(authorized.query.as_bytes());
        Ok(PageContext { authorized, project, projects, query, form, form_key })
    }

    /// Authorizes a request for a page of an instance.
    async fn authorize_instance(
        &self,
        request: Request,
        needed: Role,
    ) -> Result<(PageContext, Instance), ConsoleError> {
        let context = self.authorize(request, needed).await?;
        let instance = self.auth.instance(&context.authorized).await?;
        Ok((context, instance))
    }
}

/// Redirects to the instances of the caller's first project.
async fn home(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let cookies = Cookies::of(request.headers());
    let Some(caller) = state.auth.session_caller(cookies.session.as_deref()).await? else {
        return Err(ConsoleError::SignIn { next: "/console".into() });
    };
    match state.auth.projects_of(&caller).await?.first() {
        Some(project) => Ok(Redirect::to(&format!("/console/{}/instances", project.id)).into_response()),
        None => Err(ConsoleError::NoProject),
    }
}

/// Redirects a GET of a form's address to the page that holds the form.
async fn back(request: Request) -> Redirect {
    let path = request.uri().path();
    Redirect::to(path.rsplit_once('/').map_or("/console", |(page, _)| page))
}

/// Returns the routes of this surface.
pub fn router(state: ConsoleState) -> Router {
    Router::new()
        .route("/console", get(home))
        .route("/console/", get(home))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::submit))
        .route("/console/sign-out", get(back).post(sign_in::leave))
        .route("/console/assets/{name}", get(assets::serve))
        .route("/console/{project}", get(instances::enter))
        .route("/console/{project}/instances", get(instances::list))
        .route("/console/{project}/add", get(edit::blank).post(edit::add))
        .route("/console/{project}/activity", get(activity::list))
        .route("/console/{project}/audit", get(audit::list))
        .route("/console/{project}/survey", get(survey::show).post(survey::create))
        .route("/console/{project}/instances/{instance}", get(instance::show))
        .route("/console/{project}/instances/{instance}/scan", get(back).post(instance::scan))
        .route("/console/{project}/instances/{instance}/test", get(back).post(instance::test))
        .route("/console/{project}/instances/{instance}/pause", get(back).post(instance::pause))
        .route("/console/{project}/instances/{instance}/resume", get(back).post(instance::resume))
        .route("/console/{project}/instances/{instance}/remove", get(back).post(instance::remove))
        .route("/console/{project}/instances/{instance}/auto-scan", get(back).post(instance::set_auto_scan))
        .route("/console/{project}/instances/{instance}/hold", get(back).post(instance::set_hold))
        .route("/console/{project}/instances/{instance}/edit", get(edit::filled).post(edit::change))
        .route("/console/{project}/tasks/{task}", get(task::show))
        .route("/console/{project}/tasks/{task}/cancel", get(back).post(task::cancel))
        .layer(middleware::from_fn_with_state(state.clone(), protection::protect))
        .with_state(state)
}

/// Redirects a browser that opened the service's root to the console.
pub fn entrance() -> Response {
    security_headers(Redirect::to("/console").into_response())
}
