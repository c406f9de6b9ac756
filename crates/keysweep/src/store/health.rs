//! Whether the database takes writes: on a full disk, or while another process holds the file, reads alone do not tell.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use super::StoreError;

/// How long the error of a trial answers further probes: each trial is a write, and probes come from anonymous clients.
const KEPT: Duration = Duration::from_secs(1);

/// Set by a write that failed and was not its caller's fault, until a trial goes through.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteHealth {
    in_doubt: Arc<AtomicBool>,
    /// When the last trial failed, and why; `None`: it did not. Locked during a trial, so that there is one at a time.
    failed: Arc<Mutex<Option<(Instant, StoreError)>>>,
}

impl WriteHealth {
    /// Notes that a write failed.
    pub fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    /// Returns whether a write has failed since the last trial that went through.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    /// Runs `trial` if a write has failed, and forgets that when the trial succeeds. Returns the trial's error, or that of another
    /// one that failed within the last second.
    pub async fn settle(&self, trial: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        let mut failed = self.failed.lock().await;
        if !self.is_in_doubt() {
            return Ok(());
        }
        if let Some((at, error)) = &*failed
            && at.elapsed() < KEPT
        {
            return Err(error.clone());
        }
        let tried = trial.await;
        match &tried {
            Ok(()) => {
                self.in_doubt.store(false, Ordering::Relaxed);
                *failed = None;
            }
            Err(error) => *failed = Some((Instant::now(), error.clone())),
        }
        tried
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test]
    async fn probes_share_one_trial_a_second() {
        let (health, trials) = (WriteHealth::default(), AtomicU32::new(0));
        let probe = async |answer: Result<(), StoreError>| {
            let trial = async {
                trials.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                answer
            };
            health.settle(trial).await
        };
        let full = || Err(StoreError::Unavailable("disk full".into()));
        probe(full()).await.expect("without a doubt there is no trial");
        health.doubt();
        let (one, other) = tokio::join!(probe(full()), probe(full()));
        for error in [one.expect_err("full"), other.expect_err("full"), probe(Ok(())).await.expect_err("kept")] {
            assert!(error.to_string().contains("disk full"), "{error}");
        }
        assert_eq!(trials.load(Ordering::Relaxed), 1);
        // A second later.
        *health.failed.lock().await = Some((Instant::now() - KEPT, StoreError::Busy));
        probe(Ok(())).await.expect("there is room");
        probe(full()).await.expect("the doubt is over");
        assert_eq!(trials.load(Ordering::Relaxed), 2);
    }
}
