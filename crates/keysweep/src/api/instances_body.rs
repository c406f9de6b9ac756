//! The list of a project's instances, written part by part while the client reads it: a list has no bound, and a client that reads
//! nothing holds one part of it.

use std::{
    collections::HashMap,
    io, mem,
    time::{Duration, Instant},
};

use axum::body::Body;
use futures_util::{StreamExt, stream};

use super::{ApiState, error::ApiError, instance::InstanceView};
use crate::{instances::PART, model::Label};

/// How long a list that has begun waits for the memory or the database that its next part needs, and between two attempts.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(10);
const MEMORY_INTERVAL: Duration = Duration::from_millis(200);

/// What is left to be written.
pub(super) struct InstancesBody {
    state: ApiState,
    project_id: String,
    labels: Vec<Label>,
    has_activity: bool,
    /// Name of the last instance that was read; empty: none was.
    after: String,
    /// What comes before the next instance.
    separator: &'static str,
    is_complete: bool,
}

impl InstancesBody {
    /// Returns the list of the instances of a project that have all of these labels. `has_activity`: whether each shows what is going on.
    pub(super) fn new(state: ApiState, project_id: String, labels: Vec<Label>, has_activity: bool) -> Self {
        Self {
            state,
            project_id,
            labels,
            has_activity,
            after: String::new(),
            separator: "{\"instances\":[",
            is_complete: false,
        }
    }

    /// Reads the first part, so that an error is answered as such, and returns the body, which reads the others.
    pub(super) async fn read(mut self) -> Result<Body, ApiError> {
        let first = self.next().await?;
        if self.is_complete {
            return Ok(first.into());
        }
        let others = stream::unfold(self, |mut body| async move {
            if body.is_complete {
                return None;
            }
            let part = body.next_in_time().await;
            // The client sees by the transfer that the rest is missing.
            body.is_complete |= part.is_err();
            Some((part.map_err(|_| io::Error::other("the list of instances was cut off")), body))
        });
        Ok(Body::from_stream(stream::iter([Ok(first)]).chain(others)))
    }

    /// Waits a while for memory: a list that has begun cannot be refused any more.
    async fn next_in_time(&mut self) -> Result<String, ApiError> {
        let deadline = Instant::now() + MEMORY_TIMEOUT;
        loop {
            match self.next().await {
                Err(ApiError::Unavailable) if Instant::now() < deadline => tokio::time::sleep(MEMORY_INTERVAL).await,
                part => return part,
            }
        }
    }

    async fn next(&mut self) -> Result<String, ApiError> {
        let mut instances = self.state.instances.list_after(&self.project_id, &self.after).await?;
        let is_last = instances.len() < PART as usize;
        let last = instances.last().map(|last| last.name.clone());
        instances.retain(|instance| instance.has_labels(&self.labels));
        let mut activity = HashMap::new();
        if self.has_activity {
            activity = self.state.activity(&instances).await?;
        }
        // The next attempt after an error reads the same part.
        self.is_complete = is_last;
        self.after = last.unwrap_or_default();
        let mut text = String::new();
        for instance in instances.iter() {
            let view = InstanceView { activity: activity.remove(&instance.id), ..InstanceView::from(instance) };
            text.push_str(mem::replace(&mut self.separator, ","));
            text.push_str(&serde_json::to_string(&view).map_err(|_| ApiError::Internal)?);
        }
        if self.is_complete {
            if self.separator != "," {
                text.push_str(self.separator);
            }
            text.push_str("]}");
        }
        Ok(text)
    }
}
