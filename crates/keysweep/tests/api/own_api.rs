//! The native API: instances and their estimates.

use std::io::{Read, Write};

use keysweep_harness::{
    Answer, DataSet, Fault, Flavor, Installation, Proxy, Server, Service, free_port, id, installation,
};
use serde_json::{Value, json};

pub const OTHER: &str = "0123456789abcdef0123456789abcdef";

pub fn installation() -> (Installation, String) {
    let installation = installation!();
    let project = id(&installation.admin(&["project", "add", "shop"]));
    (installation, format!("/api/v1/projects/{project}"))
}

pub fn post(service: &Service, path: &str, body: &Value) -> Answer {
    service.send("POST", path, &[], if body.is_null() { String::new() } else { body.to_string() })
}

/// Returns the actions of an audit trail, the newest first.
pub fn actions(audit: &Value) -> Vec<&str> {
    let entries = audit["entries"].as_array().expect("entries");
    entries.iter().map(|entry| entry["action"].as_str().expect("a text")).collect()
}

pub fn error(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["error"]["code"].as_str().unwrap_or_default())
}

/// Returns an instance without its stats, which a poll may change at any moment.
fn without_stats(instance: &Value) -> Value {
    let mut instance = instance.clone();
    instance.as_object_mut().expect("an instance").remove("stats").expect("a field");
    instance
}

