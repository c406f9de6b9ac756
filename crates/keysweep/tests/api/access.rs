//! Access control: tokens, signatures, roles and lockouts.

mod catalog;
mod hosts;
mod roles;
mod scopes;
mod streams;

use std::time::{SystemTime, UNIX_EPOCH};

use keysweep_harness::{Answer, Installation, Service, Signer, free_port, id, installation, scan_path};
use rstest::rstest;
use serde_json::{Value, json};

const OTHER: &str = "0123456789abcdef0123456789abcdef";
const PASSWORD: &str = "correct horse battery";

/// Adds two projects with one instance each and no users.
fn two_projects(installation: &Installation) -> [(String, String); 2] {
    ["shop", "search"].map(|name| {
        let project = id(&installation.admin(&["project", "add", name]));
        let url = format!("redis://127.0.0.1:{}", free_port());
        let instance = id(&installation.admin(&["instance", "add", "cache", &url, "--project", name]));
        (project, instance)
    })
}

fn add_user(installation: &Installation, name: &str, project: &str, role: &str) {
    installation.add_user(name, project, role, PASSWORD);
}

fn add_key(installation: &Installation, user: &str) -> Signer {
    let key = installation.admin(&["access-key", "add", "--user", user]);
    let text = |name: &str| key[name].as_str().expect("a text").to_owned();
    Signer { access: text("access"), secret: text("secret") }
}

fn sign_in(service: &Service, name: &str, password: &str, scope: Value) -> Answer {
    let body = json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": {
            "name": name, "password": password, "domain": { "name": "acme" },
        } } },
        "scope": scope,
    } });
    service.send("POST", "/v3/auth/tokens", &[], body.to_string())
}

fn token(service: &Service, name: &str, project: &str) -> String {
    let answer = sign_in(service, name, PASSWORD, json!({ "project": { "id": project } }));
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    answer.header("x-subject-token").expect("a token").to_owned()
}

fn with_token(service: &Service, token: &str, method: &str, path: &str, body: &str) -> Answer {
    service.send(method, path, &[("X-Auth-Token", token)], body)
}

fn signed(service: &Service, signer: &Signer, method: &str, path: &str, body: &str) -> Answer {
    send(service, method, path, &signer.headers(method, path, body.as_bytes()), body)
}

fn send(service: &Service, method: &str, path: &str, headers: &[(String, String)], body: &str) -> Answer {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    service.send(method, path, &headers, body)
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["error_code"].as_str().unwrap_or_default())
}

const OFF: &str = r#"{"enable_auto_scan":false}"#;

#[test]
fn checks_come_in_their_documented_order() {
    let installation = installation!();
    let [(project, _), (other, _)] = two_projects(&installation);
    add_user(&installation, "ada", "shop", "reader");
    let service = installation.serve(&[]);
    let token = token(&service, "ada", &project);
    let put = |token: &str, project: &str, instance: &str| {
        let path = format!("/v2/{project}/instances/{instance}/scan-expire-keys/autoscan-config");
        let answer = with_token(&service, token, "PUT", &path, "no json");
        (answer.status, answer.body["error_code"].as_str().unwrap_or_default().to_owned())
    };
    let expect = |code: &str, status: u16| (status, code.to_owned());
    assert_eq!(put("no-token", "p", "i"), expect("DCS.1001", 401), "credentials");
    assert_eq!(put(&token, "p", "i"), expect("DCS.4002", 400), "project id format");
    assert_eq!(put(&token, &other, "i"), expect("DCS.1004", 401), "project match");
    assert_eq!(put(&token, &project, "i"), expect("DCS.4061", 400), "instance id format");
    assert_eq!(put(&token, &project, OTHER), expect("DCS.2003", 403), "role");
    installation.admin(&["user", "grant", "ada", "--project", "shop", "--role", "operator"]);
    assert_eq!(put(&token, &project, OTHER), expect("DCS.3022", 404), "existence, before the body");
}

