//! Faults of networks and servers during a sweep: a pairwise selection in `make test`, all of it in `make soak`.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{FailureKind, Options, Outcome, Stop, Target, sweep};
use keysweep_harness::{DataSet, Fault, Flavor, Names, Proxy, Server, Stalls, eventually};
use rstest::rstest;

use crate::common::{Once, slow};

const KEYS: u64 = 8_000;

fn options() -> Options {
    Options { reply_timeout: Duration::from_secs(1), ..slow(3_000) }
}

/// Sweeps through a proxy that causes `fault` at that point, for a limited time where the fault has no end.
fn survive(flavor: Flavor, fault: Fault, at: f64) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(KEYS / 2).stale(KEYS / 2).load(&server);
    let proxy = Proxy::before(&server);
    let target: Target = proxy.url().parse().expect("a target");
    let strike = Once::between(at..1.0, |_| proxy.set(fault));
    let report = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &options(), &strike, &Stop::new()));
        eventually("the fault strikes", Duration::from_secs(30), || strike.was_done().then_some(()));
        let until = Instant::now() + Duration::from_millis(1_500);
        eventually("the fault lasts", Duration::from_secs(5), || (Instant::now() >= until).then_some(()));
        proxy.set(Fault::None);
        sweeping.join().expect("no panic")
    });
    let (outcome, held) = (report.outcome, server.held());
    assert_eq!((outcome, held), (Outcome::Done, loaded.live), "{flavor:?} {fault:?} {at}: {report:?}");
    // A reply that was lost may have reported reclaimed keys.
    assert!(
        !report.totals.exact || report.totals.keys_reclaimed == loaded.stale,
        "{flavor:?} {fault:?} {at}: {report:?}"
    );
    assert!(
        report.totals.keys_scanned < 2 * KEYS,
        "the same process: it goes on from its cursor, {}",
        report.totals.keys_scanned
    );
}

#[rstest]
fn heavy_a_connection_that_breaks_is_opened_again_and_the_sweep_continues(
    #[values(
        (Flavor::Redis62, Fault::Cut, 0.5), (Flavor::Redis70, Fault::Stall, 0.05), (Flavor::Valkey81, Fault::Drip, 0.85),
        (Flavor::Valkey91, Fault::CloseInReply, 0.5), (Flavor::Valkey91, Fault::Cut, 0.05),
        (Flavor::Redis62, Fault::Drip, 0.05), (Flavor::Redis70, Fault::CloseInReply, 0.85), (Flavor::Valkey81, Fault::Stall, 0.5)
    )]
    (flavor, fault, at): (Flavor, Fault, f64),
) {
    survive(flavor, fault, at);
}

#[rstest]
#[ignore = "for make soak: minutes"]
fn soak_every_fault_at_every_point(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(Fault::Cut, Fault::Stall, Fault::Drip, Fault::CloseInReply)] fault: Fault,
) {
    [0.05, 0.5, 0.85].into_iter().for_each(|at| survive(flavor, fault, at));
}

#[test]
fn a_peer_that_sends_a_byte_at_a_time_does_not_outlast_the_deadline() {
    let server = Server::start(Flavor::Valkey91);
    let proxy = Proxy::before(&server);
    proxy.set(Fault::Drip);
    let target: Target = proxy.url().parse().expect("a target");
    let (stalls, begun, stop) = (Stalls::watch(), Instant::now(), Stop::new());
    let report = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &Options::default(), &(), &stop));
        // Half-way into the connection timeout.
        stop.wait_until(begun + Duration::from_secs(2));
        stop.raise();
        sweeping.join().expect("no panic")
    });
    let (took, stalled) = (begun.elapsed(), stalls.end());
    assert_eq!(report.reason, Some(FailureKind::Interrupted), "{report:?}");
    assert!(took < Duration::from_secs(4) + stalled, "{took:?}, {stalled:?} of them stalled");
}