#[test]
fn an_instance_is_registered_shown_changed_tested_and_removed_and_its_password_never_shown() {
    let server = Server::with(Flavor::Valkey91).password("hunter2-hunter2").start();
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let url = format!("redis://127.0.0.1:{}", server.port());
    let with_password = format!("redis://:hunter2-hunter2@127.0.0.1:{}", server.port());
    let added = post(
        &service,
        &format!("{base}/instances"),
        &json!({ "name": "cache", "url": with_password, "pace": "gentle" }),
    );
    assert_eq!(added.status, 201, "{:?}", added.body);
    assert_eq!((&added.body["url"], &added.body["has_password"]), (&url.clone().into(), &json!(true)));
    assert_eq!((&added.body["pace"], &added.body["paused"]), (&"gentle".into(), &json!(false)));
    assert_eq!(added.body["stats"]["engine"], "valkey");
    let path = format!("{base}/instances/{}", id(&added.body));
    let added_view = without_stats(&added.body);
    let listed = service.get(&format!("{base}/instances"));
    for shown in [&service.get(&path), &listed["instances"][0]] {
        assert_eq!((without_stats(shown), &shown["stats"]["engine"]), (added_view.clone(), &"valkey".into()));
    }
    assert_eq!(listed, json!({ "instances": [listed["instances"][0]] }), "that one and nothing else");

    let tested = post(&service, &format!("{path}/test"), &Value::Null);
    assert_eq!((tested.status, &tested.body["ok"], &tested.body["message"]), (200, &json!(true), &Value::Null));
    // Changing the address map alone could send the stored password to another server.
    let diverted = json!({ "connection": { "address_map": "127.0.0.1=127.0.0.2" } }).to_string();
    let refused = service.send("PATCH", &path, &[], diverted);
    assert_eq!(error(&refused), (400, "invalid"), "{:?}", refused.body);
    assert!(refused.body.to_string().contains("together with the url"), "{:?}", refused.body);
    let moved = service.send("PATCH", &path, &[], json!({ "url": url, "name": "moved" }).to_string());
    assert_eq!((moved.status, &moved.body["name"], &moved.body["has_password"]), (200, &"moved".into(), &json!(false)));
    let tested = post(&service, &format!("{path}/test"), &Value::Null);
    assert_eq!((tested.status, &tested.body["ok"]), (200, &json!(false)), "the stored password is not sent any more");
    assert!(tested.body["message"].as_str().is_some_and(|text| text.contains("password")), "{:?}", tested.body);
    assert_eq!(service.get(&path)["unreachable"], tested.body["message"], "a failure is kept as well");

    assert_eq!(service.send("DELETE", &path, &[], "").status, 204);
    assert_eq!(error(&service.send("GET", &path, &[], "")), (404, "not_found"));
    let audit = service.get(&format!("{base}/audit"));
    assert_eq!(actions(&audit), ["instance.remove", "instance.change", "instance.add", "project.add"]);
    assert_eq!(audit["entries"][2]["detail"], json!({ "name": "cache", "url": url }));
    let (_, log) = service.terminate();
    for text in [audit.to_string(), added.body.to_string(), log.join("")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn invalid_requests_are_refused_with_field_and_remedy() {
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let down = format!("redis://127.0.0.1:{}", free_port());
    let instances = format!("{base}/instances");
    let added = post(&service, &instances, &json!({ "name": "cache", "url": down }));
    assert_eq!((added.status, &added.body["stats"]), (201, &Value::Null), "a server need not be up");
    let tls = |connection| json!({ "name": "x", "url": "rediss://127.0.0.1:1", "connection": connection });
    let sentinel = json!({ "name": "x", "url": "redis-sentinel://127.0.0.1:1/x%0d%0aflush_all%0d%0a" });
    for (body, status, words) in [
        (json!({ "name": "cache", "url": down }), 409, "\"cache\""),
        (json!({ "name": " x", "url": down }), 400, "instance name"),
        (json!({ "name": "x", "url": "http://h" }), 400, "scheme"),
        (json!({ "name": "x", "url": "redis://8.8.8.8:6379" }), 400, "allowed_targets"),
        (json!({ "name": "x", "url": "redis-cluster://127.0.0.1:1,169.254.169.254:80" }), 400, "169.254.169.254:80"),
        (json!({ "name": "x", "url": "redis://a%0d%0ab:p@127.0.0.1:1" }), 400, "the user has a control character"),
        (json!({ "name": "x", "url": "redis://a:p%0aq@127.0.0.1:1" }), 400, "the password has a control character"),
        (sentinel, 400, "the name of the primary has a control character"),
        (tls(json!({ "server_name": "a\r\nb" })), 400, "the server name has a control character"),
        (tls(json!({ "address_map": "a:1\n=b:2" })), 400, "the address map has a control character"),
        (tls(json!({ "sentinel_username": "a\0" })), 400, "the Sentinel user has a control character"),
        (tls(json!({ "sentinel_password": "a\nb" })), 400, "the Sentinel password has a control character"),
        (json!({ "name": "x", "url": down, "id": id(&added.body) }), 400, "unknown field `id`"),
        (json!({ "name": "x", "url": down, "id": "b".repeat(32) }), 400, "unknown field `id`"),
        (json!({ "name": "x", "url": down, "pace": "slow" }), 400, "gentle"),
        (json!({ "name": "x", "url": down, "colour": "red" }), 400, "colour"),
        (json!({ "name": "x" }), 400, "url"),
        (json!({ "name": "x", "url": 7 }), 400, "documented type"),
    ] {
        let answer = post(&service, &instances, &body);
        let message = answer.body["error"]["message"].as_str().unwrap_or_default();
        assert!(answer.status == status && message.contains(words), "{body}: {} {message}", answer.status);
    }
    assert_eq!(error(&service.send("POST", &instances, &[], "")), (400, "invalid"));
    assert_eq!(error(&service.send("POST", &instances, &[], b"{\"name\":\"\xff\"}")), (400, "invalid"));
    assert_eq!(error(&service.send("POST", &instances, &[], vec![b' '; 1024 * 1024 + 1])), (413, "too_large"));
    let elsewhere = json!({ "url": "redis://[2001:db8::1]:6379" }).to_string();
    let change = service.send("PATCH", &format!("{instances}/{}", id(&added.body)), &[], elsewhere);
    assert_eq!(error(&change), (400, "invalid"), "a change is checked as well");
    let nowhere = format!("/api/v1/projects/{OTHER}/instances");
    assert_eq!(error(&post(&service, &nowhere, &json!({ "name": "x", "url": down }))), (404, "not_found"));
    assert_eq!(error(&service.request("GET", &format!("{base}/audit?limit=0"))), (400, "invalid"));
    assert_eq!(error(&service.request("GET", &format!("{base}/audit?before=x"))), (400, "invalid"));
}

#[test]
fn a_paused_instance_finishes_its_task_and_accepts_no_new_one() {
    let (installation, base) = installation();
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(50_000).load(&server);
    let service = installation.serve(&["--no-auth"]);
    let added = post(
        &service,
        &format!("{base}/instances"),
        &json!({ "name": "cache", "url": server.url(), "pace": "gentle" }),
    );
    let (instance, project) = (id(&added.body), added.body["project_id"].as_str().expect("an id").to_owned());
    let task = service.scan(&project, &instance);
    let path = format!("{base}/instances/{instance}");
    assert_eq!(service.request("POST", &format!("{path}/pause")).body["paused"], true);
    let refused = service.create_scan(&project, &instance);
    assert_eq!((refused.status, &refused.body["error_code"]), (400, &"DCS.4049".into()));
    assert_eq!(refused.body["error_msg"], "The instance status is not running.");
    assert_eq!(service.get(&format!("/v2/{project}/instances/{instance}"))["status"], "FROZEN");
    service.wait_for_task(&task, |task| task["status"] == "success");
    assert_eq!(service.request("POST", &format!("{path}/resume")).body["paused"], false);
    service.scan(&project, &instance);
}

#[test]
fn an_estimate_counts_stale_keys_and_reclaims_nothing() {
    let primary = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(900).stale(300).load(&primary);
    let replica = primary.replica();
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let register = |name: &str, url: &str| {
        let added = post(&service, &format!("{base}/instances"), &json!({ "name": name, "url": url }));
        format!("{base}/instances/{}/estimate", id(&added.body))
    };
    let path = register("cache", &primary.url());
    let found = post(&service, &path, &Value::Null);
    assert_eq!(found.status, 200, "{found:?}");
    let (total, node) = (&found.body["total"], &found.body["primaries"][0]);
    assert_eq!((&total["method"], &total["reclaimed"]), (&"replica".into(), &0.into()));
    assert_eq!((&total["keys"], &total["stale_keys"]), (&1_200.into(), &loaded.stale.into()));
    assert_eq!(
        (&node["address"], &node["source"], &node["databases"][0]["share"]),
        (&primary.address().to_string().into(), &replica.address().to_string().into(), &0.25.into())
    );
    let hint = post(&service, &format!("{path}?method=info"), &Value::Null);
    assert_eq!(
        (&hint.body["total"]["method"], &hint.body["total"]["share"]),
        (&"info".into(), &Value::Null),
        "{hint:?}"
    );
    let sampled = post(&service, &format!("{path}?method=sample"), &Value::Null);
    assert_eq!((sampled.status, &sampled.body["total"]["reclaimed"]), (200, &0.into()), "{sampled:?}");
    assert!(sampled.body.to_string().contains("too small to matter"), "{sampled:?}");
    let again = post(&service, &format!("{path}?method=sample"), &Value::Null);
    assert_eq!(again.status, 200, "nothing was sampled, so that it may be asked again at once: {again:?}");
    let held: u64 = redis::cmd("DBSIZE").query(&mut primary.connection()).expect("a size");
    assert_eq!(held, 1_200);
    for method in ["", "rdb", "guess"] {
        assert_eq!(
            error(&post(&service, &format!("{path}?method={method}"), &Value::Null)),
            (400, "invalid"),
            "{method}"
        );
    }
    let unreachable = register("unreachable", &format!("redis://127.0.0.1:{}", free_port()));
    let refused = post(&service, &unreachable, &Value::Null);
    assert_eq!(error(&refused), (409, "server"));
    drop(service);

    let service = installation.serve(&["--no-auth", "--allowed-targets", "10.0.0.0/8"]);
    let refused = post(&service, &path, &Value::Null);
    assert_eq!(error(&refused), (409, "server"));
    assert!(refused.body.to_string().contains("allowed_targets"), "{}", refused.body);
}

/// Returns the head of the answer to a POST without a body.
fn post_alone(address: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    answer.split("\r\n\r\n").next().unwrap_or_default().to_owned()
}

/// Registers an instance whose server accepts connections and never answers: the system accepts those that the listener does not. The
/// proxy cuts off the poll of the registration, which would wait as well. Returns its path.
fn silent_instance(service: &Service, base: &str, silent: &std::net::TcpListener) -> (Proxy, String) {
    let proxy = Proxy::to(silent.local_addr().expect("an address"));
    proxy.set(Fault::Cut);
    let new = json!({ "name": "silent", "url": proxy.url() });
    let path = format!("{base}/instances/{}", id(&post(service, &format!("{base}/instances"), &new).body));
    proxy.set(Fault::None);
    (proxy, path)
}

/// Sends a POST so often at a time. Returns the heads of the answers with status 429, and those of the others.
fn post_at_once(service: &Service, path: &str, times: usize) -> (Vec<String>, Vec<String>) {
    let address = service.base.trim_start_matches("http://");
    let heads: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..times).map(|_| scope.spawn(|| post_alone(address, path))).collect();
        asked.into_iter().map(|asked| asked.join().expect("no panic")).collect()
    });
    heads.into_iter().partition(|head| head.starts_with("HTTP/1.1 429 "))
}

