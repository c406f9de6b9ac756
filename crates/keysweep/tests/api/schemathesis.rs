//! schemathesis against the served OpenAPI document: whatever is sent to an operation, it answers with a status, a content
//! type, headers and a body that the document promises, and never with a 5xx.

use std::{fs, path::Path, process::Command};

use keysweep_harness::{DataSet, Flavor, Server, id, installation, scan_path};
use serde_json::json;

/// The same cases in each run.
const SEED: &str = "20261124";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method,ignored_auth,missing_required_header";

#[test]
fn heavy_every_operation_answers_as_the_document_says_whatever_is_sent_to_it() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(200).stale(100).load(&server);
    let installation = installation!();
    let project = id(&installation.admin(&["project", "add", "shop"]));
    let user = ["user", "add", "robot", "--project", "shop", "--role", "admin", "--password-stdin"];
    installation.admin_with_input(&user, "a password of a robot\n");
    let instance = |name| installation.register_another(&project, name, &server.url(), &[]);
    let (scanned, changed, removed) = (instance("scanned"), instance("changed"), instance("removed"));
    // What is registered on the way must not lead anywhere else.
    let service = installation.serve(&["--allowed-targets", "127.0.0.0/8"]);
    let sign_in = |project: &str| {
        json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": { "name": "robot", "password": "a password of a robot", "domain": { "name": "d" } } } },
        "scope": { "project": { "id": project } },
    } })
    };
    let [token, revoked] = [(); 2].map(|()| {
        let signed_in = service.send("POST", "/v3/auth/tokens", &[], sign_in(&project).to_string());
        signed_in.header("x-subject-token").expect("a token").to_owned()
    });
    let token = token.as_str();
    // An inventory could remove what the other operations are to find: it gets a project of its own.
    let spare = id(&installation.admin(&["project", "add", "spare"]));
    installation.admin(&["user", "grant", "robot", "--project", "spare", "--role", "admin"]);
    let signed_in = service.send("POST", "/v3/auth/tokens", &[], sign_in(&spare).to_string());
    let spare_token = signed_in.header("x-subject-token").expect("a token").to_owned();
    let task = id(&service.send("POST", &scan_path(&project, &scanned), &[("x-auth-token", token)], "").body);

    // Each operation goes where it finds something and takes nothing away from another; with ids of its own making it would
    // hear 404 only.
    let known = format!(
        "parameters = {{ project_id = {project:?}, instance_id = {scanned:?}, task_id = {task:?} }}\n\
         [[operations]]\n\
         include-operation-id = [\"change_instance\", \"pause_instance\", \"resume_instance\"]\n\
         parameters = {{ instance_id = {changed:?} }}\n\
         [[operations]]\n\
         include-operation-id = \"remove_instance\"\n\
         parameters = {{ instance_id = {removed:?} }}\n\
         [[operations]]\n\
         include-operation-id = \"revoke_token\"\n\
         parameters = {{ X-Subject-Token = {revoked:?} }}\n"
    );
    // `make soak` sends more.
    let factor = std::env::var("KEYSWEEP_SOAK").map_or(1, |factor| factor.parse::<u32>().expect("a number"));
    let all_but_inventory = ["--exclude-operation-id", "apply_inventory"];
    for (name, settings, examples, selection) in [
        ("known", known.as_str(), 25, all_but_inventory),
        ("any", "", 5, all_but_inventory),
        (
            "inventory",
            &format!("parameters = {{ project_id = {spare:?} }}"),
            10,
            ["--include-operation-id", "apply_inventory"],
        ),
    ] {
        let token = if name == "inventory" { spare_token.as_str() } else { token };
        let config = installation.folder().join(format!("{name}.toml"));
        fs::write(&config, settings).expect("written");
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let schemathesis = package.join("../../.cache/venv-schemathesis/bin/schemathesis");
        assert!(schemathesis.exists(), "schemathesis is not installed; run scripts/python (`make test` does)");
        let output = Command::new(schemathesis)
            .current_dir(installation.folder())
            .args(["--config-file", config.to_str().expect("plain"), "run"])
            .args([&format!("{}/openapi.json", service.base), "--seed", SEED])
            .args(selection)
            .args(["--max-examples", &(examples * factor).to_string()])
            .args(["--phases", "examples,coverage,fuzzing", "--checks", CHECKS, "--continue-on-failure"])
            .args(["--header", &format!("X-Auth-Token: {token}"), "--generation-database", "none", "--no-color"])
            // It stays open until the task has ended.
            .args(["--exclude-operation-id", "follow_task", "--request-timeout", "20"])
            .output()
            .expect("schemathesis starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
        println!("{said}");
    }
    // Nothing on the way has taken from the fuzzer what it was to find.
    assert_eq!(
        service.send("GET", &format!("/v2/{project}/instances/{scanned}"), &[("x-auth-token", token)], "").status,
        200
    );
}
