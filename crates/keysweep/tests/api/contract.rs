//! The DCS v2 contract: a request for every row of its error table, and the exact shapes of its answers.

mod requests;
mod servers;

use keysweep_harness::{Flavor, Server, free_port, installation};
use rstest::rstest;
use serde_json::{Value, json};

const OTHER: &str = "0123456789abcdef0123456789abcdef";

#[rstest]
#[case::unknown_path("GET", "/v2/{p}/nothing", 404, "DCS.4001", "The requested URL does not exist.")]
#[case::wrong_method(
    "DELETE",
    "/v2/{p}/instances/{i}/auto-expire/scan",
    405,
    "DCS.5001",
    "This request method is not allowed."
)]
#[case::bad_project("POST", "/v2/p/instances/{i}/auto-expire/scan", 400, "DCS.4002", "Invalid project ID format.")]
#[case::bad_instance("POST", "/v2/{p}/instances/i/auto-expire/scan", 400, "DCS.4061", "Invalid instance ID format.")]
#[case::no_instance(
    "POST",
    "/v2/{p}/instances/{o}/auto-expire/scan",
    404,
    "DCS.3022",
    "This DCS instance does not exist."
)]
#[case::other_project(
    "POST",
    "/v2/{o}/instances/{i}/auto-expire/scan",
    404,
    "DCS.3022",
    "This DCS instance does not exist."
)]
#[case::bad_offset(
    "GET",
    "/v2/{p}/instances/{i}/auto-expire/histories?offset=-1",
    400,
    "DCS.4800",
    "Invalid offset in the request."
)]
#[case::bad_limit(
    "GET",
    "/v2/{p}/instances/{i}/auto-expire/histories?limit=0",
    400,
    "DCS.4800",
    "Invalid limit in the request."
)]
#[case::bad_status(
    "GET",
    "/v2/{p}/instances/{i}/auto-expire/histories?status=done",
    400,
    "DCS.4800",
    "Invalid status in the request."
)]
#[case::absent_instances_config(
    "GET",
    "/v2/{p}/instances/{o}/scan-expire-keys/autoscan-config",
    404,
    "DCS.3022",
    "This DCS instance does not exist."
)]
#[case::bad_instances_limit("GET", "/v2/{p}/instances?limit=1001", 400, "DCS.4800", "Invalid limit in the request.")]
#[case::bad_instances_status("GET", "/v2/{p}/instances?status=up", 400, "DCS.4800", "Invalid status in the request.")]
#[case::bad_name_equal("GET", "/v2/{p}/instances?name_equal=1", 400, "DCS.4800", "Invalid name_equal in the request.")]
#[case::bad_instance_of_groups("GET", "/v2/{p}/instance/i/groups", 400, "DCS.4061", "Invalid instance ID format.")]
#[case::root("POST", "/", 405, "DCS.5001", "This request method is not allowed.")]
fn an_error_has_its_code_and_shape(
    #[case] method: &str,
    #[case] path: &str,
    #[case] status: u16,
    #[case] code: &str,
    #[case] message: &str,
) {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let path = path.replace("{p}", &project).replace("{i}", &instance).replace("{o}", OTHER);
    let answer = service.request(method, &path);
    assert_eq!(answer.status, status, "{:?}", answer.body);
    assert_eq!(answer.body, json!({ "error_code": code, "error_msg": message, "error_ext_msg": null }));
    assert!(answer.header("x-request-id").is_some());
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
}

#[test]
fn a_literal_placeholder_gets_an_explanation() {
    let installation = installation!();
    let service = installation.serve(&["--no-auth"]);
    let answer = service.request("POST", &format!("/v2/%7Bproject_id%7D/instances/{OTHER}/auto-expire/scan"));
    assert_eq!((answer.status, &answer.body["error_code"]), (400, &"DCS.4002".into()));
    assert!(answer.body["error_msg"].as_str().is_some_and(|text| text.contains("placeholder")), "{:?}", answer.body);
}

#[rstest]
#[case("/v2/{o}/instances/{o}/auto-expire/histories")]
#[case("/v2/not-even-an-id/instances/x/auto-expire/histories")]
fn a_request_without_credentials_learns_nothing_else(#[case] path: &str) {
    let installation = installation!();
    let service = installation.serve(&[]);
    let answer = service.request("GET", &path.replace("{o}", OTHER));
    assert_eq!((answer.status, &answer.body["error_code"]), (401, &"DCS.1003".into()));
    let own = service.request("GET", &format!("/api/v1/projects/{OTHER}/tasks/{OTHER}"));
    assert_eq!((own.status, &own.body["error"]["code"]), (401, &"unauthorized".into()));
}