#[test]
fn estimates_beyond_the_limit_are_refused_with_retry_after() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let (_proxy, path) = silent_instance(&service, &base, &silent);
    let (refused, others) = post_at_once(&service, &format!("{path}/estimate"), 6);
    // Four run at a time in all, two of them of one project.
    assert_eq!((refused.len(), others.len()), (4, 2), "{refused:#?} {others:#?}");
    assert!(refused.iter().all(|head| head.contains("\r\nretry-after: 30")), "{refused:#?}");
    assert!(others.iter().all(|head| head.starts_with("HTTP/1.1 409 ")), "{others:#?}");
}

#[test]
fn tests_of_a_projects_connections_beyond_two_are_refused_and_those_of_others_are_not() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (installation, base) = installation();
    let other = format!("/api/v1/projects/{}", id(&installation.admin(&["project", "add", "search"])));
    let service = installation.serve(&["--no-auth"]);
    let (_proxies, paths): (Vec<_>, Vec<_>) =
        [&base, &other].map(|base| silent_instance(&service, base, &silent)).into_iter().unzip();
    // Each of those that are begun waits for five seconds.
    let [of_one, of_other] = std::thread::scope(|scope| {
        let tested = [5, 2].into_iter().zip(&paths).map(|(times, path)| {
            let path = format!("{path}/test");
            let service = &service;
            scope.spawn(move || post_at_once(service, &path, times))
        });
        let tested: Vec<_> = tested.collect();
        tested.into_iter().map(|tested| tested.join().expect("no panic")).collect::<Vec<_>>()
    })
    .try_into()
    .expect("two of them");
    assert_eq!((of_one.0.len(), of_one.1.len(), of_other.0.len()), (3, 2, 0), "{of_one:#?} {of_other:#?}");
    assert!(of_one.0.iter().all(|head| head.contains("\r\nretry-after: 5")), "{of_one:#?}");
    assert!(of_one.1.iter().chain(&of_other.1).all(|head| head.starts_with("HTTP/1.1 200 ")), "{of_other:#?}");
    // An instance that is registered in a crowd is registered all the same, and polled later.
    let crowd = std::thread::scope(|scope| {
        scope.spawn(|| post_at_once(&service, &format!("{}/test", paths[0]), 2));
        let url = format!("redis://127.0.0.1:{}", silent.local_addr().expect("an address").port());
        post(&service, &format!("{base}/instances"), &json!({ "name": "late", "url": url }))
    });
    assert_eq!(crowd.status, 201, "{crowd:?}");
}

