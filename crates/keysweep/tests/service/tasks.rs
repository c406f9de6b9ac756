//! Tasks through the real binary: created over HTTP, carried out by its worker, through restarts and crashes.

use std::{collections::HashSet, fmt, time::Duration};

use keysweep_harness::{DataSet, Flavor, ScanTask, Server, eventually, free_port, id, installation};
use rstest::rstest;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Executor};

fn has_finished(task: &Value) -> bool {
    matches!(task["status"].as_str(), Some("success" | "failed"))
}

fn size(server: &Server) -> u64 {
    redis::cmd("DBSIZE").query(&mut server.connection()).expect("a size")
}

#[rstest]
fn a_created_task_scans_the_instance_and_its_record_has_the_numbers(
    #[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor,
    #[values("scan-expire-keys-task", "auto-expire/scan")] operation: &str,
) {
    let server = Server::with(flavor).password("p@ss word").start();
    let loaded = DataSet::new().live(3_000).stale(2_000).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);

    let created = service.request("POST", &format!("/v2/{project}/instances/{instance}/{operation}"));
    assert_eq!((created.status, &created.body["status"]), (200, &"waiting".into()));
    assert!(created.header("x-request-id").is_some_and(|id| id.len() == 32));
    assert!(created.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    assert!(created.body.get("started_at").is_none(), "left out until it exists: {}", created.body);

    let task = service.wait_until_finished(&ScanTask::new(&project, &id(&created.body)));
    assert_eq!((&task["status"], &task["exact"]), (&"success".into(), &true.into()), "{task:#}");
    assert_eq!(task["keys_reclaimed"], loaded.stale);
    assert_eq!(task["report"]["shards"][0]["address"], server.address().to_string());
    let left = &task["report"]["remaining"];
    assert_eq!((left["stale_keys"].as_u64(), left["expired_per_second"].as_f64()), (Some(0), Some(0.0)), "{task:#}");
    assert_eq!(task["progress"]["fraction"], 1.0);
    assert_eq!(size(&server), loaded.live);
    let histories = service.histories(&project, &instance);
    assert_eq!((histories["count"].as_u64(), histories["total"].as_u64()), (Some(1), Some(loaded.stale)));
    let record = &histories["records"][0];
    assert_eq!((&record["id"], record["num"].as_u64()), (&created.body["id"], Some(loaded.stale)));
}

#[test]
fn the_history_retention_limits_the_records_of_an_instance() {
    let installation = installation!();
    let server = Server::start(Flavor::Valkey91);
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth", "--history-retention", "2"]);
    for _ in 0..4 {
        service.wait_until_finished(&service.scan(&project, &instance));
    }
    let histories = service.histories(&project, &instance);
    assert_eq!(histories["records"].as_array().map(Vec::len), Some(2), "{histories:#}");
}

#[test]
fn a_second_create_is_answered_with_the_active_task() {
    let mut server = Server::start(Flavor::Valkey91);
    DataSet::new().live(1_000).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    // An unresponsive server keeps the task active for as long as this test needs.
    server.pause();
    let service = installation.serve(&["--no-auth"]);
    let first = service.scan(&project, &instance);
    assert_eq!(service.scan(&project, &instance), first);
    server.resume();
    service.wait_until_finished(&first);
    assert_ne!(service.scan(&project, &instance), first, "a finished task does not block the next one");
}

#[test]
fn a_task_for_an_unreachable_server_fails_with_the_reason() {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let task = service.wait_until_finished(&service.scan(&project, &instance));
    assert_eq!((&task["status"], &task["reason"]["code"]), (&"failed".into(), &"unreachable".into()));
    assert!(task["reason"]["message"].as_str().is_some_and(|message| message.contains("refused")), "{task:#}");
    let record = service.histories(&project, &instance)["records"][0].clone();
    assert_eq!((&record["status"], &record["num"]), (&"failed".into(), &0.into()));
}

/// Loads keys so that a scan takes some seconds at any pace. Returns the number of live ones.
fn load_for_seconds(server: &Server) -> u64 {
    server.watch_expired_keys();
    DataSet::new().live(80_000).stale(40_000).load(server).live
}

fn is_under_way(task: &Value) -> bool {
    assert!(!has_finished(task), "the scan finished before it could be interrupted");
    task["progress"]["fraction"].as_f64().is_some_and(|fraction| fraction > 0.05)
}

/// A worker that was claiming tasks when the signal came released each at once, claimed it again, and did not end.
#[test]
fn sigterm_ends_the_service_although_many_tasks_wait() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(500).load(&server);
    let installation = installation!();
    let (project, first) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    let another = |number: u32| {
        let body = json!({ "name": format!("cache{number}"), "url": server.url() }).to_string();
        let created = service.send("POST", &format!("/api/v1/projects/{project}/instances"), &[], body);
        assert_eq!(created.status, 201, "{created:?}");
        id(&created.body)
    };
    let instances: Vec<String> = (0..60).map(another).chain([first]).collect();
    for instance in &instances {
        assert_eq!(service.create_scan(&project, instance).status, 200);
    }
    let (code, log) = service.terminate();
    assert_eq!(code, Some(0), "{log:#?}");
}

