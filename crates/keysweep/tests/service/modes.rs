//! Instances of every mode, registered and scanned as operators do it.

use std::{fs, time::Duration};

use keysweep_harness::{Authority, Cluster, DataSet, Flavor, Installation, Server, eventually};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");

fn has_finished(task: &Value) -> bool {
    task["status"] == "success" || task["status"] == "failed"
}

/// Registers an instance, creates a task through the API and returns the finished task.
fn scan(url: &str, options: &[&str]) -> Value {
    let installation = Installation::new(BINARY);
    let (project, instance) = installation.register_with(url, options);
    let service = installation.serve(&["--no-auth"]);
    service.wait_until_finished(&service.scan(&project, &instance))
}

#[test]
fn a_task_scans_all_primaries_of_a_cluster() {
    let mut cluster = Cluster::start(Flavor::Valkey91, 3, false);
    let (live, stale) = cluster.load(500, 300);
    let task = scan(&cluster.url(), &[]);
    assert_eq!((&task["status"], &task["keys_reclaimed"]), (&"success".into(), &stale.into()), "{task:#}");
    assert_eq!(task["report"]["shards"].as_array().map(Vec::len), Some(3), "{task:#}");
    assert_eq!(cluster.held(), live);
}

#[test]
fn a_scan_of_a_cluster_reports_each_primary_in_a_line() {
    let cluster = Cluster::start(Flavor::Valkey91, 2, false);
    let (_, stale) = cluster.load(200, 100);
    let output = Installation::new(BINARY).run(&["scan", &cluster.url()]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains(&format!("{stale}  (exact)")) && text.contains("the busiest primary's"), "{text}");
    for index in 0..2 {
        let address = cluster.node(index).address().to_string();
        let line =
            text.lines().find(|line| line.trim_start().starts_with(&address)).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(" 100 ") && line.contains("done"), "{line}");
    }
}

#[test]
fn a_task_scans_a_primary_behind_sentinels_with_a_password() {
    let primary = Server::with(Flavor::Valkey91).password("data").start();
    let loaded = DataSet::new().live(50).stale(40).load(&primary);
    let sentinel = Server::with(Flavor::Valkey91).sentinel_of("main", &primary, 1).password("watch").start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    fs::write(&file, "watch\n").expect("it can be written");
    let url = format!("redis-sentinel://:data@{}/main", sentinel.address());
    let task = scan(&url, &["--sentinel-password-file", file.to_str().expect("UTF-8")]);
    assert_eq!((&task["status"], &task["keys_reclaimed"]), (&"success".into(), &loaded.stale.into()), "{task:#}");
    assert!(!task.to_string().contains("watch\""), "no password is shown");
}

#[test]
fn a_task_scans_over_tls_with_a_client_certificate() {
    let authority = Authority::new();
    let server = Server::with(Flavor::Redis70).tls(&authority, &authority.issue(&["cache.example"]), true).start();
    let loaded = DataSet::new().live(50).stale(40).load(&server);
    let ours = authority.issue(&["keysweep"]);
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (ca, certificate, key) = (text(&authority.file()), text(&ours.certificate), text(&ours.key));
    let url = format!("rediss://{}", server.tls_address().expect("it speaks TLS"));
    let reach = ["--cacert", &ca, "--cert", &certificate, "--key", &key, "--sni", "cache.example"];
    let task = scan(&url, &reach);
    assert_eq!((&task["status"], &task["keys_reclaimed"]), (&"success".into(), &loaded.stale.into()), "{task:#}");

    let scan = Installation::new(BINARY).run(&[&["scan", &url, "--dry-run"], reach.as_slice()].concat());
    assert!(scan.status.success(), "{}", String::from_utf8_lossy(&scan.stderr));
}

#[test]
fn invalid_connection_options_are_rejected_at_registration() {
    let installation = Installation::new(BINARY);
    installation.admin(&["project", "add", "shop"]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("UTF-8");
    for (url, options, words) in [
        ("redis://h:1", vec!["--cacert", path], "rediss://"),
        ("rediss://h:1", vec!["--cacert", path], "CA certificate"),
        ("redis://h:1", vec!["--sentinel-password-file", path], "redis-sentinel://"),
        ("redis-cluster://h:1", vec!["--address-map", "10.0.0.1"], "announced=dialled"),
    ] {
        let add = ["admin", "instance", "add", "cache", url, "--project", "shop"];
        let output = installation.run(&[add.as_slice(), options.as_slice()].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(words), "{url} {options:?}: {error}");
    }
}

#[test]
fn the_shards_of_a_cluster_are_shown_after_its_first_poll() {
    let cluster = Cluster::start(Flavor::Valkey91, 3, false);
    let installation = Installation::new(BINARY);
    // One node is enough to find all others.
    let seed = format!("redis-cluster://{}", cluster.node(0).address());
    let (project, instance) = installation.register(&seed);
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/v2/{project}/instances/{instance}");
    let shown = service.wait_for(&path, |shown| shown["sharding_count"] == 3);
    assert_eq!((&shown["cache_mode"], &shown["ip"]), (&"cluster".into(), &"127.0.0.1,127.0.0.1,127.0.0.1".into()));
    let mut expected: Vec<String> = (0..3).map(|index| cluster.node(index).address().to_string()).collect();
    let nodes = service.get(&format!("{path}/nodes"));
    let nodes = nodes["redis_server"].as_array().expect("nodes");
    let mut names: Vec<String> =
        nodes.iter().map(|node| node["node_name"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    let groups = service.get(&format!("/v2/{project}/instance/{instance}/groups"));
    assert_eq!(groups["group_count"], 3);
    assert_eq!(
        service.get(&format!("/api/v1/projects/{project}/instances/{instance}"))["stats"]["primaries"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
}

/// A checkpoint is valid for one server process: the new primary is scanned from the start.
#[test]
fn heavy_a_crash_and_a_failover_during_a_scan_of_a_cluster_leave_no_stale_key() {
    let mut cluster = Cluster::start(Flavor::Valkey91, 2, true);
    let (live, stale) = cluster.load(80_000, 60_000);
    cluster.nodes().iter().for_each(Server::watch_expired_keys);
    let installation = Installation::new(BINARY);
    let (project, instance) = installation.register_with(&cluster.url(), &["--pace", "gentle"]);
    let service = installation.serve(&["--no-auth"]);
    let scan = service.scan(&project, &instance);
    service.wait_for_task(&scan, |task| {
        assert!(!has_finished(task), "the scan finished before it could be interrupted: {task:#}");
        task["progress"]["fraction"].as_f64().is_some_and(|fraction| fraction > 0.1)
    });
    service.kill();
    assert!(cluster.held() > live, "it was interrupted");
    redis::cmd("CLUSTER").arg("FAILOVER").exec(&mut cluster.node(2).connection()).expect("the replica takes over");
    eventually("the replica is a primary", Duration::from_secs(30), || {
        cluster.primaries_now().contains(&2).then_some(())
    });

    let service = installation.serve(&["--no-auth"]);
    // The lease of the crashed worker expires after 15 s.
    let task = eventually("the task is taken over and finishes", Duration::from_secs(120), || {
        Some(service.task(&scan)).filter(has_finished)
    });
    assert_eq!((&task["status"], &task["exact"]), (&"success".into(), &false.into()), "{task:#}");
    assert_eq!(cluster.held(), live, "{stale} were stale: {task:#}");
}