#[test]
fn an_instance_shows_its_connection_without_secrets() {
    let authority = keysweep_harness::Authority::new();
    let ours = authority.issue(&["keysweep"]);
    let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("a file");
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let connection = json!({
        "sentinel_username": "watcher", "sentinel_password": "hidden-word", "ca": authority.pem(),
        "certificate": read(&ours.certificate), "key": read(&ours.key), "server_name": "cache.example",
        "address_map": "10.0.0.1=127.0.0.1", "sentinel_tls": "off",
    });
    let url = format!("rediss-sentinel://sweeper:hidden-word@127.0.0.1:{}/main", free_port());
    let added =
        post(&service, &format!("{base}/instances"), &json!({ "name": "cache", "url": url, "connection": connection }));
    assert_eq!(added.status, 201, "{added:?}");
    let shown = service.get(&format!("{base}/instances/{}", id(&added.body)));
    assert_eq!((&shown["username"], &shown["has_password"]), (&"sweeper".into(), &true.into()));
    assert!(shown["url"].as_str().is_some_and(|url| url.ends_with("/main?sentinel_tls=off")), "{shown:#}");
    let expected = json!({
        "sentinel_username": "watcher", "has_sentinel_password": true, "has_ca": true, "has_certificate": true,
        "has_key": true, "server_name": "cache.example", "address_map": "10.0.0.1=127.0.0.1",
        "sentinel_tls": "off",
    });
    assert_eq!(shown["connection"], expected);
    let same = json!({ "url": url, "connection": { "sentinel_tls": "same" } }).to_string();
    let changed = service.send("PATCH", &format!("{base}/instances/{}", id(&added.body)), &[], same);
    assert_eq!((changed.status, &changed.body["connection"]["sentinel_tls"]), (200, &Value::Null), "{changed:?}");
    for (url, setting, words) in [
        (url.as_str(), "maybe", "expected on, off or same"),
        ("redis://127.0.0.1", "on", "needs a redis-sentinel:// URL"),
    ] {
        let wrong = json!({ "name": "wrong", "url": url, "connection": { "sentinel_tls": setting } });
        let refused = post(&service, &format!("{base}/instances"), &wrong);
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.to_string().contains(words), "{refused:?}");
    }
    let text = shown.to_string();
    assert!(!text.contains("hidden-word") && !text.contains("BEGIN"), "{text}");
}

