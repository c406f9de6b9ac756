//! The error table of the DCS contract: one request for each row, sent as it is and by Huawei Cloud's own SDK.

mod scene;

use std::collections::BTreeSet;

use keysweep_harness::{Answer, Signer};
use serde_json::{Value, json};

use self::scene::{Caller, Refused, Scene};

fn send(refused: &Refused) -> Answer {
    let path = format!("/v2/{}", refused.path);
    let mut headers = match &refused.caller {
        Caller::Nobody => Vec::new(),
        Caller::Token(token) => vec![("X-Auth-Token".to_owned(), token.clone())],
        Caller::Key { access, secret } => {
            let signer = Signer { access: access.clone(), secret: secret.clone() };
            signer.headers(refused.method, &path, refused.body.as_bytes())
        }
    };
    headers.extend(refused.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    refused.service.send(refused.method, &path, &headers, &refused.body)
}

#[test]
fn each_row_of_the_error_table_is_reached_by_a_request_and_answered_in_its_shape() {
    let scene = Scene::new();
    for refused in scene.table() {
        let Refused { error, status, code, message, .. } = &refused;
        let answer = send(&refused);
        assert_eq!(answer.status, *status, "{error}: {:?}", answer.body);
        let id = answer.header("x-request-id").expect("an id");
        let expected = match *error {
            "Signature" => json!({ "error_code": code, "error_msg": message, "request_id": id }),
            _ => json!({ "error_code": code, "error_msg": message, "error_ext_msg": null }),
        };
        assert_eq!(answer.body, expected, "{error}");
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{error}");
    }
}

#[test]
fn huaweis_python_sdk_raises_the_exception_of_each_row_of_the_error_table() {
    let scene = Scene::new();
    let table = scene.table();
    let requests = table.iter().map(|refused| {
        let caller = match &refused.caller {
            Caller::Nobody => json!({}),
            Caller::Token(token) => json!({ "token": token }),
            Caller::Key { access, secret } => json!({ "access": access, "secret": secret }),
        };
        let headers: serde_json::Map<String, Value> =
            refused.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        json!({
            "endpoint": refused.service.base, "caller": caller, "method": refused.method,
            "path": format!("/v2/{}", refused.path), "headers": headers, "body": refused.body,
        })
    });
    let raised = crate::common::sdk::run(&["requests"], &Value::Array(requests.collect()).to_string());
    for (refused, raised) in table.iter().zip(raised.as_array().expect("an array")) {
        let kind = if refused.status < 500 { "ClientRequestException" } else { "ServerResponseException" };
        for client in ["sync", "async"] {
            let expected =
                json!({ "kind": kind, "status": refused.status, "code": refused.code, "message": refused.message });
            let mut raised = raised[client].clone();
            let id = raised.as_object_mut().and_then(|raised| raised.remove("request_id")).unwrap_or_default();
            assert_eq!(raised, expected, "{} by the {client} client", refused.error);
            assert!(id.as_str().is_some_and(|id| id.len() == 32), "{}: {id}", refused.error);
        }
    }
    assert_eq!(raised.as_array().map(Vec::len), Some(table.len()));
}

/// Returns the names of the errors in the source, so that a new error fails this test until the table has it.
fn errors_of_the_surface() -> BTreeSet<&'static str> {
    let source = include_str!("../../src/dcs/error.rs");
    let (_, rest) = source.split_once("pub enum DcsError {\n").expect("the enum");
    let (variants, _) = rest.split_once("\n}").expect("its end");
    let names = variants.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with('/'));
    names.map(|line| line.split(['(', ',']).next().unwrap_or_default()).collect()
}

#[test]
fn the_table_has_every_error_of_the_dcs_api() {
    let scene = Scene::new();
    let known = scene.table().iter().map(|refused| refused.error).collect::<BTreeSet<_>>();
    assert_eq!(known, errors_of_the_surface());
}
