//! The servers behind instances: what to sweep, and a look at what they say of themselves.

use std::time::Duration;

use keysweep_engine::{Failure, FailureKind, Inspection, Stop, Target, inspect};

use super::{Fleet, FleetError, now};
use crate::{
    model::{Facts, Instance},
    store::StoreError,
};

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Redis before 4.0 is refused, as DCS does.
const OLDEST: u32 = 4;
/// The engine of what is no Redis.
const OTHER_ENGINE: &str = "other";

/// Why nothing was seen of a server, or nothing that can be swept.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It does not let itself be looked at, or cannot be swept.
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

    /// Asks the instance's server what it is and holds, and keeps the answer, or that there was none and why, for those who
    /// may not wait for a server. An error as well where the server cannot be swept.
    pub async fn look(&self, instance: &Instance) -> Result<Facts, LookError> {
        self.look_while(instance, &Stop::new()).await
    }

    /// The same, unless it is stopped: what was interrupted says nothing of the server.
    pub(super) async fn look_while(&self, instance: &Instance, stop: &Stop) -> Result<Facts, LookError> {
        let looked = self.ask(instance, stop).await;
        let Err(error) = &looked else { return looked };
        if !stop.is_raised() && !matches!(error, LookError::Fleet(FleetError::Store(_))) {
            let cause = error.to_string();
            if instance.unreachable.is_none() {
                tracing::warn!(instance_id = instance.id, cause, "an instance's server cannot be looked at");
            }
            unless_moved(self.store.record_unreachable(instance, &cause).await)?;
        }
        looked
    }

    async fn ask(&self, instance: &Instance, stop: &Stop) -> Result<Facts, LookError> {
        let stop = stop.within(Some(PATIENCE));
        let (target, dialer) = self.way_to(instance)?;
        let looked = tokio::task::spawn_blocking(move || inspect(&*dialer, &target, &stop));
        let looked = looked.await.unwrap_or_else(|died| Err(Failure::new(FailureKind::Internal, died.to_string())));
        let (facts, failure) = match looked {
            Ok(seen) => {
                let facts = facts(seen);
                let failure = (!is_supported(&facts)).then(|| too_old(&facts));
                (facts, failure)
            }
            Err(failure) if failure.kind == FailureKind::Unsupported => (facts_of_another(), Some(failure)),
            Err(failure) => return Err(LookError::Server(failure)),
        };
        // Kept of one that cannot be swept as well, so that the next who asks for a scan hears at once that there can be none.
        unless_moved(self.store.record_facts(instance, &facts).await)?;
        failure.map_or(Ok(facts), |failure| Err(LookError::Server(failure)))
    }
}

/// What was seen of an instance that was removed, or has another URL by now, is of no use to anybody.
fn unless_moved(kept: Result<(), StoreError>) -> Result<(), FleetError> {
    match kept {
        Err(StoreError::Missing(_)) => Ok(()),
        kept => Ok(kept?),
    }
}

/// Whether an instance's server can be swept, as far as it has said what it is. One that was never seen may be.
pub fn can_be_swept(instance: &Instance) -> bool {
    instance.facts.as_ref().is_none_or(is_supported)
}

fn is_supported(facts: &Facts) -> bool {
    let major = facts.engine_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    facts.engine != OTHER_ENGINE && major.is_none_or(|major| major >= OLDEST)
}

fn too_old(facts: &Facts) -> Failure {
    let Facts { engine, engine_version, .. } = facts;
    let sentence = format!("{engine} {engine_version} cannot be swept; {OLDEST}.0 is the oldest that can");
    Failure::new(FailureKind::Unsupported, sentence)
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

fn facts(seen: Inspection) -> Facts {
    Facts {
        engine: seen.engine,
        engine_version: seen.engine_version,
        mode: if seen.cluster { "cluster" } else { "standalone" }.to_owned(),
        keys: seen.keys,
        keys_with_ttl: seen.keys_with_ttl,
        dead_keys: seen.stale_keys,
        used_memory: seen.used_memory,
        max_memory: seen.max_memory,
        hosts: seen.primaries.iter().map(|address| address.host.clone()).collect(),
        primaries: seen.primaries.iter().map(ToString::to_string).collect(),
        seen_at: now(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::the_last_that_is_too_old("redis", "3.2.13", false)]
    #[case::the_oldest("redis", "4.0.0", true)]
    #[case::with_two_digits("redis", "10.0.0", true)]
    #[case::one_that_does_not_tell("redis", "", true)]
    #[case::one_with_a_name_for_a_version("valkey", "unstable", true)]
    #[case::no_redis("other", "", false)]
    fn redis_4_and_what_does_not_tell_can_be_swept(#[case] engine: &str, #[case] version: &str, #[case] can: bool) {
        let facts = Facts { engine: engine.into(), engine_version: version.into(), ..facts_of_another() };
        let url = "redis://cache.example".to_owned();
        let unseen = Instance::new("i".into(), "p".into(), "cache".into(), url, now());
        assert!(can_be_swept(&unseen), "one that was never seen may be");
        assert_eq!(can_be_swept(&Instance { facts: Some(facts), ..unseen }), can);
    }
}