#[test]
fn a_server_on_a_unix_socket_is_scanned_where_the_operator_allows_the_folder() {
    let (installation, base) = installation();
    let folder = installation.folder().to_str().expect("UTF-8").to_owned();
    let server = Server::with(Flavor::Valkey91).arg("--unixsocket", &format!("{folder}/redis.sock")).start();
    let loaded = DataSet::new().live(40).stale(30).load(&server);
    let instance = json!({ "name": "cache", "url": format!("unix://{folder}/redis.sock") });
    let service = installation.serve(&["--no-auth"]);
    let refused = post(&service, &format!("{base}/instances"), &instance);
    assert_eq!(error(&refused), (400, "invalid"), "{refused:?}");
    assert!(refused.body.to_string().contains("allowed_targets"), "{refused:?}");
    drop(service);

    let service = installation.serve(&["--no-auth", "--allowed-targets", &format!("unix:{folder}")]);
    let added = post(&service, &format!("{base}/instances"), &instance);
    assert_eq!((added.status, &added.body["unreachable"]), (201, &Value::Null), "{added:?}");
    assert_eq!(added.body["stats"]["primaries"], json!([format!("unix:{folder}/redis.sock")]));
    let project = base.rsplit('/').next().expect("an id");
    let ended = service.wait_until_finished(&service.scan(project, &id(&added.body)));
    assert_eq!((&ended["status"], server.held()), (&"success".into(), loaded.live), "{ended:#}");
    let shown = service.get(&format!("/v2/{project}/instances/{}", id(&added.body)));
    assert_eq!((&shown["ip"], &shown["port"]), (&format!("unix:{folder}/redis.sock").into(), &0.into()), "{shown:#}");
}

#[test]
fn the_stats_of_an_instance_with_a_database_in_its_url_are_those_of_the_database() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(30).database(1).live(7).load(&server);
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    for (name, path, keys) in [("whole", "", 37), ("zero", "/0", 30), ("one", "/1", 7), ("empty", "/2", 0)] {
        let instance = json!({ "name": name, "url": format!("{}{path}", server.url()) });
        let added = post(&service, &format!("{base}/instances"), &instance);
        assert_eq!(added.body["stats"]["keys"], keys, "{name}: {added:?}");
    }
    let project = base.rsplit('/').next().expect("an id");
    let list = service.request("GET", &format!("/console/{project}/instances"));
    assert!(list.text.contains("<dt>Keys</dt><dd class=\"big\">37</dd>"), "the server counts once: {}", list.text);
}
