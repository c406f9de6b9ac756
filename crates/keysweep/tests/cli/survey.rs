//! `keysweep survey` of an inventory.

use std::fs;

use keysweep_harness::{DataSet, Flavor, Server, free_port, installation};
use serde_json::Value;

#[test]
fn an_inventory_is_surveyed_by_label_and_what_is_unknown_is_no_zero() {
    let server = Server::with(Flavor::Valkey91).password("hunter2-hunter2").start();
    DataSet::new().live(900).stale(300).load(&server);
    let installation = installation!();
    let file = |name: &str, text: &str| {
        let path = installation.folder().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    file("carts.secret", "hunter2-hunter2\n");
    let inventory = file(
        "fleet.yaml",
        &format!(
            "instances:
  - name: carts
    url: redis://{}
    labels: {{env: prod}}
    password_file: carts.secret
  - name: lost
    url: redis://127.0.0.1:{}
    labels: {{env: prod}}
  - name: test
    url: redis://127.0.0.1:1
    labels: {{env: test}}
    password_env: NOT_SET_ANYWHERE
",
            server.address(),
            free_port()
        ),
    );
    let arguments = ["survey", "--inventory", &inventory, "-l", "env=prod", "--sort", "name", "--json"];
    let output = installation.run(&arguments);
    assert_eq!(output.status.code(), Some(1), "one was not reached: {output:?}");
    let rows: Value = serde_json::from_slice(&output.stdout).expect("one JSON array");
    let [carts, lost] = rows.as_array().expect("rows").as_slice() else { panic!("{rows:#}") };
    assert_eq!(
        (&carts["name"], &carts["keys"], &carts["address"]),
        (&"carts".into(), &1_200.into(), &server.address().to_string().into())
    );
    for field in ["address", "keys", "keys_with_ttl", "share", "bytes", "reclaimed"] {
        assert_eq!((&lost["name"], &lost[field]), (&"lost".into(), &Value::Null), "{field}");
    }
    let printed = installation.run(&arguments[..7]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    let line = printed.lines().find(|line| line.contains("lost")).expect("a row").to_owned();
    assert!(line.contains(" - ") && !line.contains(" 0 "), "{line}");

    for (text, words) in [
        (
            "instances:\n  - name: a\n    url: redis://h\n    pasword: hunter2-hunter2\n",
            "line 4: unknown field \"pasword\"",
        ),
        ("instances:\n  - name: a\n    url: redis://:hunter2-hunter2@h\n", "line 2: url: holds a password"),
        ("instances: []\n", "has no instance"),
    ] {
        let wrong = file("wrong.yaml", text);
        let output = installation.run(&["survey", "--inventory", &wrong]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains("wrong.yaml") && !said.contains("hunter2"), "{said}");
    }
    let unset = installation.run(&["survey", "--inventory", &inventory]);
    let said = String::from_utf8_lossy(&unset.stderr).into_owned();
    assert!(unset.status.code() == Some(2) && said.contains("NOT_SET_ANYWHERE"), "{said}");
}

#[test]
fn a_row_of_which_nothing_is_known_says_which_right_is_missing() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(21_000).load(&server);
    let rule = ["SETUSER", "sweeper", "on", ">hunter2-hunter2", "~*", "+@all", "-multi"];
    redis::cmd("ACL").arg(&rule).exec(&mut server.connection()).expect("a user");
    let installation = installation!();
    let url = format!("redis://{}", server.address());
    let survey = |format: &str| {
        let mut command = installation.command(&["survey", &url, "--user", "sweeper", format]);
        let output = command.env("REDISCLI_AUTH", "hunter2-hunter2").output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let rows: Value = serde_json::from_str(&survey("--json")).expect("JSON");
    let (row, verdict) = (&rows[0], &rows[0]["verdict"]);
    assert_eq!((&verdict["code"], &row["share"]), (&"unknown".into(), &Value::Null), "{row:#}");
    assert!(verdict["reason"].as_str().is_some_and(|reason| reason.contains("a right is missing")), "{row:#}");
    assert_eq!(verdict["remedy"], "grant +scan +multi +exec +dbsize +select");
    assert!(row["notes"][0].as_str().is_some_and(|note| note.contains("is not sampled")), "{row:#}");
    let csv = survey("--output=csv");
    assert!(csv.contains(",unknown,") && csv.contains("is not sampled") && csv.starts_with("name,address,"), "{csv}");
}

#[test]
fn a_server_with_two_names_is_sampled_once() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(19_000).stale(6_000).load(&server);
    let port = server.port();
    let urls = [format!("redis://127.0.0.1:{port}"), format!("redis://localhost:{port}")];
    let output = installation!().run(&["survey", &urls[0], &urls[1], "--json"]);
    assert!(output.status.success(), "{output:?}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("rows");
    let by_method = |method: &str| rows.iter().filter(|row| row["method"] == method).collect::<Vec<_>>();
    let [sampled, other] = [by_method("sample"), by_method("info")];
    let ([sampled], [other]) = (&sampled[..], &other[..]) else { panic!("{rows:#?}") };
    let reclaimed = 25_000 - server.held();
    assert!(reclaimed > 0 && sampled["reclaimed"] == reclaimed && other["reclaimed"] == 0, "{rows:#?}");
    assert!(other["notes"].to_string().contains("under another name"), "{other:#}");
    assert!(!sampled["notes"].to_string().contains("under another name"), "{sampled:#}");
}
