//! Polls: reading INFO of an instance's servers, about once a minute by one of the replicas, and on request.

use std::time::Duration;

use keysweep_engine::{Failure, FailureKind, Stop, inspect};

use super::{
    InstanceError, Instances,
    backlog::work_off,
    places::{NoPlace, Place, Places},
};
use crate::{
    model::{Instance, InstanceStats, PollCode, PollFailure, now},
    store::StoreError,
};

/// Time between two polls of an instance.
pub const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Most servers that one replica polls at a time. Each poll has a timeout, so that unreachable servers do not delay the others
/// for long.
pub const CONCURRENT_POLLS: usize = 16;
/// How long a poll may take.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(5);
/// Most polls on request that one process makes at a time.
const REQUESTED_POLLS: usize = 8;
/// Most of them of one project, so that there is always room for another.
const REQUESTED_OF_A_PROJECT: usize = 2;

/// Returns the places for polls on request.
pub(super) fn places() -> Places {
    Places::new(REQUESTED_POLLS, REQUESTED_OF_A_PROJECT)
}

/// Why a poll failed, or found a server that cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The server cannot be reached, refuses a command, or cannot be scanned.
    #[error("{0}")]
    Server(Failure),
    /// Too many polls on request are in progress; after [`POLL_TIMEOUT`] they have finished.
    #[error("{0} servers are being polled on request already; try again when one of these polls has finished")]
    Busy(&'static str),
    /// The connection settings cannot be read, or the result could not be stored.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

impl PollError {
    /// Returns what is stored of the error; `None`: it says nothing about the server.
    fn failure(&self) -> Option<PollFailure> {
        match self {
            Self::Server(failure) if failure.is_of_memory() => None,
            Self::Server(failure) => Some(failure.into()),
            Self::Instance(InstanceError::Store(_)) | Self::Busy(_) => None,
            Self::Instance(error) => Some(PollFailure::new(PollCode::Settings, error.to_string())),
        }
    }
}

impl Instances {
    /// Polls the instances that are due, at most [`CONCURRENT_POLLS`] at a time, until none is, and stores the results. Returns how
    /// many there were.
    pub async fn poll_due_instances(&self, stop: &Stop) -> Result<usize, StoreError> {
        let claim = |limit, last: Vec<String>| {
            let store = self.store.clone();
            async move { store.claim_polls(POLL_INTERVAL, limit, &last).await }
        };
        let poll = |instance: Instance| {
            let (instances, stop) = (self.clone(), stop.clone());
            async move {
                // A failed poll is stored with its instance; only the store's own failure ends the work.
                match instances.poll_unless_stopped(&instance, &stop, ()).await {
                    Err(PollError::Instance(InstanceError::Store(error))) => Err(error),
                    _ => Ok(()),
                }
            }
        };
        work_off(CONCURRENT_POLLS, claim, poll).await
    }

    /// Polls an instance's servers and stores the stats, or why there are none. A server that cannot be scanned is an error,
    /// too.
    pub async fn poll(&self, instance: &Instance) -> Result<InstanceStats, PollError> {
        self.poll_unless_stopped(instance, &Stop::new(), ()).await
    }

    /// Does the same for a request, of which one project has two at a time: each may hold megabytes of replies.
    pub async fn poll_on_request(&self, instance: &Instance) -> Result<InstanceStats, PollError> {
        let place = self.place(instance)?;
        self.poll_unless_stopped(instance, &Stop::new(), place).await
    }

    fn place(&self, instance: &Instance) -> Result<Place, PollError> {
        self.polls.take(&instance.project_id).map_err(|no_place| match no_place {
            NoPlace::OfTheProject => PollError::Busy("two of this project's"),
            NoPlace::OfTheProcess => PollError::Busy("eight"),
        })
    }

    /// Does the same unless it is stopped: an interrupted poll says nothing about the server.
    /// `place`: held until the servers have answered, also where the caller does not wait.
    async fn poll_unless_stopped(
        &self,
        instance: &Instance,
        stop: &Stop,
        place: impl Send + 'static,
    ) -> Result<InstanceStats, PollError> {
        let polled = self.inspect(instance, stop, place).await;
        let Err(error) = &polled else { return polled };
        if !stop.is_raised()
            && let Some(failure) = error.failure()
        {
            if instance.unreachable.is_none() {
                tracing::warn!(instance_id = instance.id, cause = failure.cause, "poll failed");
            }
            unless_moved(self.store.record_unreachable(instance, &failure).await).map_err(InstanceError::from)?;
        }
        polled
    }

    /// Connects to the servers of an instance as a poll on request does, and stores nothing. The instance need not be registered.
    pub async fn try_connection(&self, instance: &Instance) -> Result<InstanceStats, PollError> {
        let place = self.place(instance)?;
        match self.ask(instance, &Stop::new(), place).await? {
            (stats, None) => Ok(stats),
            (_, Some(failure)) => Err(PollError::Server(failure)),
        }
    }

    async fn inspect(
        &self,
        instance: &Instance,
        stop: &Stop,
        place: impl Send + 'static,
    ) -> Result<InstanceStats, PollError> {
        let (stats, failure) = self.ask(instance, stop, place).await?;
        let stats = match &instance.stats {
            Some(before) => stats.with_counters_of(before),
            None => stats,
        };
        // Stored for an unsupported server, too, so that the next task for it is refused at once.
        unless_moved(self.store.record_stats(instance, &stats).await).map_err(InstanceError::from)?;
        failure.map_or(Ok(stats), |failure| Err(PollError::Server(failure)))
    }

    /// Asks the servers of an instance for their stats. Returns also why they cannot be scanned, if so.
    async fn ask(
        &self,
        instance: &Instance,
        stop: &Stop,
        place: impl Send + 'static,
    ) -> Result<(InstanceStats, Option<Failure>), PollError> {
        let stop = stop.within(Some(POLL_TIMEOUT));
        let (target, dialer) = self.connect_to(instance)?;
        let inspected = tokio::task::spawn_blocking(move || {
            let inspected = inspect(&*dialer, &target, &stop);
            drop(place);
            inspected
        });
        let inspected = inspected.await;
        let inspected = inspected.unwrap_or_else(|panic| Err(Failure::new(FailureKind::Internal, panic.to_string())));
        match inspected {
            Ok(server) => {
                let stats = InstanceStats { server, seen_at: now() };
                let failure = stats.unsupported().map(|cause| Failure::new(FailureKind::Unsupported, cause));
                Ok((stats, failure))
            }
            Err(failure) if failure.kind == FailureKind::Unsupported => {
                Ok((InstanceStats::of_other_engine(now()), Some(failure)))
            }
            Err(failure) => Err(PollError::Server(failure)),
        }
    }
}

/// Ignores that an instance was removed or has another URL by now: the result is about another server.
pub(super) fn unless_moved(stored: Result<(), StoreError>) -> Result<(), StoreError> {
    match stored {
        Err(StoreError::Missing(_)) => Ok(()),
        stored => stored,
    }
}
