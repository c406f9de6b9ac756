//! Encrypted connections, and the messages when they fail. With Redis 7.0: the pinned Valkeys are built without TLS.

use std::{
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{FailureKind, Options, Outcome, Report, Stop, Target, Tls, sweep};
use keysweep_harness::{Authority, Cluster, DataSet, Fault, Flavor, Issued, Proxy, Server};
use rstest::rstest;

const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

fn server(flavor: Flavor, authority: &Authority, issued: &Issued, asks_clients: bool) -> Server {
    Server::with(flavor).tls(authority, issued, asks_clients).start()
}

fn target(server: &Server, tls: Tls) -> Target {
    let address = server.tls_address().expect("it speaks TLS");
    Target { tls: Some(tls), ..format!("rediss://{address}").parse().expect("a target") }
}

fn trusting(authority: &Authority) -> Tls {
    Tls { ca: Some(authority.pem()), ..Tls::default() }
}

fn swept(target: &Target) -> Report {
    sweep(target, &Options::default(), &(), &Stop::new())
}

#[test]
fn a_server_is_swept_over_tls() {
    let authority = Authority::new();
    let server = server(Flavor::Redis70, &authority, &authority.issue(&NAMES), false);
    let loaded = DataSet::new().live(3_000).stale(2_000).load(&server);
    let report = swept(&target(&server, trusting(&authority)));
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true),
        "{report:?}"
    );
    assert_eq!(server.held(), loaded.live);
    assert!(report.target.starts_with("rediss://"), "{}", report.target);
}

#[test]
fn a_server_that_requires_a_client_certificate_gets_it() {
    let authority = Authority::new();
    let server = server(Flavor::Redis70, &authority, &authority.issue(&NAMES), true);
    let loaded = DataSet::new().live(10).stale(10).load(&server);
    let message = swept(&target(&server, trusting(&authority))).message.expect("a sentence");
    assert!(message.contains("give it with --cert and --key"), "{message}");

    let show = |issued: &Issued| {
        let (certificate, key) = issued.pem();
        Tls { certificate: Some(certificate), key: Some(key.into()), ..trusting(&authority) }
    };
    let strangers = Authority::new();
    let message = swept(&target(&server, show(&strangers.issue(&["client"])))).message.expect("a sentence");
    assert!(message.contains("rejects the client certificate"), "{message}");
    let report = swept(&target(&server, show(&authority.issue(&["client"]))));
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale), "{report:?}");
}

#[test]
fn every_refusal_names_its_cause_and_its_remedy() {
    let authority = Authority::new();
    let start = |issued: &Issued| server(Flavor::Redis70, &authority, issued, false);
    let other = start(&authority.issue(&["cache.example"]));
    let nameless = start(&authority.issue(&[]));
    let expired = start(&authority.issue_expired(&NAMES));
    let good = start(&authority.issue(&NAMES));
    let (serving, own) = Authority::that_serves(&NAMES);
    let serves_itself = server(Flavor::Redis70, &serving, &own, false);
    let plain: Target = format!("rediss://{}", good.address()).parse().expect("a target");
    let spoken_to_plainly: Target =
        format!("redis://{}", good.tls_address().expect("it speaks TLS")).parse().expect("a target");

    for (target, cause, remedy) in [
        (target(&other, trusting(&authority)), "not for 127.0.0.1, but for cache.example;", "--sni"),
        (target(&nameless, trusting(&authority)), "carries no name", "--sni"),
        (target(&expired, trusting(&authority)), "has expired", "renew it"),
        (target(&serves_itself, trusting(&serving)), "is a CA certificate", "CA:FALSE"),
        (target(&good, Tls::default()), "signed by an unknown authority", "--cacert"),
        (target(&good, trusting(&Authority::new())), "not signed by the CA", "--cacert"),
        (Target { tls: Some(trusting(&authority)), ..plain }, "not speak TLS", "without the second s"),
        (spoken_to_plainly, "127.0.0.1", "require TLS"),
    ] {
        let report = swept(&target);
        let message = report.message.expect("a sentence");
        assert_eq!(report.reason, Some(FailureKind::Unreachable), "{message}");
        assert!(message.contains(cause) && message.contains(remedy), "{message}");
    }

    let renamed = Tls { server_name: Some("cache.example".into()), ..trusting(&authority) };
    assert_eq!(swept(&target(&other, renamed)).outcome, Outcome::Done, "the name is that of --sni");
}

