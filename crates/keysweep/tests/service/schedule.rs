//! The schedule and the maintenance window through the real binary.

use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use keysweep::{model::AutoScan, store::Store};
use keysweep_harness::{
    DataSet, Fault, Flavor, Installation, Proxy, ScanTask, Server, Service, Stalls, eventually, id, installation,
};

/// Returns a window that opens in two hours, in UTC.
fn closed_now() -> String {
    let hour = |hours: i64| (Timestamp::now() + hours.hours()).strftime("%H:%M").to_string();
    format!("{}-{} UTC", hour(2), hour(4))
}

#[test]
fn a_scheduled_task_is_created_within_a_second_of_its_due_time_and_scans() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(300).stale(200).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    // On a whole second, as clients send it, and late enough to be saved before it is due.
    let due = Timestamp::from_second(Timestamp::now().as_second() + 5).expect("a time");
    let settings = AutoScan {
        instance_id: instance.clone(),
        enabled: true,
        first_scan_at: Some(due),
        first_scan_text: None,
        interval: Duration::from_secs(3_600),
        timeout: Duration::from_secs(600),
        scan_keys_count: 1_000,
        target: None,
        gathering: None,
        updated_at: Timestamp::now(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open_sqlite(&installation.database()).await.expect("a store");
        store.set_auto_scan(None, &settings).await.expect("set");
        store.close().await;
    });
    let stalls = Stalls::watch();
    let histories = service.wait_for_histories(&project, &instance, |page| {
        page["records"][0]["status"].as_str().is_some_and(|status| status == "success")
    });
    let stalled = stalls.end().as_secs_f64();
    let record = &histories["records"][0];
    assert_eq!(
        (record["scan_type"].as_str(), record["num"].as_u64()),
        (Some("auto"), Some(loaded.stale)),
        "{record:#}"
    );
    let created: Timestamp = record["created_at"].as_str().expect("a time").parse().expect("a time");
    let late = created.duration_since(due).as_secs_f64();
    assert!((0.0..1.0 + stalled).contains(&late), "{late} s late, of which the machine stalled {stalled} s");
    assert_eq!(histories["count"], 1);
}

#[test]
fn a_manual_scan_waits_for_the_window_only_where_that_binds_manual_scans() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(10).stale(10).load(&server);
    let installation = installation!();
    let (project, bound) =
        installation.register_with(&server.url(), &["--window", &closed_now(), "--window-binds-manual"]);
    let add = ["instance", "add", "free", &server.url(), "--project", &project, "--window", &closed_now()];
    let free = id(&installation.admin(&add));
    let service = installation.serve(&["--no-auth"]);
    for instance in [&bound, &free] {
        service.scan(&project, instance);
    }
    // The second task succeeds while the first one, which was created earlier, still waits.
    service.wait_for_histories(&project, &free, |page| page["records"][0]["status"] == "success");
    assert_eq!(service.histories(&project, &bound)["records"][0]["status"], "waiting");
}

