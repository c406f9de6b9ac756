//! Estimates: exact on a replica, with a named bias without one, and never reclaiming a key.

use keysweep_engine::{Estimate, FailureKind, Method, Preset, Stop, Target, estimate, link::Plain};
use keysweep_harness::{DataSet, Flavor, Server, free_port};
use rstest::rstest;

fn ask(url: &str, sample: Option<f64>) -> Estimate {
    let target: Target = url.parse().expect("a target");
    estimate(&Plain, &target, sample, Preset::Fast.limits(), &Stop::new()).expect("an estimate")
}

fn held(server: &Server) -> u64 {
    redis::cmd("DBSIZE").query(&mut server.connection()).expect("a size")
}

#[rstest]
fn a_count_on_a_replica_is_exact_and_reclaims_nothing(#[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor) {
    let primary = Server::start(flavor);
    let loaded = DataSet::new().live(9_000).stale(3_000).database(2).live(100).stale(50).load(&primary);
    let replica = primary.replica();
    for url in [primary.url(), replica.url()] {
        let estimate = ask(&url, None);
        assert_eq!(estimate.method, Method::ReplicaCount);
        assert_eq!(estimate.address, replica.address().to_string());
        assert_eq!((estimate.keys, estimate.stale_keys), (loaded.live + loaded.stale, loaded.stale));
        assert!(estimate.bytes.is_some_and(|bytes| bytes > 0));
    }
    assert_eq!((held(&primary), held(&replica)), (12_000, 12_000));
}

#[test]
fn a_sample_on_a_replica_is_close() {
    let primary = Server::start(Flavor::Valkey91);
    DataSet::new().live(30_000).stale(10_000).load(&primary);
    let replica = primary.replica();
    let estimate = ask(&replica.url(), Some(0.2));
    assert_eq!(estimate.method, Method::ReplicaSample);
    assert!((0.22..0.28).contains(&estimate.share), "{estimate:?}");
}

#[test]
fn without_a_replica_the_servers_own_average_is_returned_with_its_bias() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(500).stale(500).load(&server);
    let estimate = ask(&server.url(), None);
    assert_eq!((estimate.method, estimate.keys), (Method::Info, 1_000));
    assert!(estimate.method.describe().contains("too low"));
    assert_eq!(held(&server), 1_000);
}

#[test]
fn a_replica_without_a_link_to_its_primary_is_no_source() {
    let primary = Server::start(Flavor::Redis70);
    DataSet::new().live(100).stale(200).load(&primary);
    let replica = primary.replica();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(free_port()).exec(&mut replica.connection()).expect("a replica");
    // Keys that are deleted now stay on the replica.
    assert_eq!(ask(&primary.url(), None).method, Method::Info);

    let target: Target = replica.url().parse().expect("a target");
    let failure = estimate(&Plain, &target, None, Preset::Fast.limits(), &Stop::new()).expect_err("no estimate");

    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("without a link to its primary"), "{failure}");
}