#[test]
fn a_token_is_issued_in_the_documented_shape_and_kept_hashed() {
    let installation = installation!();
    let [(project, instance), _] = two_projects(&installation);
    add_user(&installation, "ada", "shop", "operator");
    let service = installation.serve(&[]);
    for scope in [json!({ "project": { "id": project } }), json!({ "project": { "name": "shop" } }), Value::Null] {
        let answer = sign_in(&service, "ada", PASSWORD, scope);
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        let body = &answer.body["token"];
        assert_eq!(body["methods"], json!(["password"]));
        assert_eq!(body["user"]["name"], "ada");
        assert_eq!(
            (&body["user"]["domain"]["name"], &body["user"]["password_expires_at"]),
            (&"default".into(), &"".into())
        );
        assert_eq!((&body["project"]["id"], &body["project"]["name"]), (&project.clone().into(), &"shop".into()));
        assert_eq!(body["roles"][0]["name"], "operator");
        let time = |name: &str| body[name].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
        assert_eq!(time("expires_at").duration_since(time("issued_at")).as_hours(), 24);
        let token = answer.header("x-subject-token").expect("a token");
        let path = format!("/v2/{project}/instances/{instance}");
        assert_eq!(with_token(&service, token, "GET", &path, "").status, 200);
        for file in std::fs::read_dir(installation.folder()).expect("readable") {
            let bytes = std::fs::read(file.expect("an entry").path()).expect("readable");
            for secret in [token.as_bytes(), PASSWORD.as_bytes()] {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret), "a secret is stored in the clear");
            }
        }
    }
}

#[rstest]
#[case::wrong_password("ada", "wrong horse battery", json!({ "project": { "name": "shop" } }), 401)]
#[case::unknown_user("nobody", PASSWORD, json!({ "project": { "name": "shop" } }), 401)]
#[case::user_without_a_password("robot", PASSWORD, json!({ "project": { "name": "shop" } }), 401)]
#[case::another_project("ada", PASSWORD, json!({ "project": { "name": "search" } }), 401)]
#[case::no_such_project("ada", PASSWORD, json!({ "project": { "name": "nothing" } }), 401)]
fn a_failed_sign_in_does_not_reveal_its_cause(
    #[case] name: &str,
    #[case] password: &str,
    #[case] scope: Value,
    #[case] status: u16,
) {
    let installation = installation!();
    two_projects(&installation);
    add_user(&installation, "ada", "shop", "operator");
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "operator"]);
    let service = installation.serve(&[]);
    let answer = sign_in(&service, name, password, scope);
    assert_eq!(answer.status, status);
    let error = &answer.body["error"];
    assert_eq!((&error["code"], &error["title"]), (&json!(401), &"Unauthorized".into()));
    let message = error["message"].as_str().expect("a message");
    assert!(message == "The username or password is wrong." || message == "The user has no role on this project.");
    assert!(answer.header("x-subject-token").is_none());
}

#[test]
fn malformed_sign_ins_are_iam_errors() {
    let installation = installation!();
    let service = installation.serve(&[]);
    for (method, path, body, status) in [
        ("POST", "/v3/auth/tokens", "", 400),
        ("POST", "/v3/auth/tokens", "{\"auth\":{}}", 400),
        ("POST", "/v3/auth/tokens", "\u{0}", 400),
        ("PUT", "/v3/auth/tokens", "", 405),
        ("GET", "/v3/auth/tokens", "", 401),
        ("GET", "/v3/auth/domains", "", 401),
        ("GET", "/v3/auth/catalog", "", 401),
        ("GET", "/v3/nothing", "", 404),
        ("GET", "/v3/projects", "", 401),
    ] {
        let answer = service.send(method, path, &[], body);
        assert_eq!((answer.status, answer.body["error"]["code"].as_u64()), (status, Some(status.into())), "{path}");
        assert!(answer.header("x-request-id").is_some());
    }
    let large = service.send("POST", "/v3/auth/tokens", &[], vec![b' '; 1024 * 1024 + 1]);
    assert_eq!((large.status, &large.body["error"]["code"]), (413, &json!(413)));
}

#[test]
fn invalid_expired_missing_and_foreign_tokens_have_different_codes() {
    let installation = installation!();
    let [(project, instance), (other, other_instance)] = two_projects(&installation);
    add_user(&installation, "ada", "shop", "operator");
    installation.admin(&["user", "grant", "ada", "--project", "search", "--role", "reader"]);
    let service = installation.serve(&[]);
    let path = format!("/v2/{project}/instances/{instance}");
    let good = token(&service, "ada", &project);
    assert_eq!(with_token(&service, &good, "GET", &path, "").status, 200);
    assert_eq!(code(&with_token(&service, "0123", "GET", &path, "")), (401, "DCS.1001"));
    assert_eq!(code(&service.send("GET", &path, &[], "")), (401, "DCS.1003"));
    let elsewhere = format!("/v2/{other}/instances/{other_instance}");
    assert_eq!(
        code(&with_token(&service, &good, "GET", &elsewhere, "")),
        (401, "DCS.1004"),
        "though ada has a role there"
    );

    crate::common::tokens::expire(&installation);
    let expired = with_token(&service, &good, "GET", &path, "");
    assert_eq!((code(&expired), &expired.body["error_msg"]), ((401, "DCS.1002"), &"Token expired.".into()));
}

