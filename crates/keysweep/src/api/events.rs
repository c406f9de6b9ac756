//! A task as a stream of server-sent events. Everything comes from the store, so that it does not matter which process
//! sweeps, and whoever connects again hears at once how it stands.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Request, State},
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Door,
    error::{ApiError, OnSubject},
    task::TaskView,
};
use crate::{model::Role, task::Tasks};

/// How often the store is asked. Workers write once a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A stream ends after this time; browsers connect again by themselves, and show their credentials again.
const LONGEST: Duration = Duration::from_secs(15 * 60);

struct Watched {
    tasks: Tasks,
    project_id: String,
    task_id: String,
    /// Of the last event that the client has seen.
    seen: Option<String>,
    has_ended: bool,
    deadline: Instant,
    shutdown: watch::Receiver<bool>,
}

/// Follow a task
///
/// Events are named `task` and hold the object that the task's GET answers with; the first comes at once, others when
/// something has changed, and the stream ends after the one that tells the end. Connect again with `Last-Event-ID` to
/// hear only what is new.
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/tasks/{task_id}/events", tag = "tasks", operation_id = "follow_task",
    params(("project_id" = String, Path, description = "Project"), ("task_id" = String, Path, description = "Task")),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        OnSubject
    )
)]
pub(super) async fn follow(
    State(door): State<Door>,
    request: Request,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let admitted = door.admit(request, Role::Reader).await?;
    let (project_id, task_id) = (admitted.project_id, admitted.subject_id);
    door.tasks.detail(&project_id, &task_id).await?.ok_or(ApiError::NotFound("task"))?;
    let watched = Watched {
        tasks: door.tasks,
        project_id,
        task_id,
        seen,
        has_ended: false,
        deadline: Instant::now() + LONGEST,
        shutdown: door.shutdown,
    };
    let events = stream::unfold(watched, |mut watched| async move {
        let event = watched.next().await?;
        Some((Ok(event), watched))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

impl Watched {
    /// The next event; `None`: there will be no more on this stream.
    async fn next(&mut self) -> Option<Event> {
        while !self.has_ended && !*self.shutdown.borrow() && Instant::now() < self.deadline {
            // A store that is away for a moment is no reason to hang up.
            match self.tasks.detail(&self.project_id, &self.task_id).await {
                Ok(None) => return None,
                Ok(Some(detail)) => {
                    self.has_ended = !detail.task.status.is_active();
                    let data = serde_json::to_string(&TaskView::from(detail)).ok()?;
                    let id = hex::encode(&Sha256::digest(&data)[..8]);
                    if self.seen.as_ref() != Some(&id) {
                        self.seen = Some(id.clone());
                        return Some(Event::default().event("task").id(id).data(data));
                    }
                }
                Err(error) => tracing::debug!(%error, "a task cannot be followed now"),
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                _ = self.shutdown.wait_for(|down| *down) => {}
            }
        }
        None
    }
}
