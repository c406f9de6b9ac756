//! One observation of a real server.

use std::{str::FromStr, time::Instant};

use super::signals::Signals;
use crate::{
    link::{ACTIVE_REPLICA, Info, Link, LinkError, Pipeline},
    server::{DEFAULT_DATABASES, Expiry, ServerState, config, cycle_seconds, reading},
    stale::CycleSetting,
};

/// PINGs of one probe.
const PINGS: usize = 20;
/// The settings of the cycle.
const EFFORT: &str = "active-expire-effort";
const HZ: &str = "hz";
/// Major version of Redis builds between releases, whose fast cycle is repaired.
const UNRELEASED: &str = "255.";

/// Observes a server, in one round trip and those of the probe. `since`: the clock that is common to all observations.
pub fn observe(link: &mut Link, since: Instant) -> Result<(Signals, Info), LinkError> {
    let mut pipeline = Pipeline::default();
    ServerState::add_with_expiry(&mut pipeline);
    pipeline.add_settings(&["databases", EFFORT, HZ]);
    let mut replies = link.ask(&pipeline)?;
    let (state, info) = ServerState::take_with_expiry(&mut replies, link)?.unwrap_or_default();
    let [databases, effort, hz] = [replies.setting()?, replies.setting()?, replies.setting()?];
    let reading = reading(&info, since.elapsed().as_secs_f64(), state.pauses);
    let replicas = Replicas::read(&info);
    let signals = Signals {
        run_id: info.run_id().unwrap_or_default(),
        is_primary: matches!(info.text("role"), Some("master" | ACTIVE_REPLICA)),
        reading,
        databases: info.keyspace().iter().map(|line| (line.keys, line.expires, line.mean_ttl)).collect(),
        configured_databases: databases.and_then(number).unwrap_or(DEFAULT_DATABASES),
        configured: cycle_setting(effort, hz),
        hz: info.number("hz"),
        cycle_seconds: cycle_seconds(&info),
        time_caps: info.number("expired_time_cap_reached_count"),
        is_saving: state.saving,
        is_resyncing: replicas.syncing > 0,
        replicas: replicas.online,
        is_paused: state.expiry == Expiry::Paused || info.text("loading") == Some("1"),
        probe: Some(probe(link)?),
        is_capped: info.engine() == "redis" && info.engine_version().is_some_and(|one| one.starts_with(UNRELEASED)),
        ..Signals::default()
    };
    Ok((signals, info))
}

/// Returns the settings of the cycle as CONFIG GET returns them; `None`: it is refused, or the server has no such setting.
pub fn setting(link: &mut Link) -> Result<Option<CycleSetting>, LinkError> {
    let [effort, hz] = config(link, [EFFORT, HZ])?;
    Ok(cycle_setting(effort, hz))
}

fn cycle_setting(effort: Option<String>, hz: Option<String>) -> Option<CycleSetting> {
    Some(CycleSetting { effort: number(effort?)?, hz: number(hz?)? })
}

fn number<T: FromStr>(value: String) -> Option<T> {
    value.parse().ok()
}

/// Returns the 90th percentile of some round trips, seconds.
fn probe(link: &mut Link) -> Result<f64, LinkError> {
    let mut round_trips = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        round_trips.push(link.ping()?.as_secs_f64());
    }
    round_trips.sort_by(f64::total_cmp);
    Ok(round_trips[PINGS * 9 / 10])
}

/// Counts the keys that have expired in a server process, without those that samples have reclaimed: these count as expired there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expired {
    seen: u64,
    reclaimed: u64,
}

impl Expired {
    /// Returns what the server counts without the samples. A count that falls has begun anew (CONFIG RESETSTAT).
    pub fn without_samples(&mut self, counted: u64) -> u64 {
        if counted < self.seen {
            self.reclaimed = 0;
        }
        self.seen = counted;
        counted.saturating_sub(self.reclaimed)
    }

    /// Adds the keys that a sample has reclaimed since the server was asked last.
    pub fn sampled(&mut self, reclaimed: u64) {
        self.reclaimed += reclaimed;
    }
}

/// Replicas by what INFO says about each.
#[derive(Debug, Default, PartialEq, Eq)]
struct Replicas {
    online: usize,
    syncing: usize,
}

impl Replicas {
    fn read(info: &Info) -> Self {
        let lines = (0..info.number("connected_slaves").unwrap_or(0u32)).map_while(|n| info.text(&format!("slave{n}")));
        lines.fold(Self::default(), |all, line| match line.contains("state=online") {
            true => Self { online: all.online + 1, ..all },
            false => Self { syncing: all.syncing + 1, ..all },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_samples_reclaim_do_not_count_as_expired_also_after_the_statistics_were_reset() {
        let mut expired = Expired::default();
        assert_eq!(expired.without_samples(1_000_000), 1_000_000);
        expired.sampled(300_000);
        assert_eq!(expired.without_samples(1_300_100), 1_000_100);
        // CONFIG RESETSTAT: from here on the rate is that of the keys that expire.
        let rates: Vec<u64> = [500, 700, 900].map(|counted| expired.without_samples(counted)).into();
        assert_eq!(rates, [500, 700, 900]);
        expired.sampled(50);
        assert_eq!(expired.without_samples(1_000), 950);
    }

    #[test]
    fn replicas_are_told_apart_by_their_state() {
        let info = Info::read(
            "connected_slaves:2\r\nslave0:ip=127.0.0.1,port=1,state=online,offset=1,lag=0\r\nslave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n",
        );
        assert_eq!(Replicas::read(&info), Replicas { online: 1, syncing: 1 });
        assert_eq!(Replicas::read(&Info::read("role:master\r\n")), Replicas::default());
    }
}