#[test]
fn an_empty_history_is_an_empty_array() {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/v2/{project}/instances/{instance}/auto-expire/histories");
    let empty = json!({ "records": [], "instance_id": instance, "total": 0, "count": 0 });
    assert_eq!(service.get(&path), empty);
    assert_eq!(service.get(&format!("{path}?offset=10")), empty);
}

/// Returns valid auto-scan settings.
fn good_config() -> Value {
    json!({ "enable_auto_scan": true, "first_scan_at": "2999-01-01T00:00:00.000Z", "interval": 86400, "timeout": 172800,
            "scan_keys_count": 1000 })
}

fn config_with(name: &str, value: Value) -> Vec<u8> {
    let mut config = good_config();
    config[name] = value;
    config.to_string().into_bytes()
}

#[rstest]
#[case::empty(Vec::new(), "DCS.4004", "Empty request body.")]
#[case::blank(b" \n".to_vec(), "DCS.4004", "Empty request body.")]
#[case::no_json(b"{".to_vec(), "DCS.4005", "The message body contains invalid characters or is not in JSON format.")]
#[case::no_object(b"[]".to_vec(), "DCS.4005", "The message body contains invalid characters or is not in JSON format.")]
#[case::no_utf8(b"{\"enable_auto_scan\":\"\xff\"}".to_vec(), "DCS.4005", "The message body contains invalid characters or is not in JSON format.")]
#[case::nothing_said(b"{}".to_vec(), "DCS.4800", "Invalid enable_auto_scan in the request.")]
#[case::past(config_with("first_scan_at", json!("2020-01-01T00:00:00Z")), "DCS.4819", "The first_scan_at parameter is invalid. Its must be ISO format utc date-time. The time must be later than the current time.")]
#[case::interval(config_with("interval", json!(-1)), "DCS.4820", "The interval parameter is invalid. must Greater than or equal to 0.")]
#[case::timeout(config_with("timeout", json!(172799)), "DCS.4821", "The timeout parameter is invalid. Its must Greater than or equal to interval * 2, if interval is 0, timeout must Greater than 1 second.")]
#[case::count(config_with("scan_keys_count", json!(9)), "DCS.4822", "The scan_keys_count parameter is invalid. Its must Greater than or equal to 10, and Less than or equal to 100000.")]
fn refused_settings_name_the_reason_and_change_nothing(
    #[case] body: Vec<u8>,
    #[case] code: &str,
    #[case] message: &str,
) {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/v2/{project}/instances/{instance}/scan-expire-keys/autoscan-config");
    let answer = service.send("PUT", &path, &[], body);
    assert_eq!(answer.status, 400, "{:?}", answer.body);
    assert_eq!(answer.body, json!({ "error_code": code, "error_msg": message, "error_ext_msg": null }));
    assert_eq!(service.get(&path)["enable_auto_scan"], false);
}