#[test]
fn tokens_end_when_revoked_and_when_their_user_changes() {
    let installation = installation!();
    let [(project, instance), _] = two_projects(&installation);
    add_user(&installation, "ada", "shop", "operator");
    add_user(&installation, "bob", "shop", "admin");
    let service = installation.serve(&[]);
    let path = format!("/v2/{project}/instances/{instance}");
    let is_good = |token: &str| with_token(&service, token, "GET", &path, "").status == 200;
    let (first, second, bobs) =
        (token(&service, "ada", &project), token(&service, "ada", &project), token(&service, "bob", &project));

    let revoke = |by: &str, what: &str| {
        service.send("DELETE", "/v3/auth/tokens", &[("X-Auth-Token", by), ("X-Subject-Token", what)], "").status
    };
    assert_eq!(revoke(&bobs, &first), 404, "not even an admin's business");
    assert!(is_good(&first));
    assert_eq!(revoke(&second, &first), 204);
    assert!(!is_good(&first) && is_good(&second));

    installation.admin_with_input(&["user", "passwd", "ada", "--password-stdin"], "another password");
    assert!(!is_good(&second), "a new password ends all tokens");
    assert_eq!(sign_in(&service, "ada", PASSWORD, Value::Null).status, 401);
    assert_eq!(sign_in(&service, "ada", "another password", Value::Null).status, 201);

    installation.admin(&["user", "disable", "bob"]);
    assert!(!is_good(&bobs));
    assert_eq!(sign_in(&service, "bob", PASSWORD, Value::Null).status, 401);
    installation.admin(&["user", "enable", "bob"]);
    let bobs = token(&service, "bob", &project);
    installation.admin(&["user", "revoke", "bob", "--project", "shop"]);
    assert!(!is_good(&bobs));
}

#[test]
fn too_many_wrong_passwords_lock_the_address_out() {
    let installation = installation!();
    two_projects(&installation);
    add_user(&installation, "ada", "shop", "operator");
    let service = installation.serve(&[]);
    for attempt in 0..11 {
        let answer = sign_in(&service, &format!("nobody{attempt}"), "wrong password", Value::Null);
        assert_eq!(answer.status, 401, "attempt {attempt}");
    }
    let locked = sign_in(&service, "ada", PASSWORD, Value::Null);
    assert_eq!((locked.status, &locked.body["error"]["code"]), (429, &json!(429)));
    let wait: u64 = locked.header("retry-after").and_then(|wait| wait.parse().ok()).expect("a number of seconds");
    assert!((1..=300).contains(&wait), "{wait}");
    let message = locked.body["error"]["message"].as_str().expect("a message");
    assert!(message.contains(&format!("{wait} seconds")), "{message}");
}

#[test]
fn a_caller_lists_its_own_projects_and_a_region_finds_the_only_one() {
    let installation = installation!();
    let [(project, _), (other, _)] = two_projects(&installation);
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "reader"]);
    let key = add_key(&installation, "robot");
    let service = installation.serve(&[]);
    let ids = |path: &str| {
        let answer = signed(&service, &key, "GET", path, "");
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let projects = answer.body["projects"].as_array().expect("an array").clone();
        projects.iter().map(|project| project["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("/v3/projects"), [project.as_str()]);
    assert_eq!(ids("/v3/projects?name=cn-north-4"), [project.as_str()], "the only one there is");
    installation.admin(&["user", "grant", "robot", "--project", "search", "--role", "reader"]);
    assert_eq!(ids("/v3/projects"), [other.as_str(), project.as_str()]);
    assert_eq!(ids("/v3/projects?name=search"), [other.as_str()]);
    assert_eq!(ids("/v3/projects?name=cn-north-4"), Vec::<String>::new(), "no telling which one is meant");
}

#[test]
fn the_signature_of_a_create_is_accepted_twice_and_that_of_another_change_once() {
    let installation = installation!();
    let [(project, instance), _] = two_projects(&installation);
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "operator"]);
    let key = add_key(&installation, "robot");
    let service = installation.serve(&[]);
    let create = scan_path(&project, &instance);
    let headers = key.headers("POST", &create, b"");
    for _ in 0..2 {
        assert_eq!(send(&service, "POST", &create, &headers, "").status, 200);
    }
    let config = format!("/v2/{project}/instances/{instance}/scan-expire-keys/autoscan-config");
    let headers = key.headers("PUT", &config, OFF.as_bytes());
    assert_eq!(send(&service, "PUT", &config, &headers, OFF).status, 200);
    let again = send(&service, "PUT", &config, &headers, OFF);
    assert_eq!(code(&again), (401, "APIGW.0301"));
    assert!(again.body["error_msg"].as_str().is_some_and(|text| text.contains("used before")), "{:?}", again.body);
    let read = key.headers("GET", &config, b"");
    for _ in 0..2 {
        assert_eq!(send(&service, "GET", &config, &read, "").status, 200);
    }
}

