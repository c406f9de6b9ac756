//! Making a project's instances those of an inventory.

use keysweep_harness::{Service, free_port, id};
use serde_json::{Value, json};

use crate::own_api::{actions, error, installation, post};

fn nowhere() -> String {
    format!("redis://127.0.0.1:{}", free_port())
}

/// Returns name, action and fields of each instance in an answer.
fn steps(answer: &Value) -> Vec<(String, String, Value)> {
    let steps = answer["instances"].as_array().expect("instances").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    steps.map(|step| (text(&step["name"]), text(&step["action"]), step["fields"].clone())).collect()
}

fn step(name: &str, action: &str, fields: &[&str]) -> (String, String, Value) {
    (name.to_owned(), action.to_owned(), json!(fields))
}

fn names(service: &Service, base: &str) -> Vec<String> {
    let list = service.get(&format!("{base}/instances"));
    let instances = list["instances"].as_array().expect("instances").iter();
    instances.map(|instance| instance["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_project_gets_the_instances_of_an_inventory_and_a_second_time_changes_nothing() {
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let path = format!("{base}/inventory");
    let (carts_url, sessions_url) = (nowhere(), nowhere());
    let listed = |password: &str, env: &str| {
        json!([
            { "name": "carts", "url": carts_url, "username": "sweeper", "password": password, "labels": { "env": env } },
            { "name": "sessions", "url": sessions_url, "connection": { "address_map": "10.0.0.9=127.0.0.1" } },
        ])
    };
    let send = |body: Value| post(&service, &path, &body);
    let wanted = listed("hunter2-hunter2", "prod");
    let planned = send(json!({ "instances": wanted, "dry_run": true }));
    assert_eq!((planned.status, &planned.body["applied"]), (200, &json!(false)), "{:?}", planned.body);
    assert_eq!(steps(&planned.body), [step("carts", "add", &[]), step("sessions", "add", &[])]);
    assert_eq!(names(&service, &base), [""; 0], "a dry run changes nothing");
    let applied = send(json!({ "instances": wanted, "plan": planned.body["plan"] }));
    assert_eq!((applied.status, &applied.body["applied"]), (200, &json!(true)), "{:?}", applied.body);
    assert_eq!(names(&service, &base), ["carts", "sessions"]);
    let again = send(json!({ "instances": wanted }));
    assert_eq!((again.status, &again.body["applied"]), (200, &json!(false)));
    assert_eq!(steps(&again.body), [step("carts", "keep", &[]), step("sessions", "keep", &[])]);

    // Settings that an inventory does not have stay as they are.
    let carts = format!("{base}/instances/{}", again.body["instances"][0]["instance_id"].as_str().expect("an id"));
    assert_eq!(service.send("PATCH", &carts, &[], r#"{"pace":"gentle"}"#).status, 200);
    let changed = send(json!({ "instances": listed("another-password", "test") }));
    assert_eq!(steps(&changed.body)[0], step("carts", "change", &["password", "labels"]));
    let seen = service.get(&carts);
    assert_eq!((&seen["pace"], &seen["labels"]), (&"gentle".into(), &json!({ "env": "test" })));
    assert_eq!((&seen["username"], &seen["has_password"]), (&"sweeper".into(), &json!(true)));

    // Without the field there is no password any more, and an instance that is not listed stays.
    let less = send(json!({ "instances": [{ "name": "carts", "url": carts_url, "labels": { "env": "test" } }] }));
    let expected = [step("carts", "change", &["username", "password"]), step("sessions", "unlisted", &[])];
    assert_eq!(steps(&less.body), expected);
    assert_eq!(service.get(&carts)["has_password"], false);
    let pruned = send(json!({ "instances": [], "prune": true }));
    assert_eq!(steps(&pruned.body), [step("carts", "remove", &[]), step("sessions", "remove", &[])]);
    assert_eq!(names(&service, &base), [""; 0]);

    let audit = service.get(&format!("{base}/audit"));
    let removals = ["instance.remove", "instance.remove"];
    let before =
        ["instance.change", "instance.change", "instance.change", "instance.add", "instance.add", "project.add"];
    assert_eq!(actions(&audit), [&removals[..], &before].concat());
    let (_, log) = service.terminate();
    for text in [audit.to_string(), changed.body.to_string(), log.join("")] {
        assert!(!text.contains("hunter2") && !text.contains("another-password"), "{text}");
    }
}

#[test]
fn an_inventory_that_cannot_be_applied_as_a_whole_changes_nothing() {
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let path = format!("{base}/inventory");
    let send = |body: Value| post(&service, &path, &body);
    let message =
        |answer: &keysweep_harness::Answer| answer.body["error"]["message"].as_str().unwrap_or_default().to_owned();
    let invalid = send(json!({ "instances": [
        { "name": "good", "url": nowhere() },
        { "name": "far", "url": "redis://8.8.8.8:6379" },
        { "name": "labelled", "url": nowhere(), "connection": { "sentinel_username": "a" } },
        { "name": "good", "url": nowhere() },
    ] }));
    assert_eq!(error(&invalid), (400, "invalid"));
    for words in
        ["instance \"far\": ", "allowed_targets", "instance \"labelled\": ", "redis-sentinel://", "listed twice"]
    {
        assert!(message(&invalid).contains(words), "{words}: {}", message(&invalid));
    }
    let invalid = send(json!({ "instances": [{ "name": "x", "url": nowhere(), "labels": { "env": "a b" } }] }));
    assert!(message(&invalid).starts_with("instance \"x\": invalid label \"env=a b\": "), "{}", message(&invalid));
    let many: Vec<Value> = (0..1_001).map(|number| json!({ "name": number.to_string(), "url": "redis://h" })).collect();
    let too_many = send(json!({ "instances": many }));
    assert!(
        error(&too_many) == (400, "invalid") && message(&too_many).contains("at most 1000"),
        "{}",
        message(&too_many)
    );
    assert_eq!(names(&service, &base), [""; 0]);

    // A window that is closed now keeps the task of this instance waiting.
    let hour = |hours: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours)).strftime("%H:%M");
    let window = format!("{}-{} UTC", hour(5), hour(6));
    let busy = json!({ "name": "busy", "url": nowhere(), "window": window, "window_binds_manual": true });
    let busy = post(&service, &format!("{base}/instances"), &busy).body;
    service.scan(busy["project_id"].as_str().expect("an id"), &id(&busy));
    let in_use = send(json!({ "instances": [{ "name": "new", "url": nowhere() }], "prune": true }));
    assert_eq!(error(&in_use), (409, "conflict"));
    assert!(message(&in_use).contains("instance \"busy\" has an active task"), "{}", message(&in_use));
    assert_eq!(names(&service, &base), ["busy"], "the new one was not added either");

    let wanted = json!([{ "name": "new", "url": nowhere() }]);
    let planned = send(json!({ "instances": wanted, "dry_run": true }));
    post(&service, &format!("{base}/instances"), &json!({ "name": "meanwhile", "url": nowhere() }));
    let outdated = send(json!({ "instances": wanted, "plan": planned.body["plan"] }));
    assert_eq!(error(&outdated), (409, "conflict"));
    assert!(message(&outdated).contains("make a new plan"), "{}", message(&outdated));
    assert_eq!(names(&service, &base), ["busy", "meanwhile"]);
}
