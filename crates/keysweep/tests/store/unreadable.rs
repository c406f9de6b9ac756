//! Stored settings that cannot be read, in a row that was changed by hand or written by a later version: the tasks that depend
//! on one fail with the field as the reason, and everything else goes on.

use std::time::Duration;

use jiff::Timestamp;
use keysweep::{
    model::{AutoScan, Instance, Stored},
    store::Store,
};
use keysweep_harness::{DataSet, Flavor, Installation, ScanTask, Server, id, installation};
use rstest::rstest;
use serde_json::Value;

/// A time zone that is not in the zone data.
const WINDOW: &str = "02:00-05:00 Mars/Olympus";

/// Changes the row of an instance, and sets its auto-scan.
fn edit(installation: &Installation, ids: (&str, &str), change: impl Fn(&mut Instance), auto_scan: Option<&AutoScan>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open_sqlite(&installation.database()).await.expect("a store");
        let before = store.instance(ids.0, ids.1).await.expect("read").expect("an instance");
        let mut after = before.clone();
        change(&mut after);
        store.update_instance(&before, &after).await.expect("changed");
        if let Some(settings) = auto_scan {
            store.set_auto_scan(None, settings).await.expect("set");
        }
        store.close().await;
    });
}

fn size(server: &Server) -> u64 {
    redis::cmd("DBSIZE").query(&mut server.connection()).expect("a size")
}

/// Checks that a task failed because of this field, and that its scan reclaimed nothing.
fn assert_refused(task: &Value, field: &str, value: &str, server: &Server, keys: u64) {
    assert_eq!((&task["status"], &task["reason"]["code"]), (&"failed".into(), &"refused".into()), "{task:#}");
    let message = task["reason"]["message"].as_str().expect("a message");
    for part in ["\"cache\"", field, value] {
        assert!(message.contains(part), "{part} in: {message}");
    }
    assert_eq!((&task["keys_scanned"], size(server)), (&0.into(), keys), "nothing was scanned");
}

#[rstest]
#[case::pace("pace", "gentel", |instance: &mut Instance| instance.pace = Stored::read("gentel"))]
#[case::window("window", "Mars/Olympus", |instance: &mut Instance| {
    (instance.window, instance.window_binds_manual) = (Some(Stored::read(WINDOW)), true);
})]
fn a_manual_task_fails_and_names_the_field(
    #[case] field: &str,
    #[case] value: &str,
    #[case] change: impl Fn(&mut Instance),
) {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(30).stale(20).load(&server);
    let installation = installation!();
    let (project, bad) = installation.register(&server.url());
    let good = installation.register_another(&project, "good", &server.url(), &[]);
    edit(&installation, (&project, &bad), change, None);
    let service = installation.serve(&["--no-auth"]);

    let list = service.get(&format!("/api/v1/projects/{project}/instances"));
    let instances = list["instances"].as_array().expect("instances");
    let problems = |name: &str| {
        let found = instances.iter().find(|instance| instance["name"] == name).expect("an instance");
        found["problems"].as_array().expect("problems").clone()
    };
    assert_eq!((problems("cache").len(), problems("good").len()), (1, 0), "{list:#}");
    let problem = problems("cache")[0].as_str().expect("a sentence").to_owned();
    assert!(problem.contains(field) && problem.contains(value), "{problem}");
    let shown = installation.run(&["admin", "instance", "list", "--project", &project, "--output", "json"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(value), "{shown:?}");
    let page = service.request("GET", &format!("/console/{project}/instances/{bad}"));
    assert!(page.text.contains(value), "{}", page.text);

    let scan = |instance: &str| service.wait_until_finished(&service.scan(&project, instance));
    assert_refused(&scan(&bad), field, value, &server, loaded.live + loaded.stale);
    assert_eq!(scan(&good)["status"], "success", "the other instance is scanned");
    assert_eq!(size(&server), loaded.live);
}

#[test]
fn a_scheduled_run_fails_and_names_the_window() {
    let server = Server::start(Flavor::Redis70);
    let loaded = DataSet::new().live(30).stale(20).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let settings = AutoScan {
        enabled: true,
        first_scan_at: Some(Timestamp::from_second(Timestamp::now().as_second() + 1).expect("a time")),
        interval: Duration::from_secs(3_600),
        timeout: Duration::from_secs(7_200),
        updated_at: Timestamp::now(),
        ..AutoScan::unset(&instance)
    };
    let change = |instance: &mut Instance| instance.window = Some(Stored::read(WINDOW));
    edit(&installation, (&project, &instance), change, Some(&settings));
    let service = installation.serve(&["--no-auth"]);
    let histories = service.wait_for_histories(&project, &instance, |page| page["records"][0]["status"] == "failed");
    let task = service.task(&ScanTask::new(&project, &id(&histories["records"][0])));
    assert_eq!(task["scan_type"], "auto");
    assert_refused(&task, "window", "Mars/Olympus", &server, loaded.live + loaded.stale);
}

/// Replaces the report of every task.
fn replace_report(installation: &Installation, report: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(installation.database());
        let mut database = sqlx::ConnectOptions::connect(&options).await.expect("a connection");
        let changed = sqlx::query("UPDATE task_document SET report = $1").bind(report).execute(&mut database).await;
        assert_eq!(changed.expect("changed").rows_affected(), 1);
    });
}

#[test]
fn a_report_of_an_earlier_version_has_todays_names_and_an_unreadable_one_is_named() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(30).stale(20).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    let scan = service.scan(&project, &instance);
    let today = service.wait_until_finished(&scan);
    assert_eq!((&today["report"]["keys_reclaimed"], &today["problems"]), (&20.into(), &Value::Array(vec![])));

    let mut earlier = today["report"].to_string();
    for (name, before) in [("keys_reclaimed", "keys_released"), ("cpu_share", "duty"), ("throttled", "held")] {
        let (name, before) = (format!("\"{name}\":"), format!("\"{before}\":"));
        assert!(earlier.contains(&name), "{name} in: {earlier}");
        earlier = earlier.replace(&name, &before);
    }
    replace_report(&installation, &earlier);
    assert_eq!(service.task(&scan), today);

    replace_report(&installation, "{}");
    let unreadable = service.task(&scan);
    let problem = unreadable["problems"][0].as_str().expect("a sentence");
    assert!(problem.starts_with("the stored report of the task cannot be read: "), "{problem}");
    assert_eq!((&unreadable["report"], &unreadable["status"]), (&Value::Null, &"success".into()));
    for (page, words) in [
        (format!("tasks/{}", scan.id), "the stored report of the task cannot be read: "),
        (format!("instances/{instance}"), "report unreadable"),
    ] {
        let page = service.request("GET", &format!("/console/{project}/{page}"));
        assert!(page.text.contains(words), "{}", page.text);
    }
}
