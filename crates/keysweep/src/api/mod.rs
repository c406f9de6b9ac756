//! keysweep's own REST API, for what DCS has no words for.

mod error;
mod task;

use axum::{Router, routing::get};

use crate::{auth::Authenticator, task::Tasks};

/// What the operations need.
#[derive(Clone)]
pub struct Door {
    /// Tasks.
    pub tasks: Tasks,
    /// Who calls.
    pub auth: Authenticator,
}

/// The answer to a path that this door does not have.
pub fn no_url() -> impl axum::response::IntoResponse {
    error::ApiError::NoUrl
}

/// The answer to a method that a path does not have.
pub fn no_method() -> impl axum::response::IntoResponse {
    error::ApiError::NoMethod
}

/// The routes of this door.
pub fn router(door: Door) -> Router {
    Router::new().route("/api/v1/projects/{project_id}/tasks/{task_id}", get(task::show)).with_state(door)
}
