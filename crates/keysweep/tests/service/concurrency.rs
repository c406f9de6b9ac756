//! How many scans one process runs at a time, and in which order tasks are claimed.

use std::time::Duration;

use keysweep_harness::{DataSet, Fault, Flavor, Proxy, Server, eventually, id, installation};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, sqlite::SqliteConnectOptions};

/// Claims as the test's own triggers record them: the instance, and how many leases are held then.
const WITNESS: &str = "
CREATE TABLE witness (seq INTEGER PRIMARY KEY, instance_id TEXT, held INTEGER);
CREATE TRIGGER see_first AFTER INSERT ON lease WHEN NEW.owner IS NOT NULL BEGIN
    INSERT INTO witness (instance_id, held) SELECT NEW.instance_id, COUNT(*) FROM lease WHERE owner IS NOT NULL;
END;
CREATE TRIGGER see_next AFTER UPDATE ON lease WHEN NEW.owner IS NOT NULL AND NEW.epoch <> OLD.epoch BEGIN
    INSERT INTO witness (instance_id, held) SELECT NEW.instance_id, COUNT(*) FROM lease WHERE owner IS NOT NULL;
END;";

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_keeps_its_concurrency_limit_and_a_place_for_each_project() {
    const SCANS: i64 = 3;
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(300).stale(100).load(&server);
    let proxy = Proxy::before(&server);
    let installation = installation!();
    let [greedy, modest] = ["greedy", "modest"].map(|name| id(&installation.admin(&["project", "add", name])));
    let mut instances = Vec::new();
    for (project, count) in [(&greedy, 6), (&modest, 2)] {
        for number in 0..count {
            let name = format!("cache{number}");
            instances.push((project, installation.register_another(project, &name, &proxy.url(), &[])));
        }
    }
    let options = SqliteConnectOptions::new().filename(installation.database());
    let mut database = options.connect().await.expect("a connection");
    database.execute(AssertSqlSafe(WITNESS)).await.expect("triggers");
    // A server that accepts connections and answers slowly keeps scans running for as long as this test needs.
    proxy.set(Fault::Drip);
    let service = installation.serve(&["--no-auth", "--concurrency", "3", "--host-concurrency", "16"]);
    let mut tasks = Vec::new();
    for (project, instance) in &instances {
        tasks.push(service.scan(project, instance));
    }
    let running = || tasks.iter().filter(|task| service.task(task)["status"] == "running").count();
    eventually("as many run as may", Duration::from_secs(20), || (running() == 3).then_some(()));
    // Longer than two claim intervals of the worker.
    let begun = std::time::Instant::now();
    eventually("no more do", Duration::from_secs(20), || {
        assert_eq!(running(), 3);
        (begun.elapsed() > Duration::from_millis(2_500)).then_some(())
    });
    proxy.set(Fault::None);
    for task in &tasks {
        let ended = service.wait_until_finished(task);
        assert_eq!(ended["status"], "success", "{ended:#}");
    }
    let seen: Vec<(String, i64)> = sqlx::query_as("SELECT instance_id, held FROM witness ORDER BY seq")
        .fetch_all(&mut database)
        .await
        .expect("read");
    assert!(seen.iter().all(|(_, held)| *held <= SCANS), "{seen:?}");
    let order: Vec<&str> = seen.iter().map(|(instance, _)| instance.as_str()).collect();
    assert_eq!(order.len(), instances.len(), "each is claimed once: {seen:?}");
    // The third place is kept for the project that runs nothing, although older tasks of the other one wait.
    assert_eq!(order[..3], [&instances[0].1, &instances[1].1, &instances[6].1], "{seen:?}");
}
