//! Estimates against the exact numbers of real servers. A sample changes what it measures, so that each is made of a data set
//! that was loaded for it.

mod truth;

use std::{
    fs::File,
    io::BufReader,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use keysweep_engine::{
    Estimate, EstimateRequest, Failure, FailureKind, Finding, Method, Preset, Stop, Target, estimate, estimate_rdb,
    link::Plain,
};
use keysweep_harness::{Cluster, DataSet, Flavor, Kind, Server, eventually, free_port};
use rstest::rstest;

/// Returns a request that does not wait for an expiry rate, which these data sets do not have.
pub fn request(method: Option<Method>) -> EstimateRequest {
    EstimateRequest { method, observe: Duration::ZERO, limits: Preset::Fast.limits(), ..EstimateRequest::default() }
}

pub fn try_ask(url: &str, request: &EstimateRequest) -> Result<Estimate, Failure> {
    let target: Target = url.parse().expect("a target");
    estimate(&Plain, &target, request, &Stop::new())
}

pub fn ask(url: &str, request: &EstimateRequest) -> Estimate {
    try_ask(url, request).expect("an estimate")
}

/// Whether the truth is within twice the interval, which a right estimator misses once in 10,000 runs.
fn is_near(finding: &Finding, truth: f64) -> bool {
    let (Some(share), Some(low), Some(high)) = (finding.share, finding.share_low, finding.share_high) else {
        return false;
    };
    (2.0 * low - share..=2.0 * high - share).contains(&truth)
}

#[rstest]
fn a_count_on_a_replica_is_exact_and_reclaims_nothing(#[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor) {
    let primary = Server::start(flavor);
    let loaded = DataSet::new().live(9_000).stale(3_000).database(2).live(100).stale(50).load(&primary);
    let replica = primary.replica();
    for url in [primary.url(), replica.url()] {
        let found = ask(&url, &request(None));
        let (total, node) = (&found.total, &found.primaries[0]);
        assert_eq!((total.method, total.stale_keys, total.reclaimed), (Some(Method::Replica), Some(loaded.stale), 0));
        assert_eq!(
            (node.address.clone(), node.source.clone()),
            (primary.address().to_string(), replica.address().to_string())
        );
        assert_eq!(total.keys, loaded.live + loaded.stale);
        assert_eq!(
            (total.share, total.share_low),
            (total.share_high, total.share_high),
            "an exact share has no interval"
        );
        assert_eq!((total.hz, total.effort), (Some(10), Some(1)));
        assert!(
            total.bytes.is_some_and(|bytes| bytes > 0) && total.server_seconds.is_some_and(|seconds| seconds > 0.0)
        );
        assert_eq!((total.bytes_low, total.bytes_high), (total.bytes, total.bytes), "no interval of bytes either");
        let shares: Vec<_> = node.databases.iter().map(|one| (one.database, one.finding.share)).collect();
        assert_eq!(shares, [(0, Some(0.25)), (2, Some(50.0 / 150.0))]);
    }
    assert_eq!((primary.held(), replica.held()), (12_150, 12_150));
}

#[test]
fn a_part_of_a_large_replica_stands_for_all_of_it() {
    let primary = Server::start(Flavor::Valkey91);
    DataSet::new().live(30_000).stale(10_000).load(&primary);
    let replica = primary.replica();
    let found = ask(&replica.url(), &EstimateRequest { max_counted: 8_000, ..request(None) });
    assert_eq!(found.total.method, Some(Method::Replica));
    assert!(found.total.share_low < found.total.share_high && is_near(&found.total, 0.25), "{:?}", found.total);
    let Finding { bytes, bytes_low, bytes_high, .. } = found.total;
    assert!(bytes_low < bytes && bytes < bytes_high, "{bytes_low:?} to {bytes_high:?}");
}

#[test]
fn keys_that_are_set_during_a_count_on_a_replica_are_no_stale_keys() {
    let primary = Server::start(Flavor::Valkey91);
    DataSet::new().live(30_000).stale(3_000).load(&primary);
    let replica = primary.replica();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = primary.connection();
            for number in 0.. {
                let mut pipeline = redis::pipe();
                for key in 0..100 {
                    pipeline.cmd("SET").arg(format!("{number}:{key}")).arg(1).arg("EX").arg(3_600).ignore();
                }
                pipeline.exec(&mut connection).expect("keys can be set");
                if done.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        let before = replica.held();
        let slow = EstimateRequest { limits: Preset::Gentle.limits(), ..request(Some(Method::Replica)) };
        let total = ask(&primary.url(), &slow).total;
        done.store(true, Ordering::Relaxed);
        let grown = total.keys - before.min(total.keys);
        assert!(grown > 1_000, "it grew by {grown} keys only");
        let off = total.stale_keys.expect("stale keys").abs_diff(3_000);
        assert!(off < grown / 5, "{off} stale keys too many or too few, of {grown} that were set: {total:?}");
        assert!(total.share_low < total.share && total.share < total.share_high, "{total:?}");
    });
}

