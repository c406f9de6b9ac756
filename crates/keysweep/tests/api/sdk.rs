//! Clients of the vendor's cloud and of OpenStack, unmodified except for their endpoint.

use keysweep_harness::{Cluster, DataSet, Flavor, Server, free_port, id, installation};
use serde_json::{Value, json};

#[test]
fn huaweis_python_sdk_calls_every_operation_with_its_sync_and_async_clients() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(2_000).stale(1_000).database(4).stale(500).load(&server);
    let installation = installation!();
    let project = id(&installation.admin(&["project", "add", "shop"]));
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "operator"]);
    let key = installation.admin(&["access-key", "add", "--user", "robot"]);
    let instance = id(&installation.admin(&["instance", "add", "cache", &server.url(), "--project", "shop"]));
    let service = installation.serve(&[]);
    let (access, secret) = (key["access"].as_str().expect("a key"), key["secret"].as_str().expect("a secret"));

    let said = crate::common::sdk::run(&[&service.base, &project, &instance, access, secret], "");

    for (client, interval, reclaimed) in [("sync", 1_800, loaded.stale), ("async", 3_600, 0)] {
        let said = &said[client];
        let created = &said["created"];
        assert_eq!((&created["status"], &created["scan_type"]), (&"waiting".into(), &"manual".into()));
        assert_eq!(created["instance_id"], instance);
        let record = &said["record"];
        assert_eq!((&record["status"], record["num"].as_u64()), (&"success".into(), Some(reclaimed)), "{client}");
        for time in ["created_at", "started_at", "finished_at"] {
            assert!(record[time].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{record:#}");
        }
        let records = if client == "sync" { 1 } else { 3 };
        let histories = json!({ "total": loaded.stale, "count": records });
        assert_eq!(said["histories"], histories, "{client}");
        assert_ne!(said["again"]["id"], created["id"], "the first task has ended, so this is a new one");
        assert_eq!(said["page"], json!([created["id"]]), "newest first: the second record is the first task");
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
    }
}

/// Operations on an instance, with the SDK's models of their answers.
const ON_INSTANCE: [(&str, &str, &str); 10] = [
    ("POST", "instances/{i}/scan-expire-keys-task", "CreateAutoExpireScanTaskResponse"),
    ("POST", "instances/{i}/auto-expire/scan", "ScanExpireKeyResponse"),
    ("GET", "instances/{i}/auto-expire/histories", "ShowExpireKeyScanInfoResponse"),
    ("PUT", "instances/{i}/scan-expire-keys/autoscan-config", "UpdateExpireAutoScanConfigResponse"),
    ("GET", "instances/{i}/scan-expire-keys/autoscan-config", "ShowExpireAutoScanConfigResponse"),
    ("GET", "instances/{i}", "ShowInstanceResponse"),
    ("GET", "instances/{i}/nodes", "ShowInstanceTopologyResponse"),
    ("GET", "instance/{i}/groups", "ListGroupReplicationInfoResponse"),
    ("GET", "instances/{i}/configs", "ListConfigurationsResponse"),
    ("GET", "instance/{i}/whitelist", "ShowIpWhitelistResponse"),
];
/// Fields of instances that other clients read and the SDK's models lack.
const OF_OTHER_CLIENTS: [&str; 5] = ["cache_mode", "db_number", "replica_count", "sharding_count", "task"];

#[test]
fn every_field_of_every_answer_has_the_type_of_the_sdks_models() {
    let server = Server::start(Flavor::Valkey91);
    let cluster = Cluster::start(Flavor::Valkey91, 2, false);
    let installation = installation!();
    let (project, single) = installation.register(&server.url());
    let of_cluster = installation.register_another(&project, "cluster", &cluster.url(), &[]);
    let absent = installation.register_another(&project, "absent", &format!("redis://127.0.0.1:{}", free_port()), &[]);
    let service = installation.serve(&["--no-auth"]);
    for instance in [&single, &of_cluster] {
        let task = service.scan(&project, instance);
        service.wait_for(&task.path, |task| task["status"] == "success");
    }

    let settings = json!({ "enable_auto_scan": true, "first_scan_at": "2999-01-01T00:00:00.000Z", "interval": 3600,
                           "timeout": 7200, "scan_keys_count": 10 });
    let list = ("GET", "instances".to_owned(), "ListInstancesResponse");
    let on = |instance: &String| {
        let instance = instance.clone();
        ON_INSTANCE.map(|(method, path, model)| (method, path.replace("{i}", &instance), model))
    };
    let operations = [&single, &of_cluster, &absent].into_iter().flat_map(on).chain([list]);
    let answers: Vec<Value> = operations
        .map(|(method, path, model)| {
            let body = if method == "PUT" { settings.to_string() } else { String::new() };
            let answer = service.send(method, &format!("/v2/{project}/{path}"), &[], body);
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
            json!({ "path": format!("{method} {path}"), "model": model, "body": answer.body })
        })
        .collect();
    let deviations = crate::common::sdk::run(&["models"], &Value::from(answers.clone()).to_string());

    assert_eq!(deviations.as_object().map(serde_json::Map::len), Some(answers.len()));
    for (path, found) in deviations.as_object().expect("an object") {
        for deviation in found.as_array().expect("a list").iter().map(|found| found.as_str().expect("a text")) {
            let is_expected = OF_OTHER_CLIENTS.iter().any(|field| {
                ["InstanceListInfo", "ShowInstanceResponse"]
                    .iter()
                    .any(|model| deviation.ends_with(&format!("{field}: not in {model}")))
            });
            assert!(is_expected, "{path}: {deviation}");
        }
    }
    let nodes =
        |instance: &str| service.get(&format!("/v2/{project}/instances/{instance}/nodes"))["redis_server"].clone();
    assert_eq!(nodes(&of_cluster).as_array().map(Vec::len), Some(2), "both primaries are known, so both were checked");
}

#[test]
fn openstacks_clients_sign_in_each_way_and_list_instances_through_the_catalog() {
    let installation = installation!();
    let project = id(&installation.admin(&["project", "add", "shop"]));
    installation.add_user("ada", "shop", "reader", "correct horse battery");
    let user = id(&installation.admin(&["user", "list"])[0]);
    installation.register_another(&project, "cache", &format!("redis://127.0.0.1:{}", free_port()), &[]);
    let service = installation.serve(&["--domain", "acme", "--region", "eu"]);
    let arguments = [service.base.as_str(), &project, &user];
    let said =
        crate::common::sdk::run_in("venv-openstack", "openstack_clients.py", &arguments, "correct horse battery");

    assert_eq!(said["warnings"], json!([]));
    let ways = said["keystoneauth"].as_object().expect("an object");
    assert_eq!(ways.len(), 8);
    for (way, found) in ways {
        assert_eq!(*found, if way == "domain" { json!("acme") } else { json!(["cache"]) }, "{way}");
    }
    assert_eq!(said["sdk"], json!({ "projects": ["shop"], "instances": ["cache"] }));
    let printed = &said["command_line"];
    let types: Vec<_> = printed["catalog"].as_array().expect("a catalog").iter().map(|entry| &entry["Type"]).collect();
    assert_eq!(types, ["identity", "iam", "dcs"]);
    assert_eq!(printed["token"]["project_id"], project);
    assert_eq!(printed["projects"][0]["Name"], "shop");
}
