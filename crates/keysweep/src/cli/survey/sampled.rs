//! The servers that a survey has sampled. Two URLs may name the same one, and a sample takes time of a server and reclaims keys.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use keysweep_engine::{MIN_SAMPLE_INTERVAL, SampleLimit, ServerProcess};

/// The servers that the targets of one survey have sampled, or are about to, with how long the next sample has to wait.
#[derive(Debug, Default)]
pub struct SampledServers(Mutex<HashMap<ServerProcess, Duration>>);

impl SampledServers {
    /// Reserves a sample of a server. Returns how long it has to wait where another target has sampled it.
    fn reserve(&self, server: &ServerProcess) -> Option<Duration> {
        let mut sampled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = sampled.get(server).copied();
        sampled.entry(server.clone()).or_insert(MIN_SAMPLE_INTERVAL);
        wait
    }

    /// Ends a reservation. `wait`: until the next sample; zero: the server was not sampled.
    fn release(&self, server: &ServerProcess, wait: Duration) {
        let mut sampled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match wait.is_zero() {
            true => sampled.remove(server),
            false => sampled.insert(server.clone(), wait),
        };
    }
}

/// The samples of one target of a survey.
#[derive(Debug)]
pub struct Sampled {
    servers: Arc<SampledServers>,
    is_refused: AtomicBool,
}

impl Sampled {
    /// Returns the samples of another target.
    pub fn new(servers: Arc<SampledServers>) -> Self {
        Self { servers, is_refused: AtomicBool::new(false) }
    }

    /// Returns whether a server of the target was not sampled, since another target has sampled it.
    pub fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }
}

impl SampleLimit for Sampled {
    fn reserve(&self, server: &ServerProcess) -> Result<Option<Duration>, String> {
        let wait = self.servers.reserve(server);
        self.is_refused.fetch_or(wait.is_some(), Ordering::Relaxed);
        Ok(wait)
    }

    fn release(&self, server: &ServerProcess, wait: Duration) {
        self.servers.release(server, wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_sampled_for_one_target_only_unless_nothing_was_sampled() {
        let servers = Arc::new(SampledServers::default());
        let [first, second] = [(); 2].map(|()| Sampled::new(servers.clone()));
        let server = ServerProcess { address: "127.0.0.1:1".into(), run_id: "a".into() };
        assert_eq!(first.reserve(&server), Ok(None));
        first.release(&server, Duration::ZERO);
        assert_eq!(second.reserve(&server), Ok(None), "it was too small for a sample");
        assert_eq!(first.reserve(&server), Ok(Some(MIN_SAMPLE_INTERVAL)), "a sample is in progress");
        second.release(&server, 2 * MIN_SAMPLE_INTERVAL);
        assert_eq!(first.reserve(&server), Ok(Some(2 * MIN_SAMPLE_INTERVAL)));
        assert!(first.is_refused() && !second.is_refused());
    }
}
