//! The server's own expiry cycle: whether it walks the keys in the order of SCAN, and when a scan disturbs it.

use std::time::{Duration, Instant};

use super::{
    check::{Check, Verdict},
    forecast::Forecast,
    keyspace::has_per_slot_tables,
};
use crate::{
    link::{Info, Keyspace, Link, LinkError},
    record::{Order, Scale, Speeds},
    speed::QUIET,
    stale::{CycleSetting, Reading, expiry_rate},
    stop::Stop,
};

/// Databases of a server that does not say how many it has: the servers' own default.
pub(crate) const DEFAULT_DATABASES: u32 = 16;

/// Cycles over which the keys that expire are counted: a cycle now and then finds nothing.
const CYCLES: f64 = 3.0;
/// A forward scan that takes longer than this share of the mean TTL leaves a wake that the cycle stays in.
const SLOW: f64 = 0.4;
/// A scan that takes no longer is over before anything piles up, whatever the TTLs.
const BRIEF: Duration = Duration::from_secs(1);

/// Order in which the expiry cycle visits the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CycleOrder {
    /// Another order than SCAN's, as in Redis before 7.2: no scan disturbs it.
    Linear,
    /// The order of SCAN, as in Redis since 7.2 and in Valkey.
    LikeScan,
    /// Not known: the server is another one that speaks the protocol, or refuses INFO.
    Unknown,
}

impl CycleOrder {
    /// Returns the order by what INFO (section server) reports.
    pub fn of(info: &Info) -> Self {
        match info.is_redis_or_valkey() {
            true if info.is_since((0, 0), Some((7, 2))) => Self::LikeScan,
            true => Self::Linear,
            false => Self::Unknown,
        }
    }
}

/// Returns the speeds of a scan with this limit, by what INFO (sections server and stats) reports: the keys that expire are those in
/// the mean since the server's start.
pub(crate) fn speeds(info: &Info, keys_per_second: Option<u64>) -> Speeds {
    let expired = info.number::<f64>("expired_keys").zip(info.number::<f64>("uptime_in_seconds"));
    let expired = expired.map(|(keys, seconds)| keys / seconds.max(1.0));
    // CONFIG may be refused: the default effort.
    let cycle = CycleSetting { hz: hz(info), ..CycleSetting::default() };
    Speeds { scanned: keys_per_second, expired, cycle, ..Speeds::default() }
}

fn hz(info: &Info) -> u32 {
    info.number("hz").unwrap_or(CycleSetting::default().hz).max(1)
}

/// Counts for some cycles how many keys expire a second, while no slice runs; `None`: the server does not say. `info`: what it has
/// reported before (section server).
pub(crate) fn measure_expiry(link: &mut Link, info: &Info, stop: &Stop) -> Result<Option<f64>, LinkError> {
    let started = Instant::now();
    let mut read = || {
        let info = link.info(&["stats"])?;
        Ok(info.and_then(|info| reading(&info, started.elapsed().as_secs_f64(), 0)))
    };
    let before = read()?;
    stop.wait_until(Instant::now() + Duration::from_secs_f64(CYCLES / f64::from(hz(info))));
    let after = read()?;
    Ok(before.zip(after).and_then(|(before, after)| expiry_rate(&before, &after)))
}

/// Returns what INFO (sections server and stats) reports about expired keys; `None`: not how many. `at`: seconds of the clock that
/// is common to the readings. `pauses`: as in [`super::ServerState`].
pub(crate) fn reading(info: &Info, at: f64, pauses: u64) -> Option<Reading> {
    let fields = |name: &str| info.number::<u64>(name).unwrap_or(0);
    Some(Reading {
        run_id: info.run_id().unwrap_or_default(),
        at,
        expired: info.number("expired_keys")?,
        // The two engines have different names for it.
        expired_fields: fields("expired_fields").saturating_add(fields("expired_subkeys")),
        pauses,
    })
}

/// Returns the seconds of the main thread that the cycle has taken since the start, by INFO (section stats).
pub(crate) fn cycle_seconds(info: &Info) -> Option<f64> {
    info.number::<f64>("expire_cycle_cpu_milliseconds").map(|millis| millis / 1e3)
}

/// Returns the warning about a forward scan of `keys` keys in whose wake the cycle may stay; `None`: the scan is fast enough, or
/// the mean TTL is unknown.
pub(crate) fn wake(keys: u64, taken: Duration, mean_ttl: Option<Duration>) -> Option<String> {
    let is_slow = taken > BRIEF && taken > mean_ttl?.mul_f64(SLOW);
    is_slow.then(|| {
        let (taken, ttl) = (taken.as_secs_f64(), mean_ttl.unwrap_or_default().as_secs_f64());
        format!(
            "a forward scan of {keys} keys at {:.0} keys a second takes {taken:.1} s, and the mean TTL that is left is {ttl:.1} s: the server's own expiry cycle may stay in the wake of the scan, where it finds nothing, while stale keys pile up ahead of it",
            keys as f64 / taken
        )
    })
}

