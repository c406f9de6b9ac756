//! The shapes of refusals, one request a row of the contract's table as far as the operations are there.

use keysweep_harness::{Installation, free_port};
use rstest::rstest;

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
fn a_refusal_has_its_code_and_shape(
    #[case] method: &str,
    #[case] path: &str,
    #[case] status: u16,
    #[case] code: &str,
    #[case] message: &str,
) {
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let path = path.replace("{p}", &project).replace("{i}", &instance).replace("{o}", OTHER);
    let answer = service.request(method, &path);
    assert_eq!(answer.status, status, "{:?}", answer.body);
    assert_eq!(answer.body, serde_json::json!({ "error_code": code, "error_msg": message, "error_ext_msg": null }));
    assert!(answer.header("x-request-id").is_some());
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
}

#[test]
fn a_literal_placeholder_is_told_what_it_is() {
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
    let service = installation.serve(&["--no-auth"]);
    let answer = service.request("POST", &format!("/v2/%7Bproject_id%7D/instances/{OTHER}/auto-expire/scan"));
    assert_eq!((answer.status, &answer.body["error_code"]), (400, &"DCS.4002".into()));
    assert!(answer.body["error_msg"].as_str().is_some_and(|text| text.contains("placeholder")), "{:?}", answer.body);
}

#[rstest]
#[case("/v2/{o}/instances/{o}/auto-expire/histories")]
#[case("/v2/not-even-an-id/instances/x/auto-expire/histories")]
fn without_credentials_nothing_is_told_but_that(#[case] path: &str) {
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
    let service = installation.serve(&[]);
    let answer = service.request("GET", &path.replace("{o}", OTHER));
    assert_eq!((answer.status, &answer.body["error_code"]), (401, &"DCS.1003".into()));
    let own = service.request("GET", &format!("/api/v1/projects/{OTHER}/tasks/{OTHER}"));
    assert_eq!((own.status, &own.body["error"]["code"]), (401, &"unauthorized".into()));
}

#[test]
fn an_empty_history_is_an_empty_array() {
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/v2/{project}/instances/{instance}/auto-expire/histories");
    let empty = serde_json::json!({ "records": [], "instance_id": instance, "total": 0, "count": 0 });
    assert_eq!(service.get(&path), empty);
    assert_eq!(service.get(&format!("{path}?offset=10")), empty);
}
