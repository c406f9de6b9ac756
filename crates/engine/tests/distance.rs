//! Servers at a distance: a proxy delays every byte, as a network between regions does.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use keysweep_engine::{Monitor, Options, Outcome, Stop, Target, sweep};
use keysweep_harness::{DataSet, Delay, Flavor, Proxy, Server};
use rstest::rstest;

const MILLI: Duration = Duration::from_millis(1);

/// Queries at fixed intervals would take all of the time from a round trip of 20 ms on.
#[test]
fn a_scan_over_a_long_path_comes_to_its_end() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(1_000).stale(500).load(&server);
    let proxy = Proxy::at_distance(&server, Delay::round_trip(22 * MILLI, MILLI));
    let target: Target = proxy.url().parse().expect("a target");
    let options = Options { timeout: Some(Duration::from_secs(20)), ..Options::default() };
    let report = sweep(&target, &options, &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, true), "{report:?}");
    assert_eq!((report.totals.keys_reclaimed, server.held()), (loaded.stale, loaded.live));
}

/// Returns the CPU of the server's main thread, seconds.
fn cpu(server: &Server) -> f64 {
    let info: String = redis::cmd("INFO").arg("cpu").query(&mut server.connection()).expect("INFO");
    let field = |name: &str| {
        let value =
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{info}"))
    };
    field("used_cpu_user_main_thread") + field("used_cpu_sys_main_thread")
}

/// Notes the server's CPU and the time at the first slice.
struct FirstSlice<'a>(&'a Server, Mutex<Option<(Instant, f64)>>);

impl Monitor for FirstSlice<'_> {
    fn slice(&self, _: Duration) {
        let mut first = self.1.lock().expect("no panic");
        first.get_or_insert_with(|| (Instant::now(), cpu(self.0)));
    }
}

/// Sweeps over a path at a CPU limit, and compares that with the CPU that the server itself has counted.
fn check_cpu_limit(flavor: Flavor, round_trip: Duration, limit: f64, keys: u64) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(keys * 3 / 4).stale(keys / 4).load(&server);
    let proxy = Proxy::at_distance(&server, Delay::round_trip(round_trip, round_trip / 10));
    let url = if round_trip.is_zero() { server.url() } else { proxy.url() };
    let mut options = Options { timeout: Some(Duration::from_secs(60)), ..Options::default() };
    options.limits.max_cpu = limit;
    // Over a long path only longer slices can use the limit.
    options.limits.max_slice = round_trip.mul_f64(limit / (1.0 - limit) * 1.5).max(MILLI / 5);
    let first = FirstSlice(&server, Mutex::new(None));
    let report = sweep(&url.parse().expect("a target"), &options, &first, &Stop::new());
    let (ended, after) = (Instant::now(), cpu(&server));
    let (begun, before) = first.1.into_inner().expect("no panic").expect("a slice");
    assert_eq!((report.outcome, server.held()), (Outcome::Done, loaded.live), "{report:?}");
    let elapsed = (ended - begun).as_secs_f64();
    let used = (after - before) / elapsed;
    let case =
        format!("{flavor:?} at {round_trip:?}: {:.1} % used of {:.0} %, {elapsed:.1} s", used * 100.0, limit * 100.0);
    eprintln!("{case}; the report says {:.1} %", report.totals.server_seconds / elapsed * 100.0);
    assert!(used > limit * 0.8 && used < limit * 1.2, "{case}");
}

#[rstest]
fn alone_the_cpu_limit_is_kept_by_the_servers_own_count(
    #[values((Flavor::Valkey91, 0, 0.25, 400_000), (Flavor::Redis70, 22, 0.25, 250_000))]
    (flavor, round_trip, limit, keys): (Flavor, u32, f64, u64),
) {
    check_cpu_limit(flavor, round_trip * MILLI, limit, keys);
}

#[rstest]
#[ignore = "for make soak: minutes"]
fn alone_soak_the_cpu_limit_is_kept_by_the_servers_own_count(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(0, 22)] round_trip: u32,
    #[values((0.05, 200_000), (0.25, 600_000), (0.5, 1_000_000))] (limit, keys): (f64, u64),
) {
    check_cpu_limit(flavor, round_trip * MILLI, limit, keys);
}
