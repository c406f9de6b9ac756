//! The service holds stale shares: a worker under a lease writes, the next one adopts, and restoring brings back the servers' own
//! settings.

use std::time::Duration;

use keysweep_harness::{Churn, Flavor, Server, Service, eventually, installation};
use serde_json::{Value, json};

/// Longest time until something happens that takes seconds on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(100);
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn effort(server: &Server) -> String {
    let pair: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("active-expire-effort").query(&mut server.connection()).expect("a value");
    pair[1].clone()
}

fn set(service: &Service, path: &str, policy: &Value) -> Value {
    let answer = service.send("PUT", path, JSON, policy.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[test]
fn heavy_an_instance_is_held_by_one_worker_after_the_other_and_restored_on_request() {
    let server = Server::start(Flavor::Valkey91);
    let own = effort(&server);
    let _churn = Churn::start(&server, 1_500, Duration::from_secs(8));
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let (path, audit) =
        (format!("/api/v1/projects/{project}/instances/{instance}/hold"), format!("/api/v1/projects/{project}/audit"));
    let service = installation.serve(&["--no-auth"]);
    assert_eq!((service.get(&path)["level"].as_str(), effort(&server)), (Some("observe"), own.clone()));
    let wrong = service.send("PUT", &path, JSON, r#"{"level":"hold","below":8}"#);
    assert_eq!(wrong.status, 400);
    assert!(wrong.body["error"]["message"].as_str().is_some_and(|text| text.contains("invalid below 8")), "{wrong:?}");

    // Wide limits: on a busy machine cycles take longer, and the server would get its own settings back.
    let policy = json!({
        "level": "hold", "below": 0.05, "interval_seconds": 1, "settle_floor_seconds": 1,
        "max_added_stall_ms": 10, "max_added_cpu": 0.2,
    });
    set(&service, &path, &policy);
    eventually("the effort is raised", TIMEOUT, || (effort(&server) != own).then_some(()));
    let held = service
        .wait_for(&path, |hold| hold["servers"][0]["setting"]["effort"] != hold["servers"][0]["baseline"]["effort"]);
    assert_eq!(
        (held["changed"].as_bool(), held["servers"][0]["baseline"]["effort"].as_u64()),
        (Some(true), own.parse().ok())
    );
    let file = std::fs::read_to_string(installation.folder().join("restore.json")).expect("the record");
    assert!(file.contains(&server.address().to_string()), "{file}");
    // The worker dies: what it wrote stays, and the next one adopts it once the lease has expired.
    service.kill();
    let raised = effort(&server);
    assert_ne!(raised, own);
    let service = installation.serve(&["--no-auth"]);
    let adopted = service.wait_for(&path, |hold| hold["reported_at"] != held["reported_at"]);
    let found = &adopted["servers"][0];
    let efforts = [&found["setting"]["effort"], &found["baseline"]["effort"]].map(Value::to_string);
    assert_eq!(efforts, [raised.clone(), own.clone()], "{adopted:#}");
    assert!(found["state"] != "foreign" && effort(&server) == raised, "{adopted:#}");
    let restored = service.send("POST", &format!("{path}/restore"), JSON, "");
    assert_eq!((restored.status, restored.body["level"].as_str()), (200, Some("observe")), "{restored:?}");
    eventually("the server has its own settings", TIMEOUT, || (effort(&server) == own).then_some(()));
    let done = service.wait_for(&path, |hold| hold["changed"] == false);
    assert_eq!(done["servers"][0]["state"], "off", "{done:#}");
    let entries = service.get(&audit).to_string();
    for action in ["hold.set", "hold.write", "hold.restore"] {
        assert!(entries.contains(action), "{action} is not in {entries}");
    }
    assert!(entries.contains("keys expire a second"), "a write has its reason: {entries}");
}