#[test]
fn heavy_a_server_at_its_client_limit_is_retried_and_then_named() {
    let server = Server::with(Flavor::Valkey91).arg("--maxclients", "3").start();
    let loaded = DataSet::new().live(KEYS / 2).stale(KEYS / 2).load(&server);
    let proxy = Proxy::before(&server);
    let target: Target = proxy.url().parse().expect("a target");
    let crowd = Mutex::new(Vec::new());
    let mut admin = server.connection();
    let fill = Once::between(0.3..1.0, |_| {
        // Until the limit is reached: the sweep would reconnect sooner than the other clients.
        proxy.set(Fault::Cut);
        let mut crowd = crowd.lock().expect("no panic");
        // One connection is the sweep's until the server notices that it is closed.
        eventually("all connections are taken", Duration::from_secs(10), || {
            let client = redis::Client::open(("127.0.0.1", server.port())).expect("an address");
            // A connection counts once it gets a reply.
            let connection = client.get_connection().and_then(|mut connection| {
                redis::cmd("PING").exec(&mut connection)?;
                Ok(connection)
            });
            crowd.extend(connection);
            (crowd.len() >= 2).then_some(())
        });
        proxy.set(Fault::None);
    });
    let report =
        sweep(&target, &Options { reconnect_timeout: Duration::from_secs(1), ..options() }, &fill, &Stop::new());
    let message = report.message.clone().expect("a sentence");
    assert_eq!(report.reason, Some(FailureKind::Unreachable), "{message}");
    assert!(message.contains("max number of clients"), "{message}");
    crowd.lock().expect("no panic").clear();

    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.reason), (Outcome::Done, None), "{report:?}");
    let held: u64 = redis::cmd("DBSIZE").query(&mut admin).expect("a size");
    assert_eq!(held, loaded.live);
}

/// As a proxy with a short time limit does, or an operator's script.
#[rstest]
fn a_scan_whose_connections_are_killed_every_half_second_goes_on_from_where_it_was(
    #[values(Flavor::Redis62, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(KEYS / 4).stale(KEYS / 4).load(&server);
    let target: Target = server.url().parse().expect("a target");
    let (mut admin, mut kills) = (server.connection(), 0);
    let report = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &options(), &(), &Stop::new()));
        while !sweeping.is_finished() {
            let until = Instant::now() + Duration::from_millis(500);
            eventually("half a second passes", Duration::from_secs(5), || {
                (Instant::now() >= until || sweeping.is_finished()).then_some(())
            });
            kills +=
                redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query::<u64>(&mut admin).expect("a kill");
        }
        sweeping.join().expect("no panic")
    });
    assert_eq!((report.outcome, server.held()), (Outcome::Done, loaded.live), "{report:?}");
    assert!(kills >= 2 && report.totals.keys_scanned < KEYS / 2 + KEYS / 8, "{kills} kills: {report:?}");
}

/// Returns the options of a scan that gives up soon.
fn impatient() -> Options {
    Options { reconnect_timeout: Duration::from_millis(500), ..Options::default() }
}

fn set_reply_limit(server: &Server, limit: &str) {
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg("client-output-buffer-limit").arg(format!("normal {limit} 0 0"));
    command.exec(&mut server.connection()).expect("a limit");
}

#[rstest]
fn replies_that_exceed_the_limit_of_the_server_are_asked_for_in_smaller_slices(
    #[values((Flavor::Redis70, true), (Flavor::Redis70, false), (Flavor::Redis82, true), (Flavor::Valkey91, false))]
    (flavor, may_read_settings): (Flavor, bool),
) {
    let server = Server::start(flavor);
    // Three of four are live: a slice that is asked for 33 keys, the first one of the slowest version, returns more than the limit.
    let loaded = DataSet::new().names(Names::Long).live(450).stale(150).load(&server);
    // Fifteen of these names.
    set_reply_limit(&server, "1000000");
    let url = if may_read_settings { server.url() } else { without_config(&server) };
    let report = sweep(&url.parse().expect("a target"), &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, server.held()), (Outcome::Done, loaded.live), "{report:?}");
    let cause = match may_read_settings {
        true => "client-output-buffer-limit normal 1000000 0 0",
        false => "CONFIG is refused, so that its limit is unknown",
    };
    assert!(report.warnings.iter().any(|warning| warning.contains(cause)) && !report.totals.exact, "{report:?}");
}

#[test]
fn a_name_that_is_longer_than_any_reply_may_be_fails_the_scan_with_the_limit() {
    let server = Server::start(Flavor::Redis70);
    redis::cmd("SET").arg("k".repeat(100_000)).arg("v").exec(&mut server.connection()).expect("a key");
    set_reply_limit(&server, "40000");
    let report = sweep(&server.url().parse().expect("a target"), &impatient(), &(), &Stop::new());
    let message = report.message.unwrap_or_default();
    assert_eq!(report.reason, Some(FailureKind::Unreachable), "{message}");
    assert!(
        message.contains("client-output-buffer-limit normal 40000 0 0") && message.contains("raise it"),
        "{message}"
    );
}

/// Returns the URL of a user who may do everything but read settings, as on managed servers.
fn without_config(server: &Server) -> String {
    let rules = ["on", ">p", "~*", "&*", "+@all", "-config"];
    redis::cmd("ACL").arg("SETUSER").arg("sweeper").arg(&rules).exec(&mut server.connection()).expect("a user");
    format!("redis://sweeper:p@{}", server.address())
}