#[rstest]
fn a_sample_on_a_primary_is_near_the_truth_and_reclaims_only_its_own_keys(
    #[values(Flavor::Redis62, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().value_bytes(200).live(32_000).stale(8_000).load(&server);
    let found = ask(&server.url(), &request(None));
    let total = &found.total;
    assert_eq!((total.method, total.keys), (Some(Method::Sample), loaded.live + loaded.stale), "{found:?}");
    assert!(is_near(total, 0.2), "{total:?}");
    assert!((1..2_000).contains(&total.reclaimed), "a sample is at most a twentieth of the keys: {total:?}");
    assert_eq!(server.held(), loaded.live + loaded.stale - total.reclaimed);
    let (bytes, low, high) = (total.bytes.expect("bytes"), total.bytes_low, total.bytes_high);
    assert!(low < Some(bytes) && high > Some(bytes) && (1_000_000..4_500_000).contains(&bytes), "{total:?}");
}

#[test]
fn a_count_that_is_too_large_for_the_keys_is_lowered_and_still_says_something() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(24_000).stale(6_000).load(&server);
    let found = ask(&server.url(), &EstimateRequest { count: 1_000, ..request(None) });
    assert!(is_near(&found.total, 0.2) && found.total.reclaimed < 1_500, "{found:?}");
    let note = &found.primaries[0].notes[0];
    assert!(note.contains("150 keys instead of 1000") && note.contains("lower the count"), "{note}");
}

#[test]
fn a_hot_slot_of_a_cluster_has_its_weight_in_a_sample() {
    let cluster = Cluster::start(Flavor::Redis82, 1, false);
    let hot = DataSet::new().prefix("{hot}:").live(12_000).stale(12_000);
    (0..60).fold(hot, |set, tag| set.prefix(&format!("{{{tag}}}:")).live(200)).load(cluster.node(0));
    let found = ask(&cluster.url(), &request(Some(Method::Sample)));
    assert!(is_near(&found.total, 1.0 / 3.0), "{found:?}");
    assert_eq!(cluster.node(0).held(), 36_000 - found.total.reclaimed);
}

#[test]
fn slots_are_counted_on_a_replica_of_a_cluster_with_their_bytes() {
    let cluster = Cluster::start(Flavor::Valkey91, 1, true);
    let (live, stale) = cluster.load(3_000, 1_000);
    eventually("the replica has the keys", Duration::from_secs(20), || {
        (cluster.node(1).held() == live + stale).then_some(())
    });
    let found = ask(&cluster.url(), &request(Some(Method::Slots)));
    assert_eq!((found.total.method, found.total.reclaimed), (Some(Method::Slots), 0));
    assert!((found.total.share.expect("a share") - 0.25).abs() < 0.02, "each slot holds a quarter: {found:?}");
    assert!(found.total.bytes.is_some_and(|bytes| (40_000..200_000).contains(&bytes)), "{found:?}");
    assert_eq!((cluster.node(0).held(), cluster.node(1).held()), (live + stale, live + stale));
}

#[test]
fn a_small_server_is_not_sampled_and_its_own_average_is_unknown_at_zero() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(500).stale(500).load(&server);
    let sampled = ask(&server.url(), &request(None));
    assert_eq!((sampled.total.share, sampled.total.reclaimed), (None, 0));
    assert!(sampled.primaries[0].notes[0].contains("too small to matter"), "{sampled:?}");
    let hint = ask(&server.url(), &EstimateRequest { no_reclaim: true, ..request(None) });
    assert_eq!((hint.total.method, hint.total.share, hint.total.keys), (Some(Method::Info), None, 1_000));
    assert_eq!(server.held(), 1_000);
}

