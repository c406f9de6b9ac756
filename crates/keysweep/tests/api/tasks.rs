//! Tasks in the native API: those of all instances, cancelled ones, and their events.

use std::io::{BufRead, BufReader, Write};

use keysweep_harness::{DataSet, Flavor, Server, Service, free_port, id};
use serde_json::{Value, json};

use crate::own_api::{OTHER, error, installation, post};

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

/// Starts a scan that takes seconds.
fn long_task(service: &Service, base: &str, server: &Server) -> String {
    DataSet::new().live(50_000).stale(50_000).load(server);
    server.watch_expired_keys();
    let added =
        post(service, &format!("{base}/instances"), &json!({ "name": "cache", "url": server.url(), "pace": "gentle" }));
    let (instance, project) = (id(&added.body), added.body["project_id"].as_str().expect("an id").to_owned());
    let task = service.scan(&project, &instance);
    assert_eq!(error(&service.send("DELETE", &format!("{base}/instances/{instance}"), &[], "")), (409, "conflict"));
    task.id
}

#[test]
fn a_running_task_is_cancelled_and_the_audit_trail_names_the_user() {
    let (installation, base) = installation();
    let server = Server::start(Flavor::Valkey91);
    let service = installation.serve(&["--no-auth"]);
    let task = long_task(&service, &base, &server);
    let path = format!("{base}/tasks/{task}");
    service.wait_for(&path, |task| task["status"] == "running");
    let cancelled = service.request("POST", &format!("{path}/cancel"));
    assert_eq!((cancelled.status, &cancelled.body["cancel_requested"]), (200, &json!(true)), "{:?}", cancelled.body);
    let ended = service.wait_for(&path, |task| task["status"] == "failed");
    assert_eq!(ended["reason"]["code"], "cancelled");
    assert_eq!(service.request("POST", &format!("{path}/cancel")).body, ended, "a finished task does not change");
    assert_eq!(error(&service.request("POST", &format!("{base}/tasks/{OTHER}/cancel"))), (404, "not_found"));
    let audit = service.get(&format!("{base}/audit?limit=2"));
    let entries = audit["entries"].as_array().expect("entries");
    assert_eq!((&entries[0]["action"], &entries[1]["action"]), (&"task.cancel".into(), &"task.create".into()));
    assert_eq!((&entries[0]["subject"], &entries[0]["actor"]), (&task.into(), &Value::Null));
    let next = service.get(&format!("{base}/audit?limit=1&before={}", entries[0]["seq"]));
    assert_eq!(next["entries"], json!([entries[1]]));
}

/// Returns the ids and data of all events of a stream, until it ends.
fn events(service: &Service, path: &str, last_event_id: Option<&str>) -> Vec<(String, Value)> {
    let address = service.base.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a timeout");
    let resume = last_event_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{resume}\r\n").expect("it reads");
    let (mut events, mut id, mut is_stream) = (Vec::new(), String::new(), false);
    for line in BufReader::new(stream).lines().map(|line| line.expect("it answers in time")) {
        is_stream |= line.to_ascii_lowercase().starts_with("content-type: text/event-stream");
        if let Some(text) = line.strip_prefix("id: ") {
            id = text.to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            events.push((id.clone(), serde_json::from_str(data).expect("JSON")));
        }
    }
    assert!(is_stream);
    events
}

#[test]
fn a_stream_follows_a_task_to_its_end_and_a_new_stream_starts_with_its_state() {
    let (installation, base) = installation();
    let server = Server::start(Flavor::Valkey91);
    let service = installation.serve(&["--no-auth"]);
    let task = long_task(&service, &base, &server);
    let path = format!("{base}/tasks/{task}");
    let events_path = format!("{path}/events");
    let seen = events(&service, &events_path, None);
    assert!(seen.len() >= 3, "a long task has more than two events: {}", seen.len());
    let (last_id, last) = seen.last().expect("events");
    assert_eq!((last["status"].as_str(), last), (Some("success"), &service.get(&path)));
    let scanned: Vec<u64> = seen.iter().map(|(_, task)| task["keys_scanned"].as_u64().expect("a number")).collect();
    assert!(scanned.is_sorted() && scanned.last() > scanned.first(), "{scanned:?}");
    assert_eq!(events(&service, &events_path, None), [seen.last().expect("events").clone()], "replayed from the store");
    assert_eq!(events(&service, &events_path, Some(last_id)), [], "and not twice");
    assert_eq!(error(&service.request("GET", &format!("{base}/tasks/{OTHER}/events"))), (404, "not_found"));
}

#[test]
fn an_open_stream_does_not_delay_the_shutdown() {
    let (installation, base) = installation();
    let server = Server::start(Flavor::Valkey91);
    let service = installation.serve(&["--no-auth"]);
    let task = long_task(&service, &base, &server);
    let address = service.base.trim_start_matches("http://").to_owned();
    let mut stream = std::net::TcpStream::connect(&address).expect("it listens");
    write!(stream, "GET {base}/tasks/{task}/events HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("it reads");
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).expect("it answers");
    assert!(line.contains("200"), "{line}");
    let begun = std::time::Instant::now();
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));
    assert!(begun.elapsed().as_secs() < 8, "the shutdown waited for the stream: {:?}", begun.elapsed());
}
