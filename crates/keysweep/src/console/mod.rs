//! The web console: pages for people, rendered on the server, so that they work without script as well.

mod activity;
mod assets;
mod audit;
mod auto_scan;
mod cookies;
mod edit;
mod edit_form;
mod error;
mod estimate;
mod fields;
mod form_key;
mod format;
mod history;
mod hold;
mod hold_limits;
mod instance;
mod instances;
mod labels;
mod listed;
mod live;
mod protection;
mod selected;
mod selection;
mod shell;
mod sign_in;
mod state;
mod status;
mod survey;
mod task;
mod trend;

use axum::{
    Router,
    extract::{Path, RawQuery, Request, State},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};

use self::cookies::Cookies;
pub use self::{error::ConsoleError, protection::security_headers, state::ConsoleState};

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

/// Serves an asset of the pages.
async fn asset(Path(name): Path<String>, RawQuery(query): RawQuery) -> Result<Response, ConsoleError> {
    assets::asset(&name, query.as_deref()).ok_or(ConsoleError::NoUrl)
}

/// Returns the routes of this surface.
pub fn router(state: ConsoleState) -> Router {
    Router::new()
        .route("/console", get(home))
        .route("/console/", get(home))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::submit))
        .route("/console/sign-out", get(back).post(sign_in::leave))
        .route("/console/assets/{name}", get(asset))
        .route("/console/{project}", get(instances::enter))
        .route("/console/{project}/instances", get(instances::list))
        .route("/console/{project}/scan", get(back).post(selected::scan))
        .route("/console/{project}/pause", get(back).post(selected::pause))
        .route("/console/{project}/resume", get(back).post(selected::resume))
        .route("/console/{project}/schedule", get(back).post(selected::schedule))
        .route("/console/{project}/add", get(edit::blank).post(edit::add))
        .route("/console/{project}/activity", get(activity::list))
        .route("/console/{project}/audit", get(audit::list))
        .route("/console/{project}/audit/export", get(audit::export))
        .route("/console/{project}/survey", get(survey::show).post(survey::create))
        .route("/console/{project}/instances/{instance}", get(instance::show))
        .route("/console/{project}/instances/{instance}/scan", get(back).post(instance::scan))
        .route("/console/{project}/instances/{instance}/test", get(back).post(instance::test))
        .route("/console/{project}/instances/{instance}/pause", get(back).post(instance::pause))
        .route("/console/{project}/instances/{instance}/resume", get(back).post(instance::resume))
        .route("/console/{project}/instances/{instance}/remove", get(back).post(instance::remove))
        .route("/console/{project}/instances/{instance}/auto-scan", get(back).post(instance::set_auto_scan))
        .route("/console/{project}/instances/{instance}/hold", get(back).post(instance::set_hold))
        .route("/console/{project}/instances/{instance}/restore", get(back).post(instance::restore))
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
