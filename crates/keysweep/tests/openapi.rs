//! The OpenAPI document: identical from the command, the service and docs/, and complete.

use std::{collections::HashSet, fs, path::Path};

use keysweep_harness::installation;
use serde_json::Value;

fn document() -> Value {
    serde_json::to_value(keysweep::openapi::document()).expect("JSON")
}

#[test]
fn the_committed_document_is_the_one_that_is_printed_and_served() {
    let installation = installation!();
    let printed = installation.run(&["openapi"]);
    assert!(printed.status.success());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let committed = fs::read_to_string(path).expect("docs/openapi.json");
    assert!(
        committed.as_bytes() == printed.stdout,
        "docs/openapi.json is not what this version prints; if the change is meant: cargo run -p keysweep -- openapi > docs/openapi.json"
    );
    let service = installation.serve(&[]);
    assert_eq!(service.get("/openapi.json"), serde_json::from_str::<Value>(&committed).expect("JSON"));
}

#[test]
fn every_operation_has_a_unique_id_and_every_reference_resolves() {
    let document = document();
    let mut ids = HashSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id} is taken");
            assert!(operation["summary"].is_string(), "{method} {path} says nothing of itself");
        }
    }
    assert_eq!(ids.len(), 32);
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}
