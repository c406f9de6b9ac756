//! Huawei Cloud's own Python SDK, unmodified, with only its endpoint pointed at keysweep.

mod common;

use std::{path::Path, process::Command};

use keysweep_harness::{DataSet, Flavor, Installation, Server, free_port, id};
use serde_json::Value;

#[test]
fn huaweis_python_sdk_creates_a_task_and_reads_the_histories() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(2_000).dead(1_000).database(4).dead(500).load(&server);
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
    let project = id(&installation.admin(&["project", "add", "shop"]));
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "operator"]);
    let key = installation.admin(&["access-key", "add", "--user", "robot"]);
    let instance = id(&installation.admin(&["instance", "add", "cache", &server.url(), "--project", "shop"]));
    let service = installation.serve(&[]);
    let (access, secret) = (key["access"].as_str().expect("a key"), key["secret"].as_str().expect("a secret"));

    let said = sdk(&[&service.base, &project, &instance, access, secret]);

    let created = &said["created"];
    assert_eq!((&created["status"], &created["scan_type"]), (&"waiting".into(), &"manual".into()));
    assert_eq!(created["instance_id"], instance);
    let record = &said["record"];
    assert_eq!((&record["status"], record["num"].as_u64()), (&"success".into(), Some(loaded.dead)));
    for time in ["created_at", "started_at", "finished_at"] {
        assert!(record[time].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{record:#}");
    }
    assert_eq!(
        (said["histories"]["total"].as_u64(), said["histories"]["count"].as_u64()),
        (Some(loaded.dead), Some(1))
    );
    assert_ne!(said["again"]["id"], created["id"], "the first task has ended, so this is a new one");
    assert_eq!(said["page"], serde_json::json!([created["id"]]), "newest first: the second record is the first task");
    for refused in ["wrong_secret", "unknown_key"] {
        assert_eq!((&said[refused]["status"], &said[refused]["code"]), (&401.into(), &"APIGW.0301".into()), "{said:#}");
    }
    assert_eq!(
        (&said["absent_instance"]["status"], &said["absent_instance"]["code"]),
        (&404.into(), &"DCS.3022".into())
    );
    assert_eq!(said["bad_limit"]["message"], "Invalid limit in the request.");
    for (client, interval) in [("sync", 1_800), ("async", 3_600)] {
        let said = &said[client];
        assert_eq!(
            (&said["list"]["instance_num"], &said["list"]["instances"][0]["instance_id"]),
            (&1.into(), &instance.clone().into())
        );
        assert_eq!((&said["show"]["name"], &said["show"]["status"]), (&"cache".into(), &"RUNNING".into()));
        assert_eq!(said["topology"]["redis_server"][0]["port"], server.port().to_string());
        assert_eq!(said["groups"]["group_list"][0]["replication_list"][0]["replication_role"], "master");
        assert_eq!(
            (&said["config"]["scan_keys_count"], &said["config"]["interval"]),
            (&20_000.into(), &interval.into())
        );
        assert_eq!(said["put"], said["config"]);
        assert_eq!((&said["bad_config"]["status"], &said["bad_config"]["code"]), (&400.into(), &"DCS.4819".into()));
        assert_eq!((&said["bad_instance"]["status"], &said["bad_instance"]["code"]), (&400.into(), &"DCS.4061".into()));
    }
}

#[test]
fn huaweis_python_sdk_raises_the_exception_of_each_class_of_error() {
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
    let project = id(&installation.admin(&["project", "add", "shop"]));
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "reader"]);
    let key = installation.admin(&["access-key", "add", "--user", "robot"]);
    let url = format!("redis://127.0.0.1:{}", free_port());
    let instance = id(&installation.admin(&["instance", "add", "cache", &url, "--project", "shop"]));
    let service = installation.serve(&[]);
    let (access, secret) = (key["access"].as_str().expect("a key"), key["secret"].as_str().expect("a secret"));
    let refusals = |project: &str, instance: &str, secret: &str| {
        sdk(&[&service.base, project, instance, access, secret, "refusals"])
    };
    let absent = "0".repeat(32);
    let both = |said: &Value, kind: &str, status: u16, code: &str| {
        for client in ["sync", "async"] {
            let said = &said[client];
            assert_eq!(
                (&said["kind"], &said["status"], &said["code"]),
                (&kind.into(), &status.into(), &code.into()),
                "{client}: {said:#}"
            );
        }
    };
    let client_error = "ClientRequestException";
    both(&refusals(&project, "no-id", secret), client_error, 400, "DCS.4061");
    both(&refusals(&project, &instance, "another secret"), client_error, 401, "APIGW.0301");
    both(&refusals(&project, &absent, secret), client_error, 404, "DCS.3022");
    let change = &refusals(&project, &instance, secret)["change"];
    assert_eq!(
        (&change["kind"], &change["status"], &change["code"]),
        (&client_error.into(), &403.into(), &"DCS.2003".into())
    );
    common::break_database(&installation);
    both(&refusals(&project, &instance, secret), "ServerResponseException", 500, "DCS.5000");
}

fn sdk(arguments: &[&str]) -> Value {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = package.join("../../.cache/venv/bin/python");
    assert!(python.exists(), "the SDK is not installed; run scripts/python (`make test` does)");
    let output =
        Command::new(python).arg(package.join("tests/sdk.py")).args(arguments).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}
