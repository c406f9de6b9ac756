//! Adaptive auto-scans of a real service: what its scans measure, and the mean stale share that they keep.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use keysweep_harness::{DataSet, Flavor, Server, Service, installation};
use rstest::rstest;
use serde_json::Value;

fn path(project: &str, instance: &str) -> String {
    format!("/api/v1/projects/{project}/instances/{instance}/auto-scan")
}

fn set(service: &Service, path: &str, body: &str) -> Value {
    let changed = service.send("PATCH", path, &[("content-type", "application/json")], body);
    assert_eq!(changed.status, 200, "{changed:?}");
    changed.body
}

#[test]
fn an_adaptive_auto_scan_starts_at_once_and_shows_what_its_scan_has_measured() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(3_000).stale(1_000).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    let path = path(&project, &instance);
    let set = set(&service, &path, r#"{"enable_auto_scan": true, "below": 0.05}"#);
    assert_eq!((set["below"].as_f64(), set["adaptive"]["state"].as_str()), (Some(0.05), Some("measuring")), "{set:#}");
    assert!(set["next_scan_at"].is_string() && set["adaptive"]["expected_share"].is_null(), "{set:#}");

    let shown = service.wait_for(&path, |config| config["adaptive"]["state"] == "holding");
    let adaptive = &shown["adaptive"];
    assert_eq!(adaptive["found_share"].as_f64(), Some(0.25), "{shown:#}");
    // No key of this data set expires for a day.
    assert_eq!((adaptive["expiry_rate"].as_f64(), adaptive["interval"].as_f64()), (Some(0.0), Some(86_400.0)));
    assert!(adaptive["scan_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{shown:#}");
    assert_eq!(service.histories(&project, &instance)["records"][0]["scan_type"], "auto");
}

/// Keys of the data set under churn, and the target.
const KEYS: u64 = 150_000;
const TARGET: f64 = 0.05;

/// Sets keys whose TTL is `KEYS / rate` at an even rate until `done`. As many expire.
fn churn(server: &Server, rate: u64, begun: Instant, done: &AtomicBool) {
    let (mut connection, ttl) = (server.connection(), KEYS * 1_000 / rate);
    // Keys whose TTLs end one after the other, as if the churn had gone on for long.
    for numbers in (0..KEYS).collect::<Vec<_>>().chunks(5_000) {
        let mut pipeline = redis::pipe();
        for number in numbers {
            let elapsed = begun.elapsed().as_millis() as u64;
            let left = (number * 1_000 / rate).saturating_sub(elapsed).max(1);
            pipeline.cmd("SET").arg(format!("old:{number}")).arg("value").arg("PX").arg(left).ignore();
        }
        pipeline.exec(&mut connection).expect("keys can be set");
    }
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        let end = due.min(number + 2_000);
        if end > number {
            let mut pipeline = redis::pipe();
            for number in number..end {
                pipeline.cmd("SET").arg(format!("new:{number}")).arg("value").arg("PX").arg(ttl).ignore();
            }
            pipeline.exec(&mut connection).expect("keys can be set");
        }
        number = end;
        thread::sleep(Duration::from_millis(10));
    }
}

/// T = 2·0.05·150,000/750 = 20 s: six scans in two minutes.
#[rstest]
#[ignore = "for make soak: three minutes"]
fn alone_soak_an_adaptive_auto_scan_keeps_the_mean_stale_share(
    #[values(Flavor::Valkey91, Flavor::Redis82)] flavor: Flavor,
) {
    let rate = 750;
    let server = Server::start(flavor);
    let installation = installation!();
    let (project, instance) = installation.register_with(&server.url(), &["--pace", "fast"]);
    let service = installation.serve(&["--no-auth"]);
    let path = path(&project, &instance);
    let (begun, done) = (Instant::now(), AtomicBool::new(false));
    let mean = thread::scope(|scope| {
        scope.spawn(|| churn(&server, rate, begun, &done));
        let mut connection = server.connection();
        let mut share = || {
            let held: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
            held.saturating_sub(KEYS) as f64 / held as f64
        };
        thread::sleep(Duration::from_secs(8));
        set(&service, &path, r#"{"enable_auto_scan": true, "below": 0.05, "scan_keys_count": 100000}"#);
        // The first scans measure.
        thread::sleep(Duration::from_secs(50));
        let (measured, mut sum, mut count) = (Instant::now(), 0.0, 0);
        while measured.elapsed() < Duration::from_secs(120) {
            (sum, count) = (sum + share(), count + 1);
            thread::sleep(Duration::from_millis(100));
        }
        done.store(true, Ordering::Relaxed);
        sum / f64::from(count)
    });
    let shown = service.get(&path);
    let scans = service.histories(&project, &instance)["count"].as_u64();
    println!("{flavor:?} {}: a mean of {mean:.4} with {scans:?} scans, {shown:#}", flavor.version());
    assert_eq!(shown["adaptive"]["state"], "holding", "{shown:#}");
    assert!((mean / TARGET - 1.0).abs() < 0.25, "a mean of {mean} is not within a quarter of {TARGET}: {shown:#}");
}
