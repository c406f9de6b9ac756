//! Encrypted connections, and the messages when they fail. With Redis 7.0: the pinned Valkeys are built without TLS.

use std::{
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::link::CONNECT_TIMEOUT;
use keysweep_engine::{FailureKind, Mode, Options, Outcome, Report, SentinelTls, Stop, Target, Tls, sweep};
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
    let version_1 = start(&authority.issue_version_1());
    let issued = authority.issue(&NAMES);
    let limited = |protocols: &str, ciphers: &str, asks_clients: bool| {
        Server::with(Flavor::Redis70)
            .tls(&authority, &issued, asks_clients)
            .arg("--tls-protocols", protocols)
            .arg("--tls-ciphers", ciphers)
            .start()
    };
    let cbc = limited("TLSv1.2", "ECDHE-ECDSA-AES128-SHA", false);
    let asks_before_tls_1_3 = limited("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", true);
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
        (target(&version_1, trusting(&authority)), "X.509 version 1", "subjectAltName"),
        (target(&cbc, trusting(&authority)), "shares no cipher suite", "tls-ciphers"),
        (target(&asks_before_tls_1_3, trusting(&authority)), "requires a client certificate", "--cert and --key"),
        (target(&good, Tls::default()), "signed by an unknown authority", "--cacert"),
        (target(&good, trusting(&Authority::new())), "not signed by the CA", "--cacert"),
        (Target { tls: Some(trusting(&authority)), ..plain }, "not speak TLS", "without the second s"),
        (spoken_to_plainly, "127.0.0.1", "require TLS"),
    ] {
        let begun = Instant::now();
        let report = swept(&target);
        let message = report.message.expect("a sentence");
        assert!(begun.elapsed() < CONNECT_TIMEOUT, "{:?}: {message}", begun.elapsed());
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

/// Before Redis 7.2 nodes do not know each other's TLS ports unless their bus uses them.
#[test]
fn a_cluster_that_announces_plain_ports_fails_at_once_with_the_setting_that_it_needs() {
    let authority = Authority::new();
    let launch =
        Server::with(Flavor::Redis70).tls(&authority, &authority.issue(&NAMES), false).arg("--tls-cluster", "no");
    let mut cluster = Cluster::launch(&launch, 1, false);
    let (live, stale) = cluster.load(40, 30);
    let node = |index: usize| cluster.node(index).tls_address().expect("it speaks TLS");
    let base: Target = format!("rediss-cluster://{}", node(0)).parse().expect("a target");
    let target = Target { tls: Some(trusting(&authority)), ..base };
    let begun = Instant::now();
    let report = swept(&target);
    assert!(begun.elapsed() < CONNECT_TIMEOUT, "{:?}", begun.elapsed());
    let message = report.message.expect("a sentence");
    assert_eq!(report.reason, Some(FailureKind::Unreachable), "{message}");
    for words in ["which the cluster announces", "does not speak TLS on this port", "tls-cluster yes", "--address-map"]
    {
        assert!(message.contains(words), "{words:?} is not in {message}");
    }
    let address_map = format!("{}={}", cluster.node(0).address(), node(0)).parse().expect("a map");
    let report = swept(&Target { address_map, ..target });
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, stale), "{report:?}");
    assert_eq!(cluster.held(), live);
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

#[test]
fn the_encryption_of_sentinels_is_set_apart_from_that_of_data_nodes() {
    let authority = Authority::new();
    let issued = authority.issue(&NAMES);
    let primary = server(Flavor::Redis70, &authority, &issued, false);
    // One Sentinel has a plain port and one with TLS: each target below uses one of the two.
    let sentinel =
        Server::with(Flavor::Redis70).sentinel_of("main", &primary, 1).tls(&authority, &issued, false).start();
    let [plain, encrypted] = [&sentinel, &primary].map(|server| {
        let tls = server.tls_address().expect("it speaks TLS");
        (server.address(), tls)
    });
    let to_tls: keysweep_engine::AddressMap = format!("{}={}", encrypted.0, encrypted.1).parse().expect("a map");
    let target = |url: String| {
        let mut target: Target = url.parse().expect("a target");
        if let Some(tls) = &mut target.tls {
            (*tls, target.address_map) = (trusting(&authority), to_tls.clone());
        }
        if let Mode::Sentinel { tls: SentinelTls::On(tls), .. } = &mut target.mode {
            *tls = trusting(&authority);
        }
        target
    };
    for url in [
        format!("rediss-sentinel://{}/main?sentinel_tls=off", plain.0),
        format!("redis-sentinel://{}/main?sentinel_tls=on", plain.1),
    ] {
        let loaded = DataSet::new().prefix(&url).live(40).stale(30).load(&primary);
        let report = swept(&target(url.clone()));
        assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale), "{url}: {report:?}");
        assert_eq!(report.target, url);
    }
    let unmapped = |url: String| Target { address_map: keysweep_engine::AddressMap::default(), ..target(url) };
    let to_encrypted_port =
        Target { address_map: to_tls.clone(), ..target(format!("redis-sentinel://{}/main", plain.0)) };
    for (target, remedy) in [
        (target(format!("rediss-sentinel://{}/main", plain.0)), "use --sentinel-tls off, in the URL ?sentinel_tls=off"),
        (target(format!("redis-sentinel://{}/main", plain.1)), "use --sentinel-tls on, in the URL ?sentinel_tls=on"),
        (unmapped(format!("rediss-sentinel://{}/main", plain.1)), "redis-sentinel:// with ?sentinel_tls=on"),
        (to_encrypted_port, "rediss-sentinel:// with ?sentinel_tls=off"),
    ] {
        let begun = Instant::now();
        // A data node that closes the connection may only be restarting.
        let options = Options { reconnect_timeout: Duration::from_millis(200), ..Options::default() };
        let message = sweep(&target, &options, &(), &Stop::new()).message.expect("a sentence");
        assert!(message.contains(remedy), "{target}: {message}");
        assert!(begun.elapsed() < CONNECT_TIMEOUT, "{:?}: {message}", begun.elapsed());
    }
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