#[test]
fn settings_are_saved_and_shown_and_may_be_sent_again() {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/v2/{project}/instances/{instance}/scan-expire-keys/autoscan-config");
    let unset = json!({ "instance_id": instance, "enable_auto_scan": false, "interval": 86400, "timeout": 172800,
                        "scan_keys_count": 10 });
    assert_eq!(service.get(&path), unset, "fields without a value are left out");

    let kept = service.send("PUT", &path, &[], good_config().to_string());
    assert_eq!(kept.status, 200, "{:?}", kept.body);
    let mut expected = good_config();
    expected["instance_id"] = instance.clone().into();
    expected["updated_at"] = kept.body["updated_at"].clone();
    assert_eq!(kept.body, expected);
    assert!(kept.body["updated_at"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')));
    assert_eq!(service.get(&path), kept.body);

    let off = service.send("PUT", &path, &[], config_with("enable_auto_scan", json!(false)));
    assert_eq!((off.status, &off.body["enable_auto_scan"], &off.body["interval"]), (200, &json!(false), &json!(86400)));
}

#[test]
fn a_broken_database_is_an_internal_error_without_details() {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    crate::common::break_database(&installation);
    for (method, path) in [
        ("GET", format!("/v2/{project}/instances")),
        ("GET", format!("/v2/{project}/instances/{instance}/auto-expire/histories")),
        ("POST", format!("/v2/{project}/instances/{instance}/scan-expire-keys-task")),
    ] {
        let answer = service.request(method, &path);
        assert_eq!(answer.status, 500, "{path}: {:?}", answer.body);
        let expected =
            json!({ "error_code": "DCS.5000", "error_msg": "Internal service error.", "error_ext_msg": null });
        assert_eq!(answer.body, expected, "{path}");
        assert!(answer.header("x-request-id").is_some());
    }
}

#[test]
fn errors_of_the_native_api_have_its_own_shape() {
    let installation = installation!();
    let service = installation.serve(&["--no-auth"]);
    for (method, path, status, code) in [
        ("GET", "/api/v1/nothing".to_owned(), 404, "no_such_url"),
        ("PUT", format!("/api/v1/projects/{OTHER}/tasks/{OTHER}"), 405, "no_such_method"),
        ("GET", format!("/api/v1/projects/{OTHER}/tasks/{OTHER}"), 404, "not_found"),
        ("GET", format!("/api/v1/projects/p/tasks/{OTHER}"), 400, "invalid"),
        ("GET", format!("/api/v1/projects/{OTHER}/tasks/t"), 400, "invalid"),
    ] {
        let answer = service.request(method, &path);
        assert_eq!((answer.status, &answer.body["error"]["code"]), (status, &code.into()), "{method} {path}");
        assert!(answer.header("x-request-id").is_some());
    }
}

#[test]
fn a_refused_request_is_logged_with_its_id() {
    let installation = installation!();
    let service = installation.serve(&["--no-auth"]);
    let answer = service.request("GET", "/v2/nothing");
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let (_, log) = service.terminate();
    assert!(log.iter().any(|line| line.contains(&id) && line.contains("404")), "{id} is not in {log:#?}");
}

#[test]
fn instances_are_listed_with_the_types_that_clients_parse() {
    let server = Server::start(Flavor::Redis70);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let down = format!("redis://:secret@127.0.0.1:{}", free_port());
    installation.admin(&["instance", "add", "down", &down, "--project", &project]);
    let service = installation.serve(&["--no-auth"]);
    let list = service.get(&format!("/v2/{project}/instances"));
    assert_eq!(list["instance_num"], 2);
    let first = &list["instances"][0];
    assert_eq!((&first["instance_id"], &first["name"]), (&instance.clone().into(), &"cache".into()));
    assert_eq!((&first["engine"], &first["engine_version"]), (&"Redis".into(), &"7.0".into()));
    assert_eq!((&first["status"], &first["no_password_access"]), (&"RUNNING".into(), &"true".into()));
    assert_eq!((&first["ip"], first["port"].as_u64()), (&"127.0.0.1".into(), Some(u64::from(server.port()))));
    for number in ["capacity", "max_memory", "used_memory", "db_number", "replica_count", "sharding_count"] {
        assert!(first[number].is_i64(), "{number}: {first:#}");
    }
    assert_eq!((&first["cache_mode"], &first["task"]), (&"single".into(), &Value::Null));
    assert!(first["capacity_minor"].is_string());
    let second = &list["instances"][1];
    assert_eq!((&second["status"], &second["no_password_access"]), (&"ERROR".into(), &"false".into()));
    assert_eq!(service.get(&format!("/v2/{project}/instances/{instance}")), *first);

    for (query, names) in [
        ("?limit=1", json!(["cache"])),
        ("?offset=1", json!(["down"])),
        ("?offset=2", json!([])),
        ("?name=ow", json!(["down"])),
        ("?name=ow&name_equal=true", json!([])),
        ("?name=down&name_equal=true", json!(["down"])),
        ("?status=RUNNING", json!(["cache"])),
        (&format!("?instance_id={instance}"), json!(["cache"])),
        ("?name=&status=", json!(["cache", "down"])),
    ] {
        let list = service.get(&format!("/v2/{project}/instances{query}"));
        let found: Vec<&Value> =
            list["instances"].as_array().expect("an array").iter().map(|instance| &instance["name"]).collect();
        assert_eq!(json!(found), names, "{query}");
    }

    let nodes = service.get(&format!("/v2/{project}/instances/{instance}/nodes"));
    let node = &nodes["redis_server"][0];
    assert_eq!((&node["ip"], &node["port"]), (&"127.0.0.1".into(), &server.port().to_string().into()));
    assert!(node["max_memory"].is_string() && node["used_memory"].is_string() && node["db_num"].is_string());
    let groups = service.get(&format!("/v2/{project}/instance/{instance}/groups"));
    let replica = &groups["group_list"][0]["replication_list"][0];
    assert_eq!((&groups["group_count"], &replica["replication_role"]), (&json!(1), &"master".into()));
    assert_eq!(replica["node_id"], node["node_id"]);
}
