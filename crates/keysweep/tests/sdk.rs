//! Huawei Cloud's Python SDK, unmodified except for its endpoint.

#[path = "common/sdk.rs"]
mod sdk;

use keysweep_harness::{DataSet, Flavor, Server, id, installation};
use serde_json::json;

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

    let said = sdk::run(&[&service.base, &project, &instance, access, secret], "");

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