#[test]
fn answers_do_not_reveal_which_access_keys_exist() {
    let installation = installation!();
    let [(project, instance), _] = two_projects(&installation);
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "operator"]);
    let key = add_key(&installation, "robot");
    let disabled = add_key(&installation, "robot");
    installation.admin(&["access-key", "disable", &disabled.access]);
    let service = installation.serve(&[]);
    let path = format!("/v2/{project}/instances/{instance}");
    let unknown = Signer { access: "NOSUCHACCESSKEY00000".into(), ..key.clone() };
    let wrong = Signer { secret: "another secret".into(), ..key.clone() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let anonymous = |mut answer: Answer| {
        answer.body["request_id"] = Value::Null;
        (answer.status, answer.body)
    };
    for seconds in [now, now - 3_600, now + 3_600] {
        let answers = [&unknown, &wrong, &disabled]
            .map(|signer| anonymous(send(&service, "GET", &path, &signer.headers_at(seconds, "GET", &path, b""), "")));
        assert_eq!(answers[0].0, 401);
        assert_eq!(answers[0], answers[1], "{seconds}");
        if seconds == now {
            assert_eq!(answers[0], answers[2], "a disabled key is as good as none");
        }
    }
    assert_eq!(signed(&service, &key, "GET", &path, "").status, 200);
}

#[test]
fn six_bad_signatures_lock_that_key_for_that_address_and_no_other_key() {
    let installation = installation!();
    let [(project, instance), _] = two_projects(&installation);
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "operator"]);
    let (key, other) = (add_key(&installation, "robot"), add_key(&installation, "robot"));
    let unknown = Signer { access: "NOSUCHACCESSKEY00000".into(), secret: "x".into() };
    let service = installation.serve(&[]);
    let path = format!("/v2/{project}/instances/{instance}");
    let wrong = Signer { secret: "another secret".into(), ..key.clone() };
    for _ in 0..6 {
        assert_eq!(code(&signed(&service, &wrong, "GET", &path, "")), (401, "APIGW.0301"));
        assert_eq!(code(&signed(&service, &unknown, "GET", &path, "")), (401, "APIGW.0301"));
    }
    let locked = signed(&service, &key, "GET", &path, "");
    assert_eq!(code(&locked), (401, "APIGW.0301"));
    let message = locked.body["error_msg"].as_str().expect("a message");
    assert!(message.contains("locked"), "{message}");
    let locked_unknown = signed(&service, &unknown, "GET", &path, "");
    assert_eq!(locked_unknown.body["error_msg"], message, "an unknown key locks as well");
    assert_eq!(signed(&service, &other, "GET", &path, "").status, 200);
}

#[test]
fn users_are_listed_disabled_and_removed_on_the_command_line() {
    let installation = installation!();
    let [(project, instance), _] = two_projects(&installation);
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "operator"]);
    let key = add_key(&installation, "robot");
    let service = installation.serve(&[]);
    let path = format!("/v2/{project}/instances/{instance}");
    let is_good = || signed(&service, &key, "GET", &path, "").status == 200;
    assert!(is_good());
    let users = installation.admin(&["user", "list"]);
    assert_eq!(users[0]["name"], "robot");
    assert_eq!(users[0]["roles"], json!([{ "project": "shop", "project_id": project, "role": "operator" }]));
    assert_eq!((&users[0]["disabled"], &users[0]["has_password"]), (&json!(false), &json!(false)));
    let keys = installation.admin(&["access-key", "list"]);
    assert_eq!((&keys[0]["access"], &keys[0]["user"]), (&key.access.clone().into(), &"robot".into()));
    assert!(!keys.to_string().contains(&key.secret));

    installation.admin(&["access-key", "disable", &key.access]);
    assert!(!is_good());
    installation.admin(&["access-key", "enable", &key.access]);
    installation.admin(&["user", "disable", "robot"]);
    assert!(!is_good());
    installation.admin(&["user", "enable", "robot"]);
    assert!(is_good());
    installation.admin(&["access-key", "remove", &key.access]);
    assert!(!is_good());
    installation.admin(&["user", "remove", "robot"]);
    assert_eq!(installation.admin(&["user", "list"]), json!([]));
    let output = installation.run(&["admin", "project", "remove", "shop"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("remove them first"), "it has an instance");
}
