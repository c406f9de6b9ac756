//! How fast a scan of a server will be, by the figures that its pacing begins with: for the pre-flight checks.

use std::time::Duration;

use super::state::ServerState;
use crate::{
    limits::Limits,
    link::Info,
    record::Order,
    speed::{OVERHEAD, expected_cost, first_count, share_beside, useful_cursors},
};

/// Forecast of a scan of one server. Its speeds are estimates from below: servers need less for a key than is expected of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// The limits of the scan.
    pub limits: Limits,
    /// Shortest round trip so far.
    pub round_trip: Duration,
    /// Cursors that walk through a large database at once.
    pub cursors: usize,
    /// Keys scanned a second.
    pub keys_per_second: f64,
    /// The same for a scan that runs next to the server.
    pub nearby: f64,
    /// Share of the main thread that clients use, 0–1; 0 where the server does not report it.
    pub clients: f64,
}

impl Forecast {
    /// Returns the forecast for a server that has answered INFO (sections server, stats and keyspace). `only`: the database that is
    /// scanned; `None`: all.
    pub fn new(limits: Limits, info: &Info, state: &ServerState, round_trip: Duration, only: Option<u32>) -> Self {
        let databases = info.keyspace().into_iter().filter(|line| only.is_none_or(|only| only == line.database));
        let is_divided = databases.map(|line| line.keys).any(Order::is_divided);
        let clients = load(info, state);
        // Without a guard the scan does not heed the clients.
        let share = limits.guard.map_or(limits.max_cpu, |_| share_beside(limits.max_cpu, clients));
        // Cursors need chunks to walk through, and a server that tells what slices cost.
        let has_several = is_divided && info.is_redis_or_valkey() && state.scan.is_some();
        let cursors = if has_several { useful_cursors(limits.over(round_trip), round_trip) } else { 1 };
        let per_unit = expected_cost(info);
        let speed = |limits, cursors, round_trip| speed(limits, share, per_unit, cursors, round_trip);
        Self {
            limits,
            round_trip,
            cursors,
            keys_per_second: speed(limits.over(round_trip), cursors, round_trip),
            nearby: speed(limits, 1, Duration::ZERO),
            clients,
        }
    }
}

/// Returns the keys a second of a scan that may use this share of the main thread, with so many cursors over a path.
fn speed(limits: Limits, share: f64, per_unit: f64, cursors: usize, round_trip: Duration) -> f64 {
    let count = f64::from(first_count(limits, OVERHEAD, per_unit));
    let cost = OVERHEAD + count * per_unit;
    let slices = (share / cost).min(cursors as f64 / (round_trip.as_secs_f64() + cost));
    let cap = limits.keys_per_second.map_or(f64::INFINITY, |cap| cap.max(1) as f64);
    (count * slices).min(cap)
}

/// Returns the share of the main thread that clients use: of the last second where the server counts iterations of its event loop
/// (Redis and Valkey since 7.2), else in the mean since its start.
fn load(info: &Info, state: &ServerState) -> f64 {
    let number = |field: &str| info.number::<f64>(field);
    let iterations = number("instantaneous_eventloop_cycles_per_sec");
    let now =
        iterations.zip(number("instantaneous_eventloop_duration_usec")).map(|(a_second, each)| a_second * each / 1e6);
    let mean = || Some(state.main_thread_cpu?.as_secs_f64() / number("uptime_in_seconds")?.max(1.0));
    now.or_else(mean).filter(|load| load.is_finite()).unwrap_or(0.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::Preset, server::ScanStatistics};

    const VALKEY: &str =
        "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\ndb0:keys=60000,expires=0,avg_ttl=0\r\n";
    const REDIS: &str = "redis_version:7.0.15\r\ndb0:keys=60000,expires=0,avg_ttl=0\r\n";

    fn forecast(limits: Limits, info: &str, round_trip: u64) -> Forecast {
        let scan = Some(ScanStatistics { calls: 0, scan: Duration::ZERO, commands: 0, cpu: None });
        let state = ServerState { scan, ..ServerState::default() };
        Forecast::new(limits, &Info::read(info), &state, Duration::from_micros(round_trip), None)
    }

    #[test]
    fn the_speed_over_a_path_follows_from_the_pace_and_the_server() {
        let seconds =
            |preset: Preset, info, round_trip| 60_000.0 / forecast(preset.limits(), info, round_trip).keys_per_second;
        let [gentle, normal, fast, max] = Preset::ALL.map(|preset| seconds(preset, REDIS, 22_000));
        assert!(gentle > normal && normal > fast && fast > max, "{gentle}, {normal}, {fast}, {max}");
        assert!(seconds(Preset::Normal, VALKEY, 22_000) < normal / 2.0, "cheaper keys, and so more in each round trip");
        // Measured: 1.5 s with the checks and the baseline, which take half a second.
        assert!((0.7..1.5).contains(&normal), "{normal} s");
        assert!(seconds(Preset::Normal, REDIS, 45_000) > 1.9 * normal);
        assert!(seconds(Preset::Gentle, REDIS, 60) < gentle, "without a path");
    }

    #[test]
    fn a_cap_and_busy_clients_slow_a_scan_down() {
        let capped = Limits { keys_per_second: Some(5_000), ..Preset::Normal.limits() };
        assert_eq!(forecast(capped, VALKEY, 60).keys_per_second, 5_000.0);
        let busy = format!(
            "{VALKEY}instantaneous_eventloop_cycles_per_sec:900\r\ninstantaneous_eventloop_duration_usec:1000\r\n"
        );
        let [quiet, beside] = [VALKEY, busy.as_str()].map(|info| forecast(Preset::Gentle.limits(), info, 60));
        assert_eq!((quiet.clients, beside.clients), (0.0, 0.9));
        assert!(beside.keys_per_second < quiet.keys_per_second / 7.0, "{beside:?}, {quiet:?}");
        let max = forecast(Preset::Max.limits(), &busy, 60);
        assert_eq!(max.keys_per_second, forecast(Preset::Max.limits(), VALKEY, 60).keys_per_second, "no backoff");
    }

    #[test]
    fn an_older_server_reports_the_load_since_its_start() {
        let state = ServerState { main_thread_cpu: Some(Duration::from_secs(60)), ..ServerState::default() };
        assert_eq!(load(&Info::read("uptime_in_seconds:100\r\n"), &state), 0.6);
        assert_eq!(load(&Info::read(""), &state), 0.0);
    }

    #[test]
    fn several_cursors_need_a_distance_and_a_database_with_chunks() {
        let cursors = |info: &str, round_trip| forecast(Preset::Normal.limits(), info, round_trip).cursors;
        assert_eq!((cursors(REDIS, 60), cursors(REDIS, 22_000)), (1, 4));
        assert_eq!(cursors(&REDIS.replace("60000", "19999"), 22_000), 1);
        let other = "redis_version:7.4.0\r\nfoo_version:1.0\r\ndb0:keys=60000,expires=0,avg_ttl=0\r\n";
        assert_eq!(cursors(other, 22_000), 1);
    }
}
