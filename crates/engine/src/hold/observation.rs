//! One observation of a real server.

use std::time::Instant;

use super::signals::Signals;
use crate::{
    link::{ACTIVE_REPLICA, Info, Link, LinkError},
    server::{DEFAULT_DATABASES, Expiry, ServerState, config, cycle_seconds, reading},
    stale::CycleSetting,
};

/// PINGs of one probe.
const PINGS: usize = 20;
/// Major version of Redis builds between releases, whose fast cycle is repaired.
const UNRELEASED: &str = "255.";

/// Observes a server. `since`: the clock that is common to all observations.
pub fn observe(link: &mut Link, since: Instant) -> Result<(Signals, Info), LinkError> {
    let state = ServerState::sample(link)?;
    let info = link.info(&["server", "memory", "stats", "persistence", "replication", "cluster", "keyspace"])?;
    let info = info.unwrap_or_default();
    let reading = reading(&info, since.elapsed().as_secs_f64(), state.pauses);
    let replicas = Replicas::read(&info);
    let signals = Signals {
        run_id: info.run_id().unwrap_or_default(),
        is_primary: matches!(info.text("role"), Some("master" | ACTIVE_REPLICA)),
        reading,
        databases: info.keyspace().iter().map(|line| (line.keys, line.expires, line.mean_ttl)).collect(),
        configured_databases: number(link, "databases")?.unwrap_or(DEFAULT_DATABASES),
        configured: setting(link)?,
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
    let (effort, hz) = (number(link, "active-expire-effort")?, number(link, "hz")?);
    Ok(effort.zip(hz).map(|(effort, hz)| CycleSetting { effort, hz }))
}

fn number<T: std::str::FromStr>(link: &mut Link, directive: &str) -> Result<Option<T>, LinkError> {
    Ok(config(link, directive)?.and_then(|value| value.parse().ok()))
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
