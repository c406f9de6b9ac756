//! The servers behind instances: what to sweep, and a look at what they say of themselves.

use std::time::Duration;

use keysweep_engine::{Failure, FailureKind, Inspection, Stop, Target, inspect};

use super::{Fleet, FleetError, now};
use crate::model::{Facts, Instance};

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Redis before 4.0 is refused, as DCS does.
const OLDEST: u32 = 4;
/// The engine of what is no Redis.
const OTHER_ENGINE: &str = "other";

/// Why nothing was seen of a server.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It does not let itself be looked at.
    #[error("{0}")]
    Server(Failure),
    /// It is not known how to reach it, or what was seen could not be kept.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl Fleet {
    /// What to sweep for this instance, with its password opened.
    pub fn target(&self, instance: &Instance) -> Result<Target, FleetError> {
        let mut target: Target =
            instance.url.parse().map_err(|source| FleetError::Target { instance: instance.id.clone(), source })?;
        target.credentials = self.credentials(instance)?;
        self.reach(instance)?.apply(&mut target).map_err(FleetError::Reach)?;
        Ok(target)
    }

    /// Asks the instance's server what it is and holds, and keeps the answer for those who may not wait for a server.
    pub async fn look(&self, instance: &Instance) -> Result<Facts, LookError> {
        self.look_while(instance, &Stop::new()).await
    }

    /// The same, unless it is stopped.
    pub(super) async fn look_while(&self, instance: &Instance, stop: &Stop) -> Result<Facts, LookError> {
        let stop = stop.within(Some(PATIENCE));
        let (target, dialer) = self.way_to(instance)?;
        let looked = tokio::task::spawn_blocking(move || inspect(&*dialer, &target, &stop));
        let looked = looked.await.unwrap_or_else(|died| Err(Failure::new(FailureKind::Internal, died.to_string())));
        let (facts, failure) = match looked {
            Ok(seen) => (facts(seen), None),
            // Kept, so that the next who asks for a scan hears at once that there can be none.
            Err(failure) if failure.kind == FailureKind::Unsupported => (facts_of_another(), Some(failure)),
            Err(failure) => return Err(LookError::Server(failure)),
        };
        self.store.record_facts(instance, &facts).await.map_err(FleetError::from)?;
        failure.map_or(Ok(facts), |failure| Err(LookError::Server(failure)))
    }
}

/// Whether an instance's server can be swept, as far as it has said what it is. One that was never seen may be.
pub fn can_be_swept(instance: &Instance) -> bool {
    let Some(facts) = &instance.facts else { return true };
    let major = facts.engine_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    facts.engine != OTHER_ENGINE && major.is_none_or(|major| major >= OLDEST)
}

/// What is kept of a server that answers, but not as a Redis does.
fn facts_of_another() -> Facts {
    Facts {
        engine: OTHER_ENGINE.to_owned(),
        engine_version: String::new(),
        mode: "standalone".to_owned(),
        keys: 0,
        keys_with_ttl: 0,
        dead_keys: None,
        used_memory: 0,
        max_memory: 0,
        hosts: Vec::new(),
        primaries: Vec::new(),
        seen_at: now(),
    }
}

/// The host of `host:port` or `[host]:port`.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn facts(seen: Inspection) -> Facts {
    Facts {
        engine: seen.engine,
        engine_version: seen.engine_version,
        mode: if seen.cluster { "cluster" } else { "standalone" }.to_owned(),
        keys: seen.keys,
        keys_with_ttl: seen.keys_with_ttl,
        dead_keys: seen.dead_keys,
        used_memory: seen.used_memory,
        max_memory: seen.max_memory,
        hosts: seen.primaries.iter().map(|address| host_of(address).to_owned()).collect(),
        primaries: seen.primaries,
        seen_at: now(),
    }
}
