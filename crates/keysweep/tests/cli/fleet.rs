//! Commands for many instances at once: labels, lists of tasks, scans, inventories.

use std::fs;

use keysweep_harness::{DataSet, Flavor, Server, id, installation};
use serde_json::{Value, json};

use crate::{
    client::{Remote, nowhere},
    common::stderr,
};

#[test]
fn labels_of_an_instance_are_added_replaced_and_removed_and_the_audit_trail_says_so() {
    let installation = installation!();
    let (project, instance) = installation.register_with(&nowhere(), &["--label", "env=test", "--label", "tier=1"]);
    let set = |options: &[&str]| {
        installation.run(&[&["admin", "--json", "instance", "set", "cache", "--project", &project], options].concat())
    };
    let output = set(&["--label", "env=prod", "--label", "team=web", "--remove-label", "tier"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let changed: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(changed["labels"], json!({ "env": "prod", "team": "web" }));
    let output = set(&["--pace", "gentle", "--window", "02:00-05:00 Europe/Paris"]);
    let changed: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&changed["pace"], &changed["labels"]["env"]), (&"gentle".into(), &"prod".into()), "{changed:#}");

    for (options, code, words) in [
        (&["--label", "env=a b"][..], 2, "invalid label \"env=a b\": a label's value has"),
        (&["--remove-label", "tier"], 2, "invalid label \"tier\": give the name of a label that the instance has"),
        (&["--label", "env=x", "--remove-label", "env"], 2, "but not both"),
        (&["--label", "zone=a", "--hold-level", "hold", "--hold-below", "50%"], 2, "below"),
        (&["--label", "zone=a", "--window", "soon"], 2, "window"),
        (&["--hold-below", "5%"], 2, "--hold-level"),
        (&[], 2, "--label"),
    ] {
        let output = set(options);
        assert_eq!(output.status.code(), Some(code), "{options:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{options:?}: {}", stderr(&output));
    }
    let listed = |label: &str| {
        let list = installation.admin(&["instance", "list", "--project", &project, "-l", label]);
        list.as_array().expect("instances").clone()
    };
    assert_eq!(listed("env=test").len(), 0);
    assert_eq!(
        listed("env=prod")[0]["labels"],
        json!({ "env": "prod", "team": "web" }),
        "refused options change nothing"
    );

    let service = installation.serve(&["--no-auth"]);
    let audit = service.get(&format!("/api/v1/projects/{project}/audit?limit=2"));
    let [pace, labels] = audit["entries"].as_array().expect("entries").as_slice() else { panic!("{audit:#}") };
    for entry in [pace, labels] {
        assert_eq!((&entry["action"], &entry["subject"]), (&"instance.change".into(), &instance.as_str().into()));
        assert_eq!(entry["actor"], "(command line)");
    }
    assert_eq!(labels["detail"], json!({ "labels": { "env": "prod", "team": "web" } }));
}

/// A service with three instances: `cache`, `lost` (unreachable) and `paused`.
fn fleet(server: &Server) -> Remote {
    let remote = Remote::start_with(&server.url(), "operator", &["--label", "env=prod"]);
    let installation = &remote.installation;
    installation.register_another(&remote.project, "lost", &nowhere(), &["--label", "env=prod", "--label", "zone=b"]);
    installation.register_another(&remote.project, "paused", &nowhere(), &["--label", "env=test"]);
    installation.admin(&["instance", "pause", "paused", "--project", &remote.project]);
    remote
}

