//! The OpenAPI document: identical from the command, the service and docs/, and complete.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use keysweep_harness::{DataSet, Flavor, Server, id, installation};
use serde_json::{Value, json};

use crate::common::root;

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
            // Generators of clients write them in camel case, or without case.
            let folded = id.replace('_', "").to_lowercase();
            assert!(ids.insert(folded), "{method} {path}: {id} is taken");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let is_id =
                    parameter["in"] == "path" && parameter["name"].as_str().is_some_and(|it| it.ends_with("_id"));
                assert!(!is_id || parameter["schema"]["pattern"].is_string(), "{method} {path}: {parameter}");
            }
            assert!(operation["summary"].is_string(), "{method} {path} says nothing of itself");
        }
    }
    assert_eq!(ids.len(), 43);
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}

/// Returns a path below the root of the repository.
fn in_repository(path: &str) -> PathBuf {
    root().join(path)
}

/// Runs a command and returns what it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts; scripts/python and scripts/npm install it (`make test` does)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Generates a client in a folder; returns the command that runs it.
type Generator = fn(&Path) -> Command;

/// Generates and compiles a client in TypeScript in the folder; returns the command that runs it.
fn typescript(folder: &Path) -> Command {
    let modules = in_repository(".cache/typescript/node_modules");
    let document = in_repository("docs/openapi.json");
    let types = folder.join("api.d.ts");
    run(Command::new(modules.join(".bin/openapi-typescript")).arg(document).arg("-o").arg(types));
    fs::copy(in_repository("crates/keysweep/tests/generated/client.ts"), folder.join("client.ts")).expect("copied");
    std::os::unix::fs::symlink(fs::canonicalize(&modules).expect("installed"), folder.join("node_modules"))
        .expect("linked");
    let compiler = ["--strict", "--module", "nodenext", "--target", "es2022", "--types", "node", "--skipLibCheck"];
    run(Command::new(modules.join(".bin/tsc")).current_dir(folder).args(compiler).args(["client.ts", "api.d.ts"]));
    let mut command = Command::new("node");
    command.arg(folder.join("client.js"));
    command
}

/// Generates a client in Python in the folder; returns the command that runs it.
fn python(folder: &Path) -> Command {
    let binaries = in_repository(".cache/venv-generator/bin");
    let document = in_repository("docs/openapi.json");
    let generate = ["generate", "--meta", "none", "--output-path"];
    let mut generator = Command::new(binaries.join("openapi-python-client"));
    run(generator.current_dir(folder).args(generate).arg("keysweep_client").arg("--path").arg(document));
    let mut command = Command::new(binaries.join("python"));
    command.arg(in_repository("crates/keysweep/tests/generated/client.py")).arg(folder);
    command
}

#[test]
fn generated_typescript_and_python_clients_drive_the_native_api() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(50).stale(20).load(&server);
    let installation = installation!();
    let project = id(&installation.admin(&["project", "add", "shop"]));
    installation.add_user("ada", "shop", "admin", "correct horse battery");
    let service = installation.serve(&[]);
    let arguments = [service.base.as_str(), &project, "ada", "correct horse battery", &server.url()];
    let generated: [(&str, Generator); 2] = [("typescript", typescript), ("python", python)];
    std::thread::scope(|scope| {
        for (language, client) in generated {
            let folder = installation.folder().join(language);
            scope.spawn(move || {
                fs::create_dir(&folder).expect("created");
                let said = run(client(&folder).args(arguments));
                let said: Value = serde_json::from_str(&said).expect("one JSON object");
                let names = said["names"].as_array().expect("names");
                assert!(names.contains(&json!(format!("from {language}"))), "{said}");
                for (field, value) in [
                    ("pace", json!("gentle")),
                    ("tested", json!(true)),
                    ("status", json!("success")),
                    ("absent", json!("not_found")),
                ] {
                    assert_eq!(said[field], value, "{language}, {field}: {said}");
                }
            });
        }
    });
}
