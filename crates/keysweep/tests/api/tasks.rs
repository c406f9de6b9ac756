//! The list of the tasks of all instances of a project.

use keysweep_harness::{DataSet, Flavor, Server, free_port, id};
use serde_json::{Value, json};

use crate::own_api::{error, installation, post};

#[test]
fn tasks_of_all_instances_are_listed_by_status_time_and_label() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).stale(50).load(&server);
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let register = |name: &str, url: &str, env: &str| {
        let body = json!({ "name": name, "url": url, "labels": { "env": env } });
        let added = post(&service, &format!("{base}/instances"), &body).body;
        let project = added["project_id"].as_str().expect("an id").to_owned();
        service.scan(&project, &id(&added)).id
    };
    let carts = register("carts", &server.url(), "prod");
    let lost = register("lost", &format!("redis://127.0.0.1:{}", free_port()), "test");
    service.wait_for(&format!("{base}/tasks/{carts}"), |task| task["status"] == "success");
    service.wait_for(&format!("{base}/tasks/{lost}"), |task| task["status"] == "failed");
    let ids = |query: &str| -> Vec<String> {
        let page = service.get(&format!("{base}/tasks{query}"));
        page["tasks"].as_array().expect("tasks").iter().map(id).collect()
    };
    let all = service.get(&format!("{base}/tasks"));
    let [newer, older] = all["tasks"].as_array().expect("tasks").as_slice() else { panic!("{all:#}") };
    assert_eq!((id(newer), id(older)), (lost.clone(), carts.clone()), "newest first");
    assert_eq!((&older["instance_name"], &older["keys_reclaimed"]), (&"carts".into(), &50.into()));
    assert_eq!((&older["reason"], &newer["reason"]["code"]), (&Value::Null, &"unreachable".into()));
    assert!(older.get("report").is_none(), "lists are bounded: {older:#}");
    assert_eq!(ids("?limit=1"), [lost.as_str()]);
    assert_eq!(ids(&format!("?limit=1&before={}", newer["seq"])), [carts.as_str()]);
    assert_eq!(ids(&format!("?before={}", older["seq"])), [""; 0]);
    assert_eq!(ids("?status=success"), [carts.as_str()]);
    assert_eq!(ids("?label=env%3Dtest"), [lost.as_str()]);
    assert_eq!(ids("?label=env%3Dtest&status=success"), [""; 0]);
    assert_eq!(ids("?label=env%3Dnone"), [""; 0]);
    assert_eq!(ids(&format!("?since={}", older["created_at"].as_str().expect("a time"))), [lost.as_str(), &carts]);
    assert_eq!(ids("?since=2099-01-01T00:00:00Z"), [""; 0], "both have finished before");

    for (query, words) in [
        ("status=done", "invalid parameter status \"done\": expected waiting, running, success, failed"),
        ("since=24h", "invalid parameter since \"24h\": write a time such as"),
        ("label=env", "invalid label \"env\": write NAME=VALUE"),
        ("limit=1001", "invalid parameter limit \"1001\": write a number from 1 to 1000"),
        ("before=", "invalid parameter before \"\""),
    ] {
        let answer = service.request("GET", &format!("{base}/tasks?{query}"));
        assert_eq!(error(&answer), (400, "invalid"), "{query}");
        let message = answer.body["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(words), "{query}: {message}");
    }
}