#[test]
fn instances_are_listed_with_status_share_and_scans_as_table_and_csv() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).stale(50).load(&server);
    let remote = fleet(&server);
    remote.text(&["task", "create", "cache", "--wait"]);
    remote.run(&["task", "create", "lost", "--wait"]);
    remote.text(&[
        "autoscan",
        "set",
        "cache",
        "--enable",
        "--first-scan-at",
        "2099-01-01T02:00:00Z",
        "--interval",
        "24h",
        "--timeout",
        "48h",
    ]);
    let long = "l".repeat(60);
    let url = format!("redis-cluster://{long}.example:6379");
    remote.installation.register_another(&remote.project, "wide", &url, &[]);
    let table = remote.text(&["instance", "list"]);
    let line = |name: &str| {
        table.lines().find(|line| line.starts_with(&format!(" {name} "))).unwrap_or_else(|| panic!("{table}"))
    };
    assert!(line("cache").contains("ready") && line("cache").contains("2099-01-01 02:00:00 UTC"), "{table}");
    assert!(line("lost").contains("unreachable") && line("paused").contains("paused"), "{table}");
    assert!(
        !table.contains(&long) && line("wide").contains("redis-cluster://lll") && line("wide").contains('…'),
        "{table}"
    );

    let csv = remote.text(&["instance", "list", "-l", "env=prod", "--output", "csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("id,name,url,labels,paused,unreachable,"), "{csv}");
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(
        lines[1].contains(",cache,") && lines[1].contains(",success,") && lines[1].ends_with(",2099-01-01T02:00:00Z"),
        "{csv}"
    );
    assert!(lines[2].contains(",lost,") && lines[2].contains("\"env=prod,zone=b\""), "{csv}");
    let tasks = remote.text(&["task", "list", "--output", "csv"]);
    assert!(tasks.lines().nth(1).is_some_and(|line| line.contains(",lost,failed,unreachable,manual,")), "{tasks}");
    let json = remote.text(&["task", "list", "--output", "json"]);
    assert_eq!(json, remote.text(&["task", "list", "--json"]));
    assert_eq!(remote.run(&["task", "list", "--output", "xml"]).status.code(), Some(2));
}

/// Returns the outcome of each instance in the JSON of a scan.
fn outcomes(result: &Value) -> Vec<(&str, &str)> {
    let scans = result["instances"].as_array().expect("instances").iter();
    scans.map(|scan| (scan["name"].as_str().expect("a name"), scan["outcome"].as_str().expect("a word"))).collect()
}

#[test]
fn instances_are_scanned_by_label_and_each_has_its_line() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).stale(50).load(&server);
    let remote = fleet(&server);
    // A window that is closed now keeps the task of this instance waiting.
    let hour = |hours: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours)).strftime("%H:%M");
    let window = format!("{}-{} UTC", hour(5), hour(6));
    let options = ["--label", "env=test", "--window", &window, "--window-binds-manual"];
    remote.installation.register_another(&remote.project, "later", &server.url(), &options);
    let run = |arguments: &[&str]| {
        let output = remote.run(&[&["scan"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said, stderr(&output))
    };
    let json = |said: &str| serde_json::from_str::<Value>(said).expect("one JSON object");

    let (code, said, _) = run(&["--all", "--dry-run"]);
    let paused = "paused: refused: the instance is paused; resume it before scanning";
    let expected = ["cache: would be scanned", "later: would be scanned", "lost: would be scanned", paused];
    assert_eq!((code, said.lines().collect::<Vec<_>>()), (Some(1), expected.to_vec()));
    assert_eq!(remote.json(&["task", "list"])["tasks"], json!([]), "a dry run creates nothing");

    let (code, said, error) = run(&["-l", "env=prod", "--wait"]);
    assert_eq!(code, Some(3), "the one failure is an unreachable server: {said}{error}");
    let line =
        |begin: &str| said.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin}: {said}"));
    assert!(line("cache: task ").ends_with(" created") && line("lost: task ").ends_with(" created"), "{said}");
    assert_eq!(line("cache: success"), "cache: success, 50 keys reclaimed");
    assert!(line("lost: failed (unreachable), 0 keys").contains("check host, port and firewall"), "{said}");
    assert!(!said.contains("later") && !said.contains("paused"), "{said}");

    let (code, said, _) = run(&["-l", "env=test", "--json"]);
    let first = json(&said);
    assert_eq!((code, outcomes(&first)), (Some(1), vec![("later", "created"), ("paused", "refused")]));
    let (_, said, _) = run(&["-l", "env=test", "--json", "--dry-run"]);
    assert_eq!(outcomes(&json(&said)), [("later", "active"), ("paused", "refused")]);
    let (_, said, _) = run(&["-l", "env=test", "--json"]);
    let again = json(&said);
    assert_eq!(outcomes(&again), [("later", "active"), ("paused", "refused")]);
    assert_eq!(again["instances"][0]["task_id"], first["instances"][0]["task_id"], "no second task");

    let (code, said, error) = run(&["-l", "env=none"]);
    assert!(code == Some(1) && said.is_empty() && error.contains("no instance with -l env=none"), "{error}");
    let (code, _, error) = run(&["redis://127.0.0.1:1", "--all"]);
    assert!(code == Some(2) && error.contains("--all"), "{error}");
}

#[test]
fn a_reader_scans_no_instance_and_the_command_ends_at_the_first_refusal() {
    let remote = Remote::start_with(&nowhere(), "reader", &[]);
    let output = remote.run(&["scan", "--all"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("stopped after 0 of 1 instances"), "{}", stderr(&output));
}

#[test]
fn tasks_are_listed_across_instances_by_status_time_and_label() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).stale(50).load(&server);
    let remote = fleet(&server);
    let carts = id(&remote.json(&["task", "create", "cache", "--wait"]));
    let lost = remote.run(&["task", "create", "lost", "--wait", "--json"]);
    let lost = id(&serde_json::from_slice(&lost.stdout).expect("a task"));

    let table = remote.text(&["task", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[1].contains(&lost) && lines[1].contains("failed (unreachable)"), "{table}");
    assert!(lines[2].contains(&carts) && lines[2].contains("cache") && lines[2].trim_end().ends_with(" 50"), "{table}");
    let ids = |options: &[&str]| -> Vec<String> {
        let page = remote.json(&[&["task", "list"], options].concat());
        page["tasks"].as_array().expect("tasks").iter().map(id).collect()
    };
    assert_eq!(ids(&["--status", "failed", "--since", "24h", "-l", "env=prod"]), [lost.as_str()]);
    assert_eq!(ids(&["--since", "7d", "--limit", "1"]), [lost.as_str()]);
    assert_eq!(ids(&["-l", "env=prod", "-l", "zone=b"]), [lost.as_str()]);
    assert_eq!(ids(&["--since", "2099-01-01T00:00:00Z"]), [""; 0]);
    for (options, words) in [
        (&["--since", "yesterday"][..], "--since"),
        (&["--status", "done"], "--status"),
        (&["-l", "env"], "NAME=VALUE"),
        (&["cache", "--since", "24h"], "--since"),
        (&["--offset", "3"], "--offset"),
    ] {
        let output = remote.run(&[&["task", "list"], options].concat());
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{options:?}: {}", stderr(&output));
    }
}