#[test]
fn a_method_that_is_not_possible_is_refused_with_its_remedy() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(21_000).load(&server);
    for (method, part) in [(Method::Replica, "attach a replica"), (Method::Slots, "attach a replica")] {
        let failure = try_ask(&server.url(), &request(Some(method))).expect_err("there is no replica");
        assert!(failure.kind == FailureKind::Unsupported && failure.message.contains(part), "{failure:?}");
    }
    let mut connection = server.connection();
    redis::cmd("CONFIG").arg(&["SET", "rdb-key-save-delay", "2000"]).exec(&mut connection).expect("a slow save");
    redis::cmd("BGSAVE").exec(&mut connection).expect("a save");
    let failure = try_ask(&server.url(), &request(Some(Method::Sample))).expect_err("a save runs");
    assert!(failure.kind == FailureKind::Refused && failure.message.contains("background save"), "{failure:?}");
    let hint = ask(&server.url(), &request(None));
    assert_eq!(hint.total.method, Some(Method::Info));
    assert!(hint.primaries[0].notes[0].contains("background save"), "{hint:?}");
}

#[rstest]
fn an_rdb_file_is_counted_exactly(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    let kinds = Kind::ALL.into_iter().fold(DataSet::new(), |set, kind| {
        // Small and large collections have different encodings.
        let set = set.kind(kind).elements(3).value_bytes(30).live(20).stale(10);
        set.elements(600).value_bytes(80).live(3).stale(2).database(0)
    });
    let loaded = kinds.database(3).kind(Kind::String).live(70).stale(30).load(&server);
    let mut connection = server.connection();
    if matches!(flavor, Flavor::Redis82 | Flavor::Valkey91) {
        for key in ["fields", "many-fields"] {
            let fields = if key == "fields" { 3 } else { 700 };
            for field in 0..fields {
                redis::cmd("HSET").arg(key).arg(field).arg("value").exec(&mut connection).expect("a field");
            }
            let expire = redis::cmd("HEXPIRE").arg(&[key, "1000", "FIELDS", "1", "1"]).exec(&mut connection);
            expire.expect("a field can have a TTL");
        }
    }
    let groups: redis::RedisResult<()> = redis::cmd("XGROUP")
        .arg(&["CREATE", "stream-with-group", "group", "0", "MKSTREAM"])
        .query(&mut connection)
        .and_then(|()| {
            redis::cmd("XADD").arg(&["stream-with-group", "1-1", "field", "value"]).query::<String>(&mut connection)
        })
        .and_then(|_| {
            let read = ["GROUP", "group", "consumer", "COUNT", "1", "STREAMS", "stream-with-group", ">"];
            redis::cmd("XREADGROUP").arg(&read).exec(&mut connection)
        });
    groups.expect("a consumer with a pending entry");
    // The time of a file has whole seconds: keys that have just expired are stale only from the next second on.
    let mut milliseconds = || {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut connection).expect("a time");
        seconds * 1_000 + micros / 1_000
    };
    let loaded_at = milliseconds();
    eventually("the next second", Duration::from_secs(5), || (milliseconds() > loaded_at + 1_050).then_some(()));
    let held = server.held();
    redis::cmd("SAVE").exec(&mut connection).expect("a save");
    let directory: Vec<String> = redis::cmd("CONFIG").arg(&["GET", "dir"]).query(&mut connection).expect("a folder");
    let file = File::open(format!("{}/dump.rdb", directory[1])).expect("a file");

    let found = estimate_rdb(BufReader::new(file), "dump.rdb", 0).expect("an estimate");

    assert_eq!((found.total.method, found.total.keys), (Some(Method::Rdb), held), "{found:?}");
    assert_eq!(found.total.stale_keys, Some(loaded.stale), "{found:?}");
    let third = &found.primaries[0].databases[1];
    assert_eq!((third.database, third.finding.keys, third.finding.stale_keys), (3, 100, Some(30)));
    assert!(found.primaries[0].notes[0].contains(flavor.version()), "{found:?}");
    assert!(found.total.bytes.is_some_and(|bytes| bytes > 30 * 60), "{found:?}");
}

#[test]
fn a_replica_without_a_link_to_its_primary_is_no_source() {
    let primary = Server::start(Flavor::Redis70);
    DataSet::new().live(100).stale(200).load(&primary);
    let replica = primary.replica();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(free_port()).exec(&mut replica.connection()).expect("a replica");
    // Keys that are deleted now stay on the replica.
    let hint = ask(&primary.url(), &EstimateRequest { no_reclaim: true, ..request(None) });
    assert_eq!(hint.total.method, Some(Method::Info));

    let failure = try_ask(&replica.url(), &request(None)).expect_err("no estimate");

    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("without a link to its primary"), "{failure}");
}
