//! The CPU limit, compared with the CPU that the server itself counts: next to it and over a path.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{Monitor, Options, Outcome, Stop, sweep};
use keysweep_harness::{DataSet, Delay, Flavor, Proxy, Server, Stalls};
use rstest::rstest;

const MILLI: Duration = Duration::from_millis(1);

/// Returns the CPU of the server's main thread, seconds.
pub fn cpu(server: &Server) -> f64 {
    let info: String = redis::cmd("INFO").arg("cpu").query(&mut server.connection()).expect("INFO");
    let field = |name: &str| {
        let value =
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{info}"))
    };
    field("used_cpu_user_main_thread") + field("used_cpu_sys_main_thread")
}

/// Returns for how long the server's main thread has waited for a core, seconds: other processes of this machine had it.
fn waited(server: &Server) -> f64 {
    let path = format!("/proc/{0}/task/{0}/schedstat", server.pid());
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    text.split(' ').nth(1).and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Notes the time, the server's CPU and its wait for a core at the first slice.
struct FirstSlice<'a>(&'a Server, Mutex<Option<(Instant, f64, f64)>>);

impl Monitor for FirstSlice<'_> {
    fn slice(&self, _: Duration) {
        let mut first = self.1.lock().expect("no panic");
        first.get_or_insert_with(|| (Instant::now(), cpu(self.0), waited(self.0)));
    }
}

/// Asks the server for its size every 2 ms until the first slice has run. Whatever the clients use before the first slice, what
/// slices cost is measured beside it.
fn poll(server: &Server, first: &FirstSlice<'_>) {
    let (begun, mut connection) = (Instant::now(), server.connection());
    while first.1.lock().expect("no panic").is_none() && begun.elapsed() < Duration::from_secs(20) {
        let _: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
        thread::sleep(2 * MILLI);
    }
}

/// A scan at a CPU limit.
#[derive(Debug, Clone, Copy)]
struct Case {
    flavor: Flavor,
    /// Milliseconds.
    round_trip: u32,
    limit: f64,
    keys: u64,
    /// The pause limit, microseconds; `None`: as the pace says.
    shortest: Option<u64>,
    /// Cursors that can use the limit together.
    cursors: u32,
    /// Whether a client polls the server until the first slice.
    polls: bool,
}

/// Sweeps over a path at a CPU limit, and compares that with the CPU that the server itself has counted.
fn check_cpu_limit(case: Case) {
    let Case { flavor, limit, keys, .. } = case;
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(keys * 3 / 4).stale(keys / 4).load(&server);
    let round_trip = case.round_trip * MILLI;
    let proxy = Proxy::at_distance(&server, Delay::round_trip(round_trip, round_trip / 10));
    let url = if round_trip.is_zero() { server.url() } else { proxy.url() };
    let mut options = Options { timeout: Some(Duration::from_secs(60)), ..Options::default() };
    options.limits.max_cpu = limit;
    // Over a long path one cursor can use the limit only with longer slices, several of them with those of the pace.
    if let Some(micros) = case.shortest {
        options.limits.max_slice = round_trip.mul_f64(limit / (1.0 - limit) * 1.5).max(Duration::from_micros(micros));
    }
    let first = FirstSlice(&server, Mutex::new(None));
    let target = url.parse().expect("a target");
    let stalls = Stalls::watch();
    let report = thread::scope(|scope| {
        if case.polls {
            scope.spawn(|| poll(&server, &first));
        }
        sweep(&target, &options, &first, &Stop::new())
    });
    let (ended, after, waited_after, stalled) = (Instant::now(), cpu(&server), waited(&server), stalls.end());
    let (begun, before, waited_before) = first.1.into_inner().expect("no panic").expect("a slice");
    assert_eq!((report.outcome, server.held()), (Outcome::Done, loaded.live), "{report:?}");
    let elapsed = (ended - begun).as_secs_f64();
    let used = (after - before) / elapsed;
    // Time in which the server waits for a core counts as its own where its clock tells the cost, and in that in which nothing on this
    // machine gets one the scan cannot use the limit.
    let undisturbed = (elapsed - stalled.as_secs_f64()).max(elapsed / 10.0);
    let with_waits = (after - before + waited_after - waited_before) / undisturbed;
    // Nor can it where the machine makes the path longer than it should be: the PINGs of the scan show that.
    let slice = report.totals.slice_seconds.p50;
    let path = report.totals.probe_seconds.during_p90.unwrap_or(0.0);
    let possible = f64::from(case.cursors) * slice / (path + slice);
    let figures = format!(
        "{flavor:?} at {round_trip:?}: {:.1} % used of {:.0} %, {:.1} % with waits for a core, {elapsed:.1} s, of which the machine stalled {stalled:?}; slices of {:.0} µs in round trips of {:.1} ms can use {:.1} %, and the report says {:.1} %",
        used * 100.0,
        limit * 100.0,
        with_waits * 100.0,
        slice * 1e6,
        path * 1e3,
        possible * 100.0,
        report.totals.server_seconds / elapsed * 100.0
    );
    eprintln!("{figures}");
    assert!(with_waits > limit.min(possible) * 0.8 && used < limit * 1.2, "{figures}");
}

#[rstest]
fn alone_the_cpu_limit_is_kept_by_the_servers_own_count(
    // Slices of 90 µs, those of the pace normal, cost more besides SCAN than SCAN itself.
    #[values(
        (Flavor::Valkey91, 0, 0.25, 400_000, Some(200), 1, false),
        (Flavor::Valkey91, 0, 0.05, 100_000, Some(90), 1, false),
        (Flavor::Valkey91, 0, 0.05, 100_000, Some(90), 1, true),
        (Flavor::Redis70, 22, 0.25, 250_000, Some(200), 1, false),
        // Each of two cursors alone could use more than half of it.
        (Flavor::Valkey91, 3, 0.09, 300_000, None, 2, false),
    )]
    (flavor, round_trip, limit, keys, shortest, cursors, polls): (Flavor, u32, f64, u64, Option<u64>, u32, bool),
) {
    check_cpu_limit(Case { flavor, round_trip, limit, keys, shortest, cursors, polls });
}

#[rstest]
#[ignore = "for make soak: minutes"]
fn alone_soak_the_cpu_limit_is_kept_by_the_servers_own_count(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(0, 22)] round_trip: u32,
    #[values((0.05, 200_000), (0.25, 600_000), (0.5, 1_000_000))] (limit, keys): (f64, u64),
) {
    check_cpu_limit(Case { flavor, round_trip, limit, keys, shortest: Some(200), cursors: 1, polls: false });
}

#[rstest]
#[ignore = "for make soak: half a minute"]
fn alone_soak_the_cpu_limit_is_kept_by_four_cursors_together(
    #[values(Flavor::Redis70, Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
) {
    check_cpu_limit(Case {
        flavor,
        round_trip: 3,
        limit: 0.24,
        keys: 600_000,
        shortest: None,
        cursors: 4,
        polls: false,
    });
}
