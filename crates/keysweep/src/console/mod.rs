//! The web console: pages for people, made whole on the server, so that they work without script as well.

mod assets;
mod audit;
mod auto_scan;
mod chart;
mod cookies;
mod edit;
mod error;
mod fields;
mod guard;
mod instance;
mod instances;
mod live;
mod shell;
mod sign_in;
mod status;
mod task;
mod words;

use axum::{
    Router,
    extract::{FromRequestParts, RawPathParams, Request, State},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};

use self::{cookies::Cookies, error::ConsoleError, fields::Fields, guard::FormKey};
use crate::{
    auth::{Authenticator, Caller, Refusal},
    fleet::Fleet,
    http::read_body,
    model::{Instance, Project, Role},
    task::Tasks,
};

/// What the pages need.
#[derive(Clone)]
pub struct Door {
    /// Instances, people's sessions and the audit trail.
    pub fleet: Fleet,
    /// Tasks.
    pub tasks: Tasks,
    /// Who calls.
    pub auth: Authenticator,
    /// Whether this listener speaks TLS, so that cookies are for TLS only.
    pub secure: bool,
}

/// Somebody at a page of a project, who has passed every check that comes before its content.
struct Guest {
    caller: Caller,
    role: Role,
    project: Project,
    /// All projects that the caller has a role on.
    projects: Vec<Project>,
    /// Of the instance or the task; empty where the path names none.
    subject_id: String,
    query: Fields,
    form: Fields,
    form_key: FormKey,
}

impl Guest {
    fn by(&self) -> Option<&str> {
        self.caller.name.as_deref()
    }

    /// The path of a page of the guest's project.
    fn path(&self, rest: &str) -> String {
        format!("/console/{}/{rest}", self.project.id)
    }

    fn instance_path(&self, instance: &Instance) -> String {
        self.path(&format!("instances/{}", instance.id))
    }
}

impl Door {
    /// The same checks in the same order as at the other doors: who it is, whether the form is ours, project, ids, role.
    async fn admit(&self, request: Request, needed: Role) -> Result<Guest, ConsoleError> {
        let (mut parts, body) = request.into_parts();
        let cookies = Cookies::of(&parts.headers);
        let Some(caller) = self.auth.session_caller(cookies.session.as_deref()).await? else {
            // A form cannot be sent on after signing in; its page can be shown again.
            return Err(ConsoleError::SignIn { next: parts.uri.path().to_owned() });
        };
        let form_key = parts.extensions.get::<FormKey>().cloned().unwrap_or_default();
        let form = match parts.method.is_safe() {
            true => Fields::default(),
            false => guard::open_form(&parts.headers, &form_key, &read_body(body).await?)?,
        };
        let params = RawPathParams::from_request_parts(&mut parts, &()).await.map_err(|_| ConsoleError::NoUrl)?;
        let params: Vec<String> = params.iter().map(|(_, value)| value.to_owned()).collect();
        let (project_id, subject_id) = (params.first().cloned().unwrap_or_default(), params.get(1).cloned());
        caller.pass(&project_id, subject_id.as_deref(), needed).map_err(|refusal| match refusal {
            Refusal::Role => ConsoleError::Forbidden { needed, project_id: project_id.clone() },
            Refusal::ProjectFormat | Refusal::OtherProject => ConsoleError::NotFound("project"),
            Refusal::SubjectFormat => ConsoleError::NotFound("page"),
        })?;
        let role = caller.role_on(&project_id).unwrap_or(Role::Reader);
        let projects = self.auth.projects_of(&caller).await?;
        let project = projects.iter().find(|project| project.id == project_id).cloned();
        let project = project.ok_or(ConsoleError::NotFound("project"))?;
        let query = Fields::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let subject_id = subject_id.unwrap_or_default();
        Ok(Guest { caller, role, project, projects, subject_id, query, form, form_key })
    }

    async fn admit_to_instance(&self, request: Request, needed: Role) -> Result<(Guest, Instance), ConsoleError> {
        let guest = self.admit(request, needed).await?;
        let found = self.fleet.instance(&guest.project.id, &guest.subject_id).await?;
        Ok((guest, found.ok_or(ConsoleError::NotFound("instance"))?))
    }
}

/// Where the console begins: at the instances of the caller's first project.
async fn home(State(door): State<Door>, request: Request) -> Result<Response, ConsoleError> {
    let cookies = Cookies::of(request.headers());
    let Some(caller) = door.auth.session_caller(cookies.session.as_deref()).await? else {
        return Err(ConsoleError::SignIn { next: "/console".into() });
    };
    match door.auth.projects_of(&caller).await?.first() {
        Some(project) => Ok(Redirect::to(&format!("/console/{}/instances", project.id)).into_response()),
        None => Err(ConsoleError::NoProject),
    }
}

/// Whoever asks for the address of a form gets the page that it is on.
async fn back(request: Request) -> Redirect {
    let path = request.uri().path();
    Redirect::to(path.rsplit_once('/').map_or("/console", |(page, _)| page))
}

/// The routes of this door.
pub fn router(door: Door) -> Router {
    Router::new()
        .route("/console", get(home))
        .route("/console/", get(home))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::submit))
        .route("/console/sign-out", get(back).post(sign_in::leave))
        .route("/console/assets/{name}", get(assets::serve))
        .route("/console/{project}", get(instances::enter))
        .route("/console/{project}/instances", get(instances::list))
        .route("/console/{project}/add", get(edit::blank).post(edit::add))
        .route("/console/{project}/audit", get(audit::list))
        .route("/console/{project}/instances/{instance}", get(instance::show))
        .route("/console/{project}/instances/{instance}/scan", get(back).post(instance::scan))
        .route("/console/{project}/instances/{instance}/test", get(back).post(instance::test))
        .route("/console/{project}/instances/{instance}/pause", get(back).post(instance::pause))
        .route("/console/{project}/instances/{instance}/resume", get(back).post(instance::resume))
        .route("/console/{project}/instances/{instance}/remove", get(back).post(instance::remove))
        .route("/console/{project}/instances/{instance}/auto-scan", get(back).post(instance::set_auto_scan))
        .route("/console/{project}/instances/{instance}/edit", get(edit::filled).post(edit::change))
        .route("/console/{project}/tasks/{task}", get(task::show))
        .route("/console/{project}/tasks/{task}/cancel", get(back).post(task::cancel))
        .layer(middleware::from_fn_with_state(door.clone(), guard::keep))
        .with_state(door)
}

/// The answer to a browser that was given the service's address alone.
pub fn front_door() -> Response {
    guard::shield(Redirect::to("/console").into_response())
}

/// The answer to a path that this door does not have.
pub fn no_url() -> Response {
    guard::shield(ConsoleError::NoUrl.into_response())
}

/// The answer to a request that is not of this machine, where the service runs without authentication.
pub fn not_local() -> Response {
    guard::shield(ConsoleError::NotLocal.into_response())
}

/// The answer to a method that a path does not have.
pub fn no_method() -> Response {
    guard::shield(ConsoleError::NoMethod.into_response())
}
