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
    fn replicas_are_told_apart_by_their_state() {
        let info = Info::read(
            "connected_slaves:2\r\nslave0:ip=127.0.0.1,port=1,state=online,offset=1,lag=0\r\nslave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n",
        );
        assert_eq!(Replicas::read(&info), Replicas { online: 1, syncing: 1 });
        assert_eq!(Replicas::read(&Info::read("role:master\r\n")), Replicas::default());
    }
}