/// Returns the warning about a scan of `keys` keys at `rate` keys a second in whose chunks the cycle may stay; `None`: they are small
/// enough.
pub(crate) fn wake_in_chunks(keys: u64, rate: f64, order: &Order, speeds: Speeds) -> Option<String> {
    let needed = order.slowest(speeds);
    (needed > rate).then(|| {
        format!(
            "{rate:.0} keys a second are too slow for {keys} keys while {:.0} a second expire: from {needed:.0} on the scan leaves no wake in which the server's own expiry cycle finds nothing",
            speeds.expired.unwrap_or_default()
        )
    })
}

/// What to do about such a warning.
pub(crate) const FASTER: &str = "scan faster: a higher --keys-per-second or none, or a faster pace";

/// Checks whether a scan disturbs the cycle, and says in which order it will run. `only`: the database that is scanned; `None`: all.
pub(super) fn order(info: &Info, forecast: &Forecast, only: Option<u32>) -> Check {
    let name = "order";
    let cycle = CycleOrder::of(info);
    let is_distant = forecast.cursors > 1;
    let speeds = Speeds { is_distant, ..speeds(info, forecast.limits.keys_per_second) };
    let order = |keys: u64| match is_distant || cycle == CycleOrder::LikeScan {
        true => Order::backward(keys, &Scale::Table, speeds),
        false => Order::Forward,
    };
    let databases = info.keyspace().into_iter().filter(|line| only.is_none_or(|only| only == line.database));
    let databases: Vec<(Keyspace, Order)> = databases.map(|line| (line, order(line.keys))).collect();
    let found = databases.iter().filter(|_| cycle != CycleOrder::Linear).find_map(|(line, order)| {
        let rate = forecast.keys_per_second;
        if order.is_forward() {
            return wake(line.keys, Duration::try_from_secs_f64(line.keys as f64 / rate).ok()?, line.mean_ttl);
        }
        wake_in_chunks(line.keys, rate, order, speeds)
    });
    if let Some(finding) = found {
        let beside = match forecast.clients > QUIET {
            true => format!("; clients use {:.0} % of the main thread", forecast.clients * 100.0),
            false => String::new(),
        };
        return Check::with_remedy(Verdict::Warning, name, format!("{finding}{beside}"), FASTER);
    }
    let divided = databases.iter().filter(|(_, order)| !order.is_forward()).count();
    let chunks = if has_per_slot_tables(info) { "blocks of slots" } else { "chunks" };
    let finding = match (cycle, divided > 0) {
        (CycleOrder::LikeScan, true) => {
            format!("backward in {chunks}, against the order of the server's own expiry cycle")
        }
        (CycleOrder::LikeScan, false) => {
            format!("forward; a scan of fewer than {} keys is over before its wake matters", Order::MIN_KEYS)
        }
        (CycleOrder::Linear, true) => format!(
            "backward in {chunks}, which {} cursors share over this path; this version's own expiry cycle walks in another order",
            forecast.cursors
        ),
        (CycleOrder::Linear, false) => "forward; this version's own expiry cycle walks in another order".into(),
        (CycleOrder::Unknown, _) => "forward; it is unknown how this server's own expiry cycle walks".into(),
    };
    let whole = match (1..databases.len()).contains(&divided) {
        true => format!("; databases of fewer than {} keys forward", Order::MIN_KEYS),
        false => String::new(),
    };
    Check::ok(name, format!("{finding}{whole}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::{Limits, Preset},
        server::{ScanStatistics, ServerState},
    };

    /// Returns the check of a scan over a path with this round trip.
    fn check_over(info: &str, limits: Limits, round_trip: Duration) -> Check {
        let info = Info::read(info);
        let scan = Some(ScanStatistics { calls: 0, scan: Duration::ZERO, commands: 0, cpu: None });
        let state = ServerState { scan, ..ServerState::default() };
        order(&info, &Forecast::new(limits, &info, &state, round_trip, None), None)
    }

    fn check(info: &str, keys_per_second: Option<u64>) -> Check {
        check_over(info, Limits { keys_per_second, ..Preset::Normal.limits() }, Duration::from_micros(60))
    }

    #[test]
    fn a_slow_scan_that_has_to_run_forward_causes_a_warning_with_its_numbers() {
        let dragonfly =
            "redis_version:7.4.0\r\ndragonfly_version:df-1.31.0\r\ndb0:keys=600000,expires=600000,avg_ttl=20000\r\n";
        let found = check(dragonfly, Some(5_000));
        assert_eq!(found.verdict, Verdict::Warning);
        for part in ["600000 keys", "5000 keys a second", "120.0 s", "20.0 s"] {
            assert!(found.finding.contains(part), "{part:?} is not in {:?}", found.finding);
        }
        assert_eq!(check(dragonfly, Some(100_000)).verdict, Verdict::Ok, "6 s of a mean TTL of 20 s");
        assert_eq!(check(dragonfly, None).verdict, Verdict::Ok, "its speed is not limited");
        let unsampled = dragonfly.replace("avg_ttl=20000", "avg_ttl=0");
        assert_eq!(check(&unsampled, Some(5_000)).verdict, Verdict::Ok, "the mean TTL is unknown");
    }

    #[test]
    fn a_slow_scan_in_chunks_causes_a_warning_only_where_chunks_cannot_be_small_enough() {
        let server = |version: &str| {
            format!(
                "{version}\r\nexpired_keys:1000000\r\nuptime_in_seconds:100\r\ndb0:keys=600000,expires=600000,avg_ttl=20000\r\n"
            )
        };
        for version in ["redis_version:7.2.0", "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2"] {
            assert_eq!(check(&server(version), Some(100)).verdict, Verdict::Ok, "{version}");
            let found = check(&server(version), Some(1));
            assert!(found.verdict == Verdict::Warning && found.finding.contains("10000 a second expire"), "{found:?}");
        }
        assert_eq!(check(&server("redis_version:7.0.15"), Some(1)).verdict, Verdict::Ok, "an order of its own");
    }

    #[test]
    fn a_small_database_that_is_scanned_very_slowly_causes_a_warning() {
        let small = "redis_version:8.2.3\r\ndb0:keys=10000,expires=10000,avg_ttl=20000\r\n";
        assert_eq!(check(small, Some(100)).verdict, Verdict::Warning);
        assert_eq!(check(small, Some(5_000)).verdict, Verdict::Ok);
    }

    #[test]
    fn a_slow_pace_beside_busy_clients_or_over_a_long_path_causes_the_same_warning() {
        let other = "redis_version:7.4.0\r\nfoo_version:1.0\r\ndb0:keys=600000,expires=600000,avg_ttl=60000\r\n";
        let busy = format!(
            "{other}instantaneous_eventloop_cycles_per_sec:900\r\ninstantaneous_eventloop_duration_usec:1000\r\n"
        );
        let gentle = Preset::Gentle.limits();
        let near = Duration::from_micros(60);
        assert_eq!(check_over(other, gentle, near).verdict, Verdict::Ok);
        let found = check_over(&busy, gentle, near);
        assert_eq!(found.verdict, Verdict::Warning);
        assert!(found.finding.ends_with("; clients use 90 % of the main thread"), "{found:?}");
        let found = check_over(other, gentle, Duration::from_millis(22));
        assert!(found.verdict == Verdict::Warning && found.finding.contains("600000 keys at"), "{found:?}");
    }

    #[test]
    fn the_order_that_is_named_is_that_of_the_scan() {
        let server = |version: &str, keys: &[u64]| {
            let line = |(number, keys)| format!("db{number}:keys={keys},expires=0,avg_ttl=0\r\n");
            format!("redis_version:{version}\r\n{}", keys.iter().enumerate().map(line).collect::<String>())
        };
        let named = |version: &str, keys: &[u64], milliseconds: u64| {
            let path = Duration::from_millis(milliseconds);
            check_over(&server(version, keys), Preset::Normal.limits(), path).finding
        };
        assert!(named("8.2.3", &[60_000], 0).starts_with("backward in chunks, against the order"));
        assert!(named("8.2.3", &[60_000, 500], 0).ends_with("databases of fewer than 20000 keys forward"));
        assert!(named("8.2.3", &[19_999], 0).starts_with("forward; a scan of fewer than 20000 keys"));
        assert!(named("7.0.15", &[60_000], 0).starts_with("forward; this version's own expiry cycle"));
        assert!(named("7.0.15", &[60_000], 22).starts_with("backward in chunks, which 4 cursors share over this path"));
        assert!(named("7.0.15", &[19_999], 22).starts_with("forward; this version's own expiry cycle"));
        let cluster = format!("cluster_enabled:1\r\n{}", server("8.2.3", &[60_000]));
        let found = check_over(&cluster, Preset::Normal.limits(), Duration::ZERO).finding;
        assert!(found.starts_with("backward in blocks of slots"), "{found}");
    }
}
