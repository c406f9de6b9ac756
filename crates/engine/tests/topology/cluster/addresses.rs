//! Nodes that are announced at addresses which lead elsewhere from here: none is taken for another, and none is left out of a
//! success.

use std::{net::Ipv4Addr, time::Duration};

use keysweep_engine::{
    EstimateRequest, FailureKind, Options, Outcome, Report, Stop, Target, Verdict, check, estimate, inspect,
    link::Plain, sweep,
};
use keysweep_harness::{Cluster, Flavor, Server, free_port};
use rstest::rstest;

/// Starts three primaries on 127.0.0.1, 127.0.0.2 and 127.0.0.3 with one port, which announce no preferred endpoint.
fn cluster_of_hosts(flavor: Flavor) -> Cluster {
    let port = free_port();
    let launches = [1, 2, 3].map(|number| {
        let host = Ipv4Addr::new(127, 0, 0, number);
        let launch = Server::with(flavor).at(host, port).arg("--cluster-announce-ip", &host.to_string());
        launch.arg("--cluster-preferred-endpoint-type", "unknown-endpoint")
    });
    Cluster::of(&launches, 3)
}

fn target(cluster: &Cluster, address_map: &str) -> Target {
    let mut target: Target = format!("redis-cluster://{}", cluster.node(0).address()).parse().expect("a target");
    target.address_map = address_map.parse().expect("an address map");
    target
}

/// Returns a request that does not wait for an expiry rate.
fn at_once() -> EstimateRequest {
    EstimateRequest { observe: Duration::ZERO, ..EstimateRequest::default() }
}

fn scan(target: &Target) -> Report {
    sweep(target, &Options::default(), &(), &Stop::new())
}

/// Asserts that this many of three primaries fail by name in a scan, and that nothing else takes them for others.
fn assert_fail(target: &Target, failed: usize, words: &str) {
    let report = scan(target);
    let message = report.message.clone().unwrap_or_default();
    assert_eq!((report.outcome, report.reason), (Outcome::Failed, Some(FailureKind::Unreachable)), "{report:#?}");
    assert!(message.contains(&format!("{failed} of 3 primaries")), "{message}");
    let by_name = |shard: &&keysweep_engine::ShardReport| {
        shard.message.as_ref().is_some_and(|message| message.contains(words) && message.contains("--address-map"))
    };
    assert_eq!(report.shards.iter().filter(by_name).count(), failed, "{report:#?}");
    assert_eq!(report.shards.iter().filter(|shard| shard.outcome == Outcome::Done).count(), 3 - failed);

    let checks = check(&Plain, target, Options::default().limits, &Stop::new()).expect("a cluster to check");
    let refused = checks.iter().filter(|check| check.verdict == Verdict::Refused && check.finding.contains(words));
    assert_eq!(refused.count(), failed, "{checks:#?}");
    assert!(inspect(&Plain, target, &Stop::new()).expect_err("no sum").message.contains(words));
    let estimated = estimate(&Plain, target, &at_once(), &Stop::new());
    assert!(estimated.expect_err("no estimate").message.contains(words));
}

#[rstest]
fn nodes_that_differ_only_in_their_hosts_are_all_scanned_and_never_taken_for_each_other(
    #[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor,
) {
    let mut cluster = cluster_of_hosts(flavor);
    let (live, stale) = cluster.load(200, 100);
    let folded = "127.0.0.2=127.0.0.1,127.0.0.3=127.0.0.1";
    assert_fail(&target(&cluster, folded), 2, "shares the address");
    assert_fail(&target(&cluster, "127.0.0.2=127.0.0.3,127.0.0.3=127.0.0.2"), 2, "answers as the cluster node");

    let estimate = estimate(&Plain, &target(&cluster, ""), &at_once(), &Stop::new());
    assert_eq!(estimate.expect("an estimate").total.keys, live + stale - stale / 3, "all three are counted");
    let report = scan(&target(&cluster, ""));
    assert_eq!((report.outcome, report.shards.len(), cluster.held()), (Outcome::Done, 3, live), "{report:#?}");

    // Where nodes cannot prove who they are, an address of their own has to do.
    for node in cluster.nodes() {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("sweeper").arg(&["on", ">p", "~*", "&*", "+@all", "-cluster|myid"]);
        command.exec(&mut node.connection()).expect("a user");
    }
    let unproven = |address_map| {
        let mut target = target(&cluster, address_map);
        target.credentials.username = Some("sweeper".into());
        target.credentials.password = Some("p".to_owned().into());
        scan(&target)
    };
    let report = unproven("");
    let is_said = report.warnings.iter().any(|warning| warning.contains("CLUSTER MYID is refused"));
    assert_eq!((report.outcome, is_said), (Outcome::Done, true), "{report:#?}");
    let report = unproven(folded);
    let message = report.message.unwrap_or_default();
    assert!(message.contains("3 of 3 primaries") && message.contains("refuses CLUSTER MYID"), "{message}");
}
