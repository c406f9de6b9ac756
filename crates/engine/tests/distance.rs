//! Servers at a distance: a proxy delays every byte, as a network between regions does.

use std::time::Duration;

use keysweep_engine::{Options, Outcome, Stop, Target, sweep};
use keysweep_harness::{DataSet, Delay, Flavor, Proxy, Server};

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
