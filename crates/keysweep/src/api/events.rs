//! A task as a stream of server-sent events. All events come from the store, so that a stream works whichever process runs
//! the scan, and a client that reconnects gets the current state at once.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Request, State},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    ApiState,
    error::{ApiError, OnStream},
    streams::StreamPermit,
    task::TaskDetailView,
};
use crate::{
    auth::{Authenticator, Caller},
    model::Role,
    task::Tasks,
};

/// How often the store is read. Workers write once a second.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often the credentials are verified again. A stream does not outlive them by more.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a client should wait if there are too many streams.
const STREAM_DELAY: Duration = Duration::from_secs(10);
/// Longest duration of a stream. Browsers reconnect by themselves, which verifies their credentials again.
const MAX_DURATION: Duration = Duration::from_secs(15 * 60);

struct TaskStream {
    tasks: Tasks,
    auth: Authenticator,
    caller: Caller,
    checked_at: Instant,
    _permit: StreamPermit,
    project_id: String,
    task_id: String,
    /// Id of the last event that the client received.
    last_id: Option<String>,
    has_finished: bool,
    deadline: Instant,
    shutdown: watch::Receiver<bool>,
}

/// Follow a task
///
/// Events are named `task` and hold the object that the task's GET returns. The first is sent at once, others after each
/// change; the stream ends after the event of a finished task, and when the credentials do. Reconnect with `Last-Event-ID` to get new events only.
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/tasks/{task_id}/events", tag = "tasks", operation_id = "follow_task",
    params(("project_id" = String, Path, description = "Project"), ("task_id" = String, Path, description = "Task")),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        OnStream
    )
)]
pub(super) async fn follow(State(state): State<ApiState>, request: Request) -> Result<impl IntoResponse, ApiError> {
    let last_id = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let authorized = state.authorize(request, Role::Reader).await?;
    let (project_id, task_id) = (authorized.project_id, authorized.subject_id);
    state.tasks.detail(&project_id, &task_id).await?.ok_or(ApiError::NotFound("task"))?;
    let permit = state.streams.admit(authorized.caller.name.as_deref()).ok_or_else(|| {
        ApiError::TooMany("too many event streams are open; close one, or try again".into(), STREAM_DELAY)
    })?;
    let source = TaskStream {
        tasks: state.tasks,
        auth: state.auth,
        caller: authorized.caller,
        checked_at: Instant::now(),
        _permit: permit,
        project_id,
        task_id,
        last_id,
        has_finished: false,
        deadline: Instant::now() + MAX_DURATION,
        shutdown: state.shutdown,
    };
    let events = stream::unfold(source, |mut source| async move {
        let event = source.next().await?;
        Some((Ok::<_, Infallible>(event), source))
    });
    // nginx would otherwise hold events back until its buffer is full.
    let unbuffered = [("x-accel-buffering", "no")];
    Ok((unbuffered, Sse::new(events).keep_alive(KeepAlive::default())))
}

impl TaskStream {
    /// Waits for the next event; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        while !self.has_finished && !*self.shutdown.borrow() && Instant::now() < self.deadline {
            if self.checked_at.elapsed() >= CHECK_INTERVAL {
                // An outage of the store is no reason to end the stream either.
                if let Ok(false) = self.auth.still_allows(&self.caller, &self.project_id, Role::Reader).await {
                    return None;
                }
                self.checked_at = Instant::now();
            }
            // An outage of the store must not end the stream: the next poll may succeed.
            match self.tasks.detail(&self.project_id, &self.task_id).await {
                Ok(None) => return None,
                Ok(Some(detail)) => {
                    self.has_finished = !detail.task.status.is_active();
                    let data = serde_json::to_string(&TaskDetailView::from(detail)).ok()?;
                    let id = hex::encode(&Sha256::digest(&data)[..8]);
                    if self.last_id.as_ref() != Some(&id) {
                        self.last_id = Some(id.clone());
                        return Some(Event::default().event("task").id(id).data(data));
                    }
                }
                Err(error) => tracing::debug!(%error, "a task stream could not read its task"),
            }
            tokio::select! {
                () = sleep(POLL_INTERVAL) => {}
                _ = self.shutdown.wait_for(|down| *down) => {}
            }
        }
        None
    }
}