#[test]
fn heavy_sigterm_releases_the_lease_and_a_restart_resumes_from_the_checkpoint() {
    let server = Server::start(Flavor::Valkey91);
    let live = load_for_seconds(&server);
    let installation = installation!();
    let (project, instance) = installation.register_with(&server.url(), &["--pace", "gentle"]);
    let service = installation.serve(&["--no-auth"]);
    let scan = service.scan(&project, &instance);
    let before = service.wait_for_task(&scan, is_under_way);
    let (code, log) = service.terminate();
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("lease released")), "{log:#?}");
    assert!(size(&server) > live, "it was interrupted");

    let service = installation.serve(&["--no-auth"]);
    let task = eventually("the task resumes and finishes", Duration::from_secs(120), || {
        Some(service.task(&scan)).filter(has_finished)
    });
    assert_eq!((&task["status"], &task["exact"], &task["attempts"]), (&"success".into(), &true.into(), &0.into()));
    assert_eq!(task["keys_reclaimed"], 40_000);
    assert_eq!(task["started_at"], before["started_at"], "the task was started once");
    assert_eq!(size(&server), live);
    let scanned = task["keys_scanned"].as_u64().expect("a number");
    assert!(scanned < 125_000, "{scanned} keys scanned: some were scanned twice");
    let history = service.histories(&project, &instance);
    assert_eq!((history["count"].as_u64(), history["records"][0]["num"].as_u64()), (Some(1), Some(40_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_a_long_outage_of_the_database_costs_a_task_neither_an_attempt_nor_its_exact_count() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(10_000).stale(200_000).load(&server);
    // The scan takes twenty seconds.
    server.watch_expired_keys();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    let scan = service.scan(&project, &instance);
    service.wait_for_task(&scan, is_under_way);

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(installation.database());
    let mut other = options.connect().await.expect("a connection");
    other.execute("BEGIN IMMEDIATE").await.expect("held");
    let name = format!("keysweep:{}", scan.id);
    eventually("the scan stops, since its lease may expire", Duration::from_secs(60), || {
        let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.connection()).expect("a list");
        (!clients.contains(&name)).then_some(())
    });
    other.execute("ROLLBACK").await.expect("released");

    let task = eventually("the task resumes and finishes", Duration::from_secs(180), || {
        Some(service.task(&scan)).filter(has_finished)
    });
    assert_eq!((&task["status"], &task["exact"], &task["attempts"]), (&"success".into(), &true.into(), &0.into()));
    assert_eq!(task["keys_reclaimed"], 200_000);
}

#[test]
fn heavy_after_a_crash_another_process_takes_over_the_task() {
    let server = Server::start(Flavor::Redis70);
    let live = load_for_seconds(&server);
    let installation = installation!();
    let (project, instance) = installation.register_with(&server.url(), &["--pace", "gentle", "--manage-lazyfree"]);
    let service = installation.serve(&["--no-auth"]);
    let scan = service.scan(&project, &instance);
    service.wait_for_task(&scan, is_under_way);
    service.kill();
    assert!(size(&server) > live, "it was interrupted");
    assert_eq!(lazyfree(&server), "yes", "the crashed worker left it turned on");

    let service = installation.serve(&["--no-auth"]);
    assert_eq!(service.task(&scan)["status"], "running", "started once, a task stays running");
    // The crashed worker's lease has to expire first: 15 s.
    let task = eventually("the task is taken over and finishes", Duration::from_secs(180), || {
        Some(service.task(&scan)).filter(has_finished)
    });
    assert_eq!((&task["status"], &task["exact"]), (&"success".into(), &false.into()));
    assert_eq!(size(&server), live, "no stale key is left");
    assert_eq!(lazyfree(&server), "no", "the next worker restored it");
    assert!(task["keys_reclaimed"].as_u64().is_some_and(|keys| keys <= 40_000), "every counted key was reclaimed");
}

fn lazyfree(server: &Server) -> String {
    let mut connection = server.connection();
    let pair: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("lazyfree-lazy-expire").query(&mut connection).expect("CONFIG");
    pair[1].clone()
}

/// A JSON document whose objects have no key twice; ordinary readers silently keep one of the two.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(document: D) -> Result<Self, D::Error> {
        document.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, Self)) = map.next_entry::<String, Self>()? {
            if keys.contains(&key) {
                return Err(serde::de::Error::custom(format!("{key:?} is a duplicate key")));
            }
            keys.insert(key);
        }
        Ok(self)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<UniqueKeys>()?.is_some() {}
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
}

#[test]
fn every_line_of_the_log_is_a_json_object_without_duplicate_keys() {
    serde_json::from_str::<UniqueKeys>(r#"{"a":{"b":1,"b":2}}"#).map(drop).expect_err("this test can fail");
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(100).stale(50).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register_with(&server.url(), &["--manage-lazyfree"]);
    let service = installation.serve(&["--no-auth"]);
    service.wait_until_finished(&service.scan(&project, &instance));
    let (_, log) = service.terminate();
    for words in ["scan started", "scan finished", "stopped"] {
        assert!(log.iter().any(|line| line.contains(words)), "{words:?} is not in {log:#?}");
    }
    for line in &log {
        serde_json::from_str::<UniqueKeys>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn health_and_readiness_are_reported() {
    let installation = installation!();
    let service = installation.serve(&["--no-auth"]);
    assert_eq!(service.get("/healthz")["status"], "ok");
    assert_eq!(service.get("/readyz")["status"], "ready");
}

#[test]
fn the_primary_of_a_replica_must_be_an_allowed_target_as_well() {
    let primary = Server::start(Flavor::Valkey91);
    let replica = primary.replica();
    let installation = installation!();
    let (project, instance) = installation.register(&replica.url());
    let allowed = format!("127.0.0.0/8:{}", replica.port());
    let service = installation.serve(&["--no-auth", "--allowed-targets", &allowed]);
    let ended = service.wait_until_finished(&service.scan(&project, &instance));
    assert_eq!(ended["reason"]["code"], "refused", "{ended:#}");
    let message = ended["reason"]["message"].as_str().expect("a sentence");
    assert!(message.contains(&primary.port().to_string()) && message.contains("allowed_targets"), "{message}");
}