#[test]
fn an_inventory_is_planned_confirmed_and_applied_and_removes_only_with_prune() {
    let remote = Remote::start_with(&nowhere(), "admin", &["--label", "env=old"]);
    let file = |name: &str, text: &str| {
        let path = remote.installation.folder().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    file("carts.secret", "hunter2-hunter2\n");
    let entry = |name: &str, more: &str| format!("  - name: {name}\n    url: {}\n{more}", nowhere());
    let carts = entry("carts", "    labels: {env: prod}\n    username: sweeper\n    password_file: carts.secret\n");
    let inventory = file("fleet.yaml", &format!("instances:\n{carts}{}", entry("sessions", "")));
    let apply = |options: &[&str]| {
        let output = remote.run(&[&["apply", "-f", &inventory], options].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said, stderr(&output))
    };
    let names = || -> Vec<String> {
        let list = remote.json(&["instance", "list"]);
        let names = list["instances"].as_array().expect("instances").iter();
        names.map(|instance| instance["name"].as_str().expect("a name").to_owned()).collect()
    };
    let plan = "add carts\nadd sessions\n";
    let kept = "keep cache, which the inventory does not list (--prune removes it)\n";
    assert_eq!(apply(&["--dry-run"]), (Some(0), format!("{kept}{plan}"), String::new()));
    let (code, _, error) = apply(&[]);
    assert!(code == Some(2) && error.contains("--yes"), "a script is not asked: {error}");
    assert_eq!(names(), ["cache"]);
    let (code, said, error) = apply(&["--yes"]);
    assert_eq!((code, said.lines().last()), (Some(0), Some("done: 2 added, 0 changed, 0 removed")), "{error}");
    assert_eq!(names(), ["cache", "carts", "sessions"]);
    let shown = remote.json(&["instance", "show", "carts"]);
    assert_eq!((&shown["labels"], &shown["has_password"]), (&json!({ "env": "prod" }), &json!(true)));
    assert_eq!(apply(&["--yes"]).1, format!("{kept}nothing to change\n"));

    file("carts.secret", "another-password\n");
    let (code, said, error) = apply(&["--yes", "--prune"]);
    assert_eq!(code, Some(0), "{error}");
    let expected = "remove cache, with its tasks\nchange carts: password\ndone: 0 added, 1 changed, 1 removed\n";
    assert_eq!(said, expected);
    assert_eq!(names(), ["carts", "sessions"]);
    let (_, said, _) = apply(&["--json", "--dry-run"]);
    let plan: Value = serde_json::from_str(&said).expect("one JSON object");
    assert_eq!((&plan["applied"], &plan["instances"][0]["action"]), (&json!(false), &"keep".into()));

    for (text, words) in [
        ("instances:\n  - name: a\n    url: redis://h\n    pasword: x\n", &["line 4: unknown field \"pasword\""][..]),
        (
            "instances:\n  - {name: a, url: redis://h, password_file: none}\n  - {name: b, url: redis://h, password_env: NOT_SET}\n",
            &["line 2: instance \"a\": password_file", "line 3: instance \"b\": password_env: the variable NOT_SET"],
        ),
        ("instances:\n  - {name: far, url: 'redis://8.8.8.8:6379'}\n", &["instance \"far\": ", "allowed_targets"]),
    ] {
        file("fleet.yaml", text);
        let (code, _, error) = apply(&["--yes", "--prune"]);
        assert_eq!(code, Some(2), "{error}");
        assert!(words.iter().all(|words| error.contains(words)), "{error}");
        assert_eq!(names(), ["carts", "sessions"], "{text}");
    }
}

#[test]
fn an_operator_applies_no_inventory() {
    let remote = Remote::start_with(&nowhere(), "operator", &[]);
    let path = remote.installation.folder().join("fleet.yaml");
    fs::write(&path, "instances: []\n").expect("written");
    let output = remote.run(&["apply", "-f", path.to_str().expect("UTF-8"), "--yes", "--prune"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
}
