//! The service holds stale shares: a worker under a lease writes, the next one adopts, and restoring brings back the servers' own
//! settings.

use std::{net::TcpListener, time::Duration};

use keysweep_harness::{Churn, Flavor, Installation, Postgres, Server, Service, eventually, installation};
use serde_json::{Value, json};

use crate::common::servers::effort;

/// Longest time until something happens that takes seconds on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(100);
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");

/// Wide limits: on a busy machine cycles take longer, and the server would get its own settings back.
fn wide() -> Value {
    json!({
        "level": "hold", "below": 0.05, "interval_seconds": 1, "settle_floor_seconds": 1,
        "max_added_stall_ms": 10, "max_added_cpu": 0.2,
    })
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

    set(&service, &path, &wide());
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
    let adopted = eventually("the next worker has reported", TIMEOUT, || {
        Some(service.get(&path)).filter(|hold| hold["reported_at"] != held["reported_at"])
    });
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

#[test]
fn an_instance_whose_servers_are_not_found_says_why_it_is_not_held_and_counts_as_not_held() {
    let installation = installation!();
    // Nothing listens there, and no test may.
    let port = 1;
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{port}"));
    let path = format!("/api/v1/projects/{project}/instances/{instance}/hold");
    let service = installation.serve(&["--no-auth", "--metrics-listen", "127.0.0.1:0"]);
    set(&service, &path, &wide());
    let found = service.wait_for(&path, |hold| !hold["reported_at"].is_null());
    let failure = found["failure"].as_str().unwrap_or_default();
    assert!(failure.contains(&format!("127.0.0.1:{port}")), "{found:#}");
    assert_eq!(found["servers"], json!([]), "{found:#}");
    let page = service.send("GET", &format!("/console/{project}/instances/{instance}"), &[], "").text;
    assert!(page.contains(&format!("Not all servers are watched: {failure}.")), "{page}");
    assert!(!page.contains("A worker has not reported yet."), "{page}");
    let shown = |state: &str| format!("keysweep_hold_state{{instance_id=\"{instance}\",state=\"{state}\"}} 1");
    eventually("the alert of a missed target sees it", TIMEOUT, || {
        service.scrape().contains(&shown("measuring")).then_some(())
    });
    // More rounds: the same cause is logged once.
    service.wait_for(&path, |hold| hold["reported_at"] != found["reported_at"]);
    let (_, log) = service.terminate();
    let warnings = log.iter().filter(|line| line.contains("not all servers of the instance are watched")).count();
    assert_eq!(warnings, 1, "{log:#?}");
}

/// A typing error in a URL, and a managed service that refuses CONFIG: neither may keep the instance from being corrected or removed.
#[test]
fn an_instance_to_which_nothing_was_written_is_free_again_as_soon_as_it_is_not_held() {
    let refusing = Server::start(Flavor::Valkey91);
    redis::cmd("ACL").arg(&["SETUSER", "default", "-config"]).exec(&mut refusing.connection()).expect("a right less");
    let installation = installation!();
    // Nothing listens there, and no test may.
    let (project, wrong) = installation.register("redis://127.0.0.1:1");
    let managed = installation.register_another(&project, "managed", &refusing.url(), &[]);
    let path = |instance: &str| format!("/api/v1/projects/{project}/instances/{instance}");
    let hold = |instance: &str| format!("{}/hold", path(instance));
    let service = installation.serve(&["--no-auth"]);
    for instance in [&wrong, &managed] {
        set(&service, &hold(instance), &wide());
    }
    let reported = |hold: &Value| !hold["reported_at"].is_null();
    service.wait_for(&hold(&wrong), reported);
    let refused = service.wait_for(&hold(&managed), reported);
    assert!(refused.to_string().contains("grant +config|get"), "{refused:#}");

    service.terminate();
    let service = installation.serve(&["--no-auth"]);
    for instance in [&wrong, &managed] {
        assert_eq!(service.get(&hold(instance))["changed"], false, "a shutdown changes nothing");
        let restored = service.send("POST", &format!("{}/restore", hold(instance)), JSON, "");
        assert_eq!(restored.status, 200, "{restored:?}");
    }
    let spare = Server::start(Flavor::Valkey91);
    service.wait_for(&hold(&wrong), |hold| hold["failure"].is_null());
    for instance in [&wrong, &managed] {
        eventually("its URL can be corrected", TIMEOUT, || {
            let url = json!({"url": spare.url()}).to_string();
            let answer = service.send("PATCH", &path(instance), JSON, url);
            assert!([200, 409].contains(&answer.status), "{answer:?}");
            (answer.status == 200).then_some(())
        });
        let removed = service.request("DELETE", &path(instance));
        assert_eq!(removed.status, 204, "{removed:?}");
    }
}

/// The server does not reply any more, and the service shuts down within the round that waits for it.
#[test]
fn a_shutdown_within_a_round_leaves_a_server_with_its_own_settings_as_one() {
    let mut server = Server::start(Flavor::Valkey91);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let path = format!("/api/v1/projects/{project}/instances/{instance}/hold");
    let service = installation.serve(&["--no-auth"]);
    set(&service, &path, &wide());
    service.wait_for(&path, |hold| !hold["servers"][0]["setting"].is_null());
    server.kill();
    service.wait_for(&path, |hold| !hold["failure"].is_null());
    let silent = TcpListener::bind(("127.0.0.1", server.port())).expect("its port is free");
    silent.set_nonblocking(true).expect("a listener");
    let _waiting = eventually("a round waits for a reply", TIMEOUT, || silent.accept().ok());
    let (status, log) = service.terminate();
    assert_eq!(status, Some(0), "{log:#?}");
    let service = installation.serve(&["--no-auth"]);
    let found = service.get(&path);
    assert_eq!((&found["changed"], &found["failure"]), (&json!(false), &Value::Null), "{found:#}");
}

/// Workers on two hosts share no folder. Two names of one server would each take what the other has written for the server's own.
#[test]
fn heavy_a_server_with_two_names_is_held_by_one_of_two_workers_with_separate_folders() {
    let database = Postgres::start();
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "2").start();
    let own = effort(&server);
    let _churn = Churn::start(&server, 1_500, Duration::from_secs(8));
    let installation = Installation::on_postgres(BINARY, &database);
    let (project, cache) = installation.register(&server.url());
    let other = installation.register_another(&project, "other", &format!("redis://localhost:{}", server.port()), &[]);
    let path = |instance: &str| format!("/api/v1/projects/{project}/instances/{instance}/hold");
    let serve = |name: &str| {
        let folder = installation.folder().join(name);
        installation.serve_with(&["--no-auth"], &[("XDG_DATA_HOME", folder.to_str().expect("UTF-8"))])
    };
    let first = serve("first");
    set(&first, &path(&cache), &wide());
    eventually("the effort is raised", TIMEOUT, || (effort(&server) != own).then_some(()));
    let worker = database.sql("SELECT owner FROM hold");
    // While the first worker claims nothing, the second one gets the other name of the server.
    first.pause();
    let second = serve("second");
    // More than the first one writes: it wants to write at once.
    let mut policy = wide();
    (policy["below"], policy["max_effort"]) = (json!(0.02), json!(10));
    set(&second, &path(&other), &policy);
    let is_claimed = format!("SELECT count(*) FROM hold WHERE instance_id = '{other}' AND owner <> '{worker}'");
    eventually("the second worker holds the other name", TIMEOUT, || (database.sql(&is_claimed) == "1").then_some(()));
    first.resume();
    let files = ["first", "second"].map(|name| installation.folder().join(name).join("keysweep/restore.json"));
    let refused = second.wait_for(&path(&other), |hold| {
        let sentence = hold["servers"][0]["sentence"].as_str().unwrap_or_default();
        sentence.contains("holds this server; nothing was written")
    });
    assert!(refused.to_string().contains("the instance cache holds this server"), "{refused:#}");
    assert_eq!(refused["changed"], false, "{refused:#}");
    assert_eq!(files.map(|file| file.exists()), [true, false], "the second one has recorded nothing");

    // Once the first one has restored the server, the second one holds it, and knows what its own setting is.
    let restored = second.send("POST", &format!("{}/restore", path(&cache)), JSON, "");
    assert_eq!(restored.status, 200, "{restored:?}");
    first.wait_for(&path(&cache), |hold| hold["changed"] == false);
    let held = second.wait_for(&path(&other), |hold| hold["changed"] == true);
    eventually("the effort is raised again", TIMEOUT, || (effort(&server) != own).then_some(()));
    second.send("POST", &format!("{}/restore", path(&other)), JSON, "");
    second.wait_for(&path(&other), |hold| hold["changed"] == false);
    assert_eq!(effort(&server), own, "{held:#}");
}