#[test]
fn an_unusable_certificate_is_named_before_any_connection() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["client"]).pem();
    let unused = keysweep_harness::free_port();
    for (tls, what) in [
        (Tls { ca: Some("nonsense".into()), ..Tls::default() }, "CA certificate"),
        (Tls { certificate: Some(certificate.clone()), ..trusting(&authority) }, "key is missing"),
        (Tls { key: Some(key.into()), ..trusting(&authority) }, "certificate is missing"),
        (
            Tls { certificate: Some(certificate), key: Some("secret nonsense".into()), ..trusting(&authority) },
            "client key",
        ),
    ] {
        let base: Target = format!("rediss://127.0.0.1:{unused}").parse().expect("a target");
        let report = swept(&Target { tls: Some(tls), ..base });
        let message = report.message.expect("a sentence");
        assert!(message.contains(what) && !message.contains("secret"), "{message}");
    }
}

#[test]
fn a_cluster_is_swept_over_tls() {
    let authority = Authority::new();
    let launch = Server::with(Flavor::Redis70).tls(&authority, &authority.issue(&NAMES), false);
    let mut cluster = Cluster::launch(&launch, 2, false);
    let (live, stale) = cluster.load(400, 300);
    let seed = cluster.node(1).tls_address().expect("it speaks TLS");
    let base: Target = format!("rediss-cluster://{seed}").parse().expect("a target");
    let report = swept(&Target { tls: Some(trusting(&authority)), ..base });
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.shards.len()),
        (Outcome::Done, stale, 2),
        "{report:?}"
    );
    assert_eq!(cluster.held(), live);
    assert!(
        report
            .shards
            .iter()
            .any(|shard| shard.address.as_ref() == Some(&seed.to_string().parse().expect("an address"))),
        "over TLS as well: {report:?}"
    );
}

/// Sentinels that speak TLS as well. They announce the plain address of the primary, which the map leads to the encrypted one.
#[test]
fn a_primary_behind_sentinels_is_swept_over_tls() {
    let authority = Authority::new();
    let issued = authority.issue(&NAMES);
    let primary = server(Flavor::Redis70, &authority, &issued, false);
    let loaded = DataSet::new().live(400).stale(300).load(&primary);
    let sentinel =
        Server::with(Flavor::Redis70).sentinel_of("main", &primary, 1).tls(&authority, &issued, false).start();
    let [watched, encrypted] = [primary.address(), primary.tls_address().expect("it speaks TLS")];
    let url = format!("rediss-sentinel://{}/main", sentinel.tls_address().expect("it speaks TLS"));
    let base: Target = url.parse().expect("a target");
    let address_map = format!("{watched}={encrypted}").parse().expect("a map");
    let report = swept(&Target { tls: Some(trusting(&authority)), address_map, ..base.clone() });
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true),
        "{report:?}"
    );
    assert_eq!(
        (primary.held(), report.shards[0].address.as_ref().map(ToString::to_string)),
        (loaded.live, Some(encrypted.to_string()))
    );

    let report = swept(&Target { tls: Some(trusting(&Authority::new())), ..base });
    let message = report.message.expect("a sentence");
    assert!(message.contains("signed by") && message.contains("--cacert"), "{message}");
}

/// TLS reads until a record is complete: a peer that sends a byte at a time must not outlast stop and deadline.
#[rstest]
fn a_peer_that_sends_a_byte_at_a_time_delays_neither_a_stop_nor_a_timeout(
    #[values(Some(1), None)] timeout: Option<u64>,
) {
    let authority = Authority::new();
    let server = server(Flavor::Redis70, &authority, &authority.issue(&NAMES), false);
    let proxy = Proxy::to(server.tls_address().expect("it speaks TLS"));
    proxy.set(Fault::Drip);
    let base: Target = format!("rediss://{}", proxy.address()).parse().expect("a target");
    let target = Target { tls: Some(trusting(&authority)), ..base };
    let options = Options { timeout: timeout.map(Duration::from_secs), ..Options::default() };
    let (begun, stop) = (Instant::now(), Stop::new());
    let report = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &options, &(), &stop));
        stop.wait_until(begun + Duration::from_secs(1));
        if timeout.is_none() {
            stop.raise();
        }
        sweeping.join().expect("no panic")
    });
    let reason = if timeout.is_some() { FailureKind::Timeout } else { FailureKind::Interrupted };
    assert_eq!(report.reason, Some(reason), "{report:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
