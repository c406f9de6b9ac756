//! Labels and sampling of instances, and the estimates that the service makes by itself.

use std::{net::TcpListener, time::Duration};

use keysweep::store::Store;
use keysweep_engine::ExpiredKeys;
use keysweep_harness::{
    DataSet, Flavor, HostileServer, Hostility, Installation, ScanTask, Server, Service, eventually, id,
};
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use super::own_api::{error, installation, post};

fn patch(service: &Service, path: &str, body: &Value) -> keysweep_harness::Answer {
    service.send("PATCH", path, &[], body.to_string())
}

#[test]
fn instances_are_selected_by_their_labels() {
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let instances = format!("{base}/instances");
    let url = "redis://127.0.0.1:1";
    let new = |name: &str, labels: Value| json!({ "name": name, "url": url, "labels": labels });
    let cart = post(&service, &instances, &new("cart", json!({ "env": "prod", "team": "web" })));
    assert_eq!((cart.status, &cart.body["labels"]["env"]), (201, &"prod".into()), "{cart:?}");
    assert_eq!(cart.body["sampling"], "replica", "nothing is reclaimed unless it was agreed to");
    installation.admin(&[
        "instance",
        "add",
        "feed",
        url,
        "--project",
        "shop",
        "--label",
        "env=prod",
        "--label",
        "zone=",
        "--sampling",
        "off",
    ]);
    post(&service, &instances, &json!({ "name": "test", "url": url }));
    let listed = |query: &str| {
        let answer = service.get(&format!("{instances}{query}"));
        let names = answer["instances"].as_array().expect("a list").iter().map(|instance| instance["name"].to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listed(""), "\"cart\" \"feed\" \"test\"");
    assert_eq!(listed("?label=env%3Dprod"), "\"cart\" \"feed\"");
    assert_eq!(listed("?label=env=prod&label=team=web"), "\"cart\"");
    assert_eq!(listed("?label=zone="), "\"feed\"");
    assert_eq!(listed("?label=env=test"), "");
    let by_client = installation.command(&["instance", "list", "--json", "-l", "env=prod", "-l", "team=web"]);
    let output = { by_client }.env("KEYSWEEP_ENDPOINT", &service.base).output().expect("it runs");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(
        (printed["instances"].as_array().map(Vec::len), &printed["instances"][0]["name"]),
        (Some(1), &"cart".into())
    );
    let by_admin = installation.admin(&["instance", "list", "--project", "shop", "-l", "zone="]);
    assert_eq!(
        (&by_admin[0]["name"], &by_admin[0]["sampling"], &by_admin[1]),
        (&"feed".into(), &"off".into(), &Value::Null)
    );

    let path = format!("{instances}/{}", id(&cart.body));
    let changed = patch(&service, &path, &json!({ "labels": { "env": "test" }, "sampling": "off" }));
    assert_eq!((&changed.body["labels"], &changed.body["sampling"]), (&json!({ "env": "test" }), &"off".into()));
    let kept = patch(&service, &path, &json!({ "name": "carts" }));
    assert_eq!((&kept.body["labels"], &kept.body["sampling"]), (&json!({ "env": "test" }), &"off".into()));
    let many: serde_json::Map<String, Value> = (0..33).map(|number| (format!("n{number}"), "x".into())).collect();
    for (wrong, words) in [
        (json!({ "labels": { "-env": "prod" } }), "invalid label"),
        (json!({ "labels": { "env": "a b" } }), "at most 63"),
        (json!({ "labels": many }), "at most 32"),
        (json!({ "labels": { "env": 1 } }), "not of the documented type"),
        (json!({ "sampling": "always" }), "off, replica, primary"),
    ] {
        let refused = patch(&service, &path, &wrong);
        assert_eq!(error(&refused), (400, "invalid"), "{wrong}");
        assert!(refused.body.to_string().contains(words), "{words}: {refused:?}");
    }
    assert_eq!(error(&service.request("GET", &format!("{instances}?label=env"))), (400, "invalid"));
    assert_eq!(service.get(&path)["labels"], json!({ "env": "test" }));
}

#[test]
fn the_service_samples_a_primary_only_where_that_was_agreed_to() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(18_000).stale(6_000).load(&server);
    let keys = || redis::cmd("DBSIZE").query::<u64>(&mut server.connection()).expect("a size");
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let new = json!({ "name": "cache", "url": server.url(), "sampling": "off" });
    let path = format!("{base}/instances/{}", id(&post(&service, &format!("{base}/instances"), &new).body));
    let estimates = |service: &Service| service.get(&format!("{path}/estimates"));
    let nothing = json!({ "latest": null, "failure": null, "scanned_since": null, "points": [], "marks": [] });
    assert_eq!(estimates(&service), nothing);
    let estimated = |service: &Service, method: &str| {
        eventually("a background estimate", Duration::from_secs(20), || {
            let found = estimates(service);
            (found["latest"]["total"]["method"] == method).then_some(found)
        })
    };

    patch(&service, &path, &json!({ "sampling": "replica" }));
    let hint = estimated(&service, "info");
    assert_eq!((keys(), &hint["latest"]["total"]["reclaimed"]), (24_000, &0.into()), "no key was reclaimed");
    assert_eq!(hint["latest"]["primaries"][0]["share_low"], Value::Null, "{hint:#}");

    patch(&service, &path, &json!({ "sampling": "primary" }));
    let sample = estimated(&service, "sample");
    let (latest, primary) = (&sample["latest"], &sample["latest"]["primaries"][0]);
    assert!(
        keys() < 24_000 && latest["total"]["reclaimed"].as_u64().is_some_and(|reclaimed| reclaimed > 0),
        "{sample:#}"
    );
    assert_eq!(
        (&primary["approximate"], &primary["verdict"]["code"]),
        (&false.into(), &"scan_once".into()),
        "{primary:#}"
    );
    let (low, high) = (primary["share_low"].as_f64(), primary["share_high"].as_f64());
    assert!(low.is_some_and(|low| low < 0.25) && high.is_some_and(|high| high > 0.2), "{primary:#}");
    let point = &sample["points"][0]["primaries"][0];
    assert_eq!((&point["share"], &point["address"]), (&primary["share"], &server.address().to_string().into()));
    assert!(point["used_memory"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{point:#}");
    assert_eq!(sample["points"].as_array().map(Vec::len), Some(1), "one an hour");

    // A verdict is for the target of the instance: its auto-scan keeps half of the keys stale.
    let adaptive = json!({ "enable_auto_scan": true, "first_scan_at": "2100-01-01T00:00:00Z", "below": 0.5 });
    let answer = patch(&service, &format!("{path}/auto-scan"), &adaptive);
    assert_eq!(answer.status, 200, "{answer:?}");
    let verdict = &estimates(&service)["latest"]["primaries"][0]["verdict"];
    assert_eq!((&verdict["code"], verdict["reason"].to_string().contains("below 50.0 %")), (&"pointless".into(), true));

    // The time between samples is one of the server: it holds for other instances on it, for requests, and after a restart.
    let url = format!("redis://localhost:{}", server.address().port());
    let new = json!({ "name": "alias", "url": url, "sampling": "primary" });
    let alias = format!("{base}/instances/{}", id(&post(&service, &format!("{base}/instances"), &new).body));
    let (held, again) = (keys(), post(&service, &format!("{alias}/estimate?method=sample"), &Value::Null));
    assert_eq!((error(&again), keys()), ((429, "too_many"), held), "{again:?}");
    let survey = post(&service, &format!("{base}/survey"), &Value::Null);
    let survey = service.wait_for(&format!("{base}/survey/{}", id(&survey.body)), |survey| survey["status"] == "done");
    let rows = survey["rows"].as_array().expect("rows");
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).expect("a row");
    let (cache, alias) = (row("cache"), row("alias"));
    assert_eq!((&cache["method"], &alias["method"], keys()), (&"sample".into(), &"info".into(), held), "{survey:#}");
    // A row of an earlier estimate says so, and one that could not be sampled says why its share is unknown.
    assert_eq!(cache["taken_at"], estimates(&service)["latest"]["taken_at"]);
    let notes = cache["notes"].to_string();
    assert!(notes.contains("before this survey") && notes.contains("sampled again in"), "{notes}");
    let says = |value: &Value, part: &str| value.as_str().is_some_and(|text| text.contains(part));
    assert!(says(&alias["verdict"]["reason"], "was sampled a short time ago"), "{alias:#}");
    assert!(alias["taken_at"].as_str() > cache["taken_at"].as_str(), "{survey:#}");
    let again = post(&service, &format!("{path}/estimate?method=sample"), &Value::Null);
    assert_eq!(error(&again), (429, "too_many"), "{again:?}");
    drop(service);
    let service = installation.serve(&["--no-auth"]);
    let again = post(&service, &format!("{path}/estimate?method=sample"), &Value::Null);
    assert_eq!(error(&again), (429, "too_many"), "{again:?}");
    assert_eq!(estimates(&service)["latest"]["total"]["method"], "sample");
    let later = service.get(&format!("{path}/estimates?from=2100-01-01T00:00:00Z"));
    assert_eq!((&later["points"], later["latest"].is_object()), (&json!([]), true));
    assert_eq!(error(&service.request("GET", &format!("{path}/estimates?from=yesterday"))), (400, "invalid"));
}

/// Starts a server with a replica. A quarter of its 1,200 keys are stale.
fn quarter_stale() -> (Server, Server) {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(900).stale(300).load(&server);
    let replica = server.replica();
    (server, replica)
}

#[test]
fn a_survey_has_a_row_for_each_primary_and_says_what_is_unknown() {
    let (server, _replica) = quarter_stale();
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let instances = format!("{base}/instances");
    for (name, url, env) in [
        ("cache", server.url(), "prod"),
        ("lost", "redis://127.0.0.1:1".into(), "prod"),
        ("test", server.url(), "test"),
    ] {
        post(&service, &instances, &json!({ "name": name, "url": url, "labels": { "env": env } }));
    }
    let surveys = format!("{base}/survey");
    let created = post(&service, &surveys, &json!({ "labels": { "env": "prod" }, "below": 0.2 }));
    assert_eq!(
        (created.status, &created.body["status"], &created.body["instances"]),
        (201, &"running".into(), &2.into())
    );
    let path = format!("{surveys}/{}", id(&created.body));
    let meanwhile = post(&service, &surveys, &Value::Null);
    assert_eq!(error(&meanwhile), (409, "conflict"), "{meanwhile:?}");
    let done = service.wait_for(&path, |survey| survey["status"] == "done");
    assert_eq!(
        (&done["surveyed"], &done["below"], &done["labels"]),
        (&2.into(), &0.2.into(), &json!({ "env": "prod" }))
    );
    let [cache, lost] = done["rows"].as_array().expect("rows").as_slice() else { panic!("{done:#}") };
    assert_eq!(
        (&cache["name"], &cache["keys"], &cache["share"], &cache["approximate"]),
        (&"cache".into(), &1_200.into(), &0.25.into(), &false.into())
    );
    assert_eq!(
        (&cache["address"], &cache["method"], &cache["verdict"]["code"]),
        (&server.address().to_string().into(), &"replica".into(), &"scan_once".into())
    );
    for field in ["address", "keys", "keys_with_ttl", "share", "bytes", "reclaimed", "used_memory"] {
        assert_eq!((lost["name"].as_str(), &lost[field]), (Some("lost"), &Value::Null), "{field} is unknown");
    }
    assert_eq!(lost["verdict"]["code"], "unknown");
    assert!(lost["verdict"]["reason"].as_str().is_some_and(|reason| reason.contains("127.0.0.1:1")), "{lost:#}");
    let by_name = service.get(&format!("{path}?sort=name"));
    assert_eq!(by_name["rows"][1]["name"], "lost");
    assert_eq!(error(&service.request("GET", &format!("{path}?sort=size"))), (400, "invalid"));
    for (body, words) in [
        (json!({ "below": 1.5 }), "invalid below 1.5"),
        (json!({ "labels": { "env": "none" } }), "no instance"),
        (json!({ "labels": { "-": "x" } }), "invalid label"),
        (json!({ "belov": 0.1 }), "unknown field"),
    ] {
        let refused = post(&service, &surveys, &body);
        assert!(refused.status == 400 && refused.body.to_string().contains(words), "{words}: {refused:?}");
    }
    assert_eq!(error(&service.request("GET", &format!("{surveys}/{}", "0".repeat(32)))), (404, "not_found"));
    let audit = service.get(&format!("{base}/audit?limit=1"));
    let entry = &audit["entries"][0];
    assert_eq!((&entry["action"], &entry["subject"]), (&"survey.create".into(), &created.body["id"]));
}

#[test]
fn after_a_scan_an_estimate_is_one_from_before_it() {
    let (server, _replica) = quarter_stale();
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let instances = format!("{base}/instances");
    let new = json!({ "name": "cache", "url": server.url(), "sampling": "off" });
    let instance = id(&post(&service, &instances, &new).body);
    let path = format!("{instances}/{instance}");
    let activity = || {
        let listed = service.get(&format!("{instances}?activity=true"));
        let activity = &listed["instances"][0]["activity"];
        (activity["stale_share"].as_f64(), activity["stale_share_at"].clone())
    };
    let answer = post(&service, &format!("{path}/estimate"), &Value::Null);
    assert_eq!(answer.status, 200, "{answer:?}");
    let before = service.get(&format!("{path}/estimates"));
    assert_eq!(
        (&before["latest"]["primaries"][0]["verdict"]["code"], &before["scanned_since"]),
        (&"scan_once".into(), &Value::Null)
    );
    assert_eq!(activity(), (Some(0.25), before["latest"]["taken_at"].clone()));

    let project = base.rsplit('/').next().expect("an id");
    let task = service.create_scan(project, &instance);
    service.wait_until_finished(&ScanTask::new(project, &id(&task.body)));
    let after = service.get(&format!("{path}/estimates"));
    assert_eq!(after["latest"], before["latest"]);
    let since = &after["scanned_since"];
    assert!(since["share"].as_f64().is_some_and(|share| share < 0.01), "{after:#}");
    assert_eq!(activity(), (since["share"].as_f64(), since["finished_at"].clone()), "what the scan left");
    assert_eq!(after["marks"][0]["detail"]["remaining"]["share"], since["share"]);

    post(&service, &format!("{path}/estimate"), &Value::Null);
    let again = service.get(&format!("{path}/estimates"));
    assert_eq!(
        (&again["latest"]["primaries"][0]["verdict"]["code"], &again["scanned_since"]),
        (&"pointless".into(), &Value::Null)
    );
}

/// Lets the primary of an instance have counted no expired key 100 seconds ago, as a poll would have stored it.
#[tokio::main(flavor = "current_thread")]
async fn count_none_before(installation: &Installation, project: &str, instance: &str) {
    let store = Store::open_sqlite(&installation.database()).await.expect("a store");
    let instance = store.instance(project, instance).await.expect("read").expect("an instance");
    let mut stats = instance.stats.clone().expect("polled");
    let run_id = stats.run_ids[0].clone();
    stats.server.expired = vec![ExpiredKeys { at: ExpiredKeys::clock() - 100_000, run_id, keys: 0, fields: 0 }];
    store.record_stats(&instance, &stats).await.expect("kept");
    store.close().await;
}

#[test]
fn the_service_measures_what_expires_a_second_between_its_polls() {
    let server = Server::start(Flavor::Valkey91);
    let mut connection = server.connection();
    for number in 0..600 {
        let ttl = if number < 500 { 1 } else { 3_600_000 };
        redis::cmd("SET").arg(number).arg("x").arg("PX").arg(ttl).exec(&mut connection).expect("set");
    }
    eventually("these keys to expire", Duration::from_secs(10), || {
        let keys: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
        (keys == 100).then_some(())
    });
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let new = json!({ "name": "cache", "url": server.url(), "sampling": "off" });
    let instance = id(&post(&service, &format!("{base}/instances"), &new).body);
    let path = format!("{base}/instances/{instance}");
    assert_eq!(post(&service, &format!("{path}/test"), &Value::Null).status, 200);
    count_none_before(&installation, base.rsplit('/').next().expect("an id"), &instance);
    let found = post(&service, &format!("{path}/estimate"), &Value::Null);
    let rate = found.body["total"]["expiry_rate"].as_f64();
    assert!(rate.is_some_and(|rate| (4.0..=5.0).contains(&rate)), "500 in 100 seconds, and none now: {found:?}");
}

/// Lets half a minute pass for the surveys of a service that has ended.
#[tokio::main(flavor = "current_thread")]
async fn age_surveys(installation: &Installation) {
    let url = format!("sqlite:{}", installation.database().display());
    let mut database = SqliteConnection::connect(&url).await.expect("it opens");
    let aged = sqlx::query("UPDATE survey SET expires_at = expires_at - 30000000").execute(&mut database).await;
    assert_eq!(aged.expect("changed").rows_affected(), 1);
}

#[test]
fn a_survey_whose_process_has_ended_is_interrupted_and_another_one_may_start() {
    // The kernel accepts connections to it, and nothing answers.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let url = format!("redis://{}", mute.local_addr().expect("an address"));
    post(&service, &format!("{base}/instances"), &json!({ "name": "mute", "url": url }));
    let surveys = format!("{base}/survey");
    let created = post(&service, &surveys, &Value::Null);
    assert_eq!((created.status, &created.body["reason"]), (201, &Value::Null), "{created:?}");
    service.kill();
    age_surveys(&installation);
    let service = installation.serve(&["--no-auth"]);
    let shown = service.get(&format!("{surveys}/{}", id(&created.body)));
    assert_eq!(
        (&shown["status"], &shown["surveyed"], &shown["instances"]),
        (&"interrupted".into(), &0.into(), &1.into())
    );
    assert!(shown["reason"].as_str().is_some_and(|reason| reason.contains("start another one")), "{shown:#}");
    let another = post(&service, &surveys, &Value::Null);
    assert_eq!((another.status, &another.body["status"]), (201, &"running".into()), "{another:?}");
}

/// Returns the paths of whole numbers that readers of JSON would take for others.
fn inexact(path: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Number(number) if number.as_u64().is_some_and(|number| number > 1 << 53) => vec![path.to_owned()],
        Value::Array(items) => items.iter().flat_map(|item| inexact(&format!("{path}[]"), item)).collect(),
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| inexact(&format!("{path}.{name}"), value)).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn absurd_numbers_of_a_server_are_null_in_every_document() {
    let hostile = HostileServer::start(Hostility::Numbers, "INFO");
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let new = json!({ "name": "cache", "url": hostile.url("INFO"), "sampling": "off" });
    let created = post(&service, &format!("{base}/instances"), &new);
    let path = format!("{base}/instances/{}", id(&created.body));
    assert_eq!(service.request("POST", &format!("{path}/test")).status, 200);
    let estimate = service.request("POST", &format!("{path}/estimate")).body;
    let survey = post(&service, &format!("{base}/survey"), &Value::Null);
    let survey = service.wait_for(&format!("{base}/survey/{}", id(&survey.body)), |survey| survey["status"] == "done");
    let project = base.rsplit('/').next().expect("an id");
    let task = service.create_scan(project, &id(&created.body));
    let task = service.wait_until_finished(&ScanTask::new(project, &id(&task.body)));
    let estimates = service.get(&format!("{path}/estimates"));
    let point = &estimates["points"][0]["primaries"][0];
    assert_eq!((&point["keys"], &point["used_memory"]), (&Value::Null, &Value::Null), "{estimates:#}");
    assert_eq!((&survey["rows"][0]["keys"], &survey["rows"][0]["name"]), (&Value::Null, &"cache".into()), "{survey:#}");
    assert_eq!(estimate["primaries"][0]["used_memory"], Value::Null, "{estimate:#}");
    for (what, document) in [
        ("instance", &service.get(&path)),
        ("estimate", &estimate),
        ("estimates", &estimates),
        ("survey", &survey),
        ("task", &task),
    ] {
        assert_eq!(inexact(what, document), Vec::<String>::new(), "{document:#}");
    }
}