#[test]
fn a_running_scan_pauses_when_its_window_closes_and_resumes_when_it_opens() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(20_000).stale(5_000).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    // 4,000 keys a second: a few seconds long.
    let settings = AutoScan {
        instance_id: instance.clone(),
        enabled: true,
        first_scan_at: Some(Timestamp::from_second(Timestamp::now().as_second() + 1).expect("a time")),
        first_scan_text: None,
        interval: Duration::from_secs(3_600),
        timeout: Duration::from_secs(600),
        scan_keys_count: 20,
        target: None,
        gathering: None,
        updated_at: Timestamp::now(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = runtime.block_on(Store::open_sqlite(&installation.database())).expect("a store");
    runtime.block_on(store.set_auto_scan(None, &settings)).expect("set");
    let histories = service.wait_for_histories(&project, &instance, |page| {
        page["records"][0]["num"].as_u64().is_some_and(|reclaimed| reclaimed > 100)
    });
    let task = ScanTask::new(&project, &id(&histories["records"][0]));

    let own = format!("/api/v1/projects/{project}/instances/{instance}");
    let set_window = |window: &str| {
        let body = serde_json::json!({ "window": window }).to_string();
        let changed = service.send("PATCH", &own, &[("content-type", "application/json")], body);
        assert_eq!(changed.status, 200, "{changed:?}");
    };
    set_window(&closed_now());
    // The API shows the task as running, because it resumes by itself; the lease shows that no worker has it.
    let lease = || {
        let held = "SELECT owner IS NULL, epoch, scanned FROM lease JOIN task ON task.id = lease.task_id";
        let mut database = runtime.block_on(raw(&installation));
        runtime.block_on(sqlx::query_as::<_, (bool, i64, i64)>(held).fetch_one(&mut database)).expect("a lease")
    };
    let (_, epoch, scanned) =
        eventually("the scan pauses", Duration::from_secs(20), || Some(lease()).filter(|(is_free, ..)| *is_free));
    assert!((1..25_000).contains(&scanned), "the scan paused half-way: {scanned}");
    let paused = service.task(&task);
    assert_eq!((paused["status"].as_str(), epoch), (Some("running"), 1), "{paused:#}");
    let held: u64 = redis::cmd("DBSIZE").query(&mut server.connection()).expect("a size");
    // Longer than two claim intervals of the worker.
    let begun = Instant::now();
    eventually("it stays so", Duration::from_secs(5), || {
        (begun.elapsed() > Duration::from_millis(2_500)).then_some(())
    });
    assert_eq!(lease(), (true, 1, scanned));
    assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut server.connection()).expect("a size"), held);

    set_window("");
    let ended = service.wait_until_finished(&task);
    assert_eq!(ended["status"], "success", "{ended:#}");
    assert_eq!(
        (ended["keys_reclaimed"].as_u64(), ended["exact"].as_bool()),
        (Some(loaded.stale), Some(true)),
        "{ended:#}"
    );
    assert_eq!(ended["started_at"], paused["started_at"]);
    let epoch = lease().1;
    assert_eq!(epoch, 2, "the scan paused once and resumed once");
}

/// Opens the database, for what the API does not show.
async fn raw(installation: &Installation) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(installation.database());
    sqlx::ConnectOptions::connect(&options).await.expect("a connection")
}

#[test]
fn an_invalid_window_is_refused_with_the_remedy() {
    let installation = installation!();
    let project = id(&installation.admin(&["project", "add", "test"]));
    let add = ["admin", "instance", "add", "cache", "redis://cache.example:6379", "--project", &project];
    let output = installation.run(&[&add[..], &["--window", "2 to 5"]].concat());
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("maintenance window \"2 to 5\"") && message.contains("Europe/Paris"), "{message}");
}

#[test]
fn one_host_runs_one_scan_at_a_time_unless_the_limit_is_higher() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(10).load(&server);
    let proxy = Proxy::before(&server);
    let installation = installation!();
    let (project, first) = installation.register(&proxy.url());
    let add = ["instance", "add", "neighbour", &proxy.url(), "--project", &project];
    let second = id(&installation.admin(&add));
    // This cluster names the same host, and cannot be reached. Hosts that a URL merely names do not count.
    let third = installation.register_another(&project, "cluster", "redis-cluster://127.0.0.1:1,127.0.0.2:1", &[]);
    // A server that accepts connections and answers slowly keeps a scan running for as long as this test needs.
    proxy.set(Fault::Drip);
    let status =
        |service: &Service, instance: &str| service.histories(&project, instance)["records"][0]["status"].clone();
    let running = |service: &Service, instance: &str| status(service, instance) == "running";
    let service = installation.serve(&["--no-auth"]);
    for instance in [&first, &second, &third] {
        service.scan(&project, instance);
    }
    eventually("the first is scanned", Duration::from_secs(10), || running(&service, &first).then_some(()));
    eventually("the cluster is tried", Duration::from_secs(10), || {
        (status(&service, &third) == "failed").then_some(())
    });
    assert_eq!((status(&service, &first), status(&service, &second)), ("running".into(), "waiting".into()));
    service.terminate();
    let service = installation.serve(&["--no-auth", "--host-concurrency", "2"]);
    eventually("both are scanned", Duration::from_secs(20), || {
        (running(&service, &first) && running(&service, &second)).then_some(())
    });
}
