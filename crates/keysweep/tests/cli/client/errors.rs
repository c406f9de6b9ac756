//! Errors of the client commands: exit codes, causes and remedies.

use std::{fs, path::PathBuf, process::Command};

use keysweep_harness::{Authority, Flavor, Server, free_port, installation};
use rstest::rstest;
use serde_json::Value;

use super::{Remote, nowhere, stderr};

#[rstest]
#[case::no_endpoint(&[("KEYSWEEP_ENDPOINT", "")], 2, "set KEYSWEEP_ENDPOINT")]
#[case::no_url(&[("KEYSWEEP_ENDPOINT", "127.0.0.1")], 2, "not a URL")]
#[case::another_scheme(&[("KEYSWEEP_ENDPOINT", "redis://127.0.0.1")], 2, "http:// or https://")]
#[case::a_path(&[("KEYSWEEP_ENDPOINT", "http://127.0.0.1/api")], 2, "must not contain a path")]
#[case::a_password_in_it(&[("KEYSWEEP_ENDPOINT", "http://me:hidden@127.0.0.1")], 2, "must not contain a user or password")]
#[case::no_key(&[("KEYSWEEP_ACCESS_KEY", ""), ("KEYSWEEP_SECRET_KEY", "")], 2, "set KEYSWEEP_ACCESS_KEY and")]
#[case::no_secret(&[("KEYSWEEP_SECRET_KEY", "")], 2, "KEYSWEEP_SECRET_KEY is not")]
#[case::no_access(&[("KEYSWEEP_ACCESS_KEY", "")], 2, "KEYSWEEP_ACCESS_KEY is not")]
#[case::wrong_secret(&[("KEYSWEEP_SECRET_KEY", "hidden")], 4, "invalid access key")]
#[case::a_key_with_a_line_end(&[("KEYSWEEP_ACCESS_KEY", "hidden\n")], 2, "contains invalid characters")]
#[case::another_project(&[("KEYSWEEP_PROJECT", "0123456789abcdef0123456789abcdef")], 4, "check --project")]
#[case::no_such_project(&[("KEYSWEEP_PROJECT", "nowhere")], 2, "projects of this access key: test")]
#[case::no_such_host(&[("KEYSWEEP_ENDPOINT", "http://no-such-host.invalid")], 3, "cannot reach")]
#[case::no_file(&[("KEYSWEEP_CREDENTIALS", "/no/such.json")], 2, "--credentials /no/such.json")]
#[case::no_ca_file(&[("KEYSWEEP_ENDPOINT", "https://localhost"), ("KEYSWEEP_CA_FILE", "/no/ca.pem")], 2, "--ca-file /no/ca.pem")]
#[case::no_certificate(&[("KEYSWEEP_ENDPOINT", "https://localhost"), ("KEYSWEEP_CA_FILE", "/dev/null")], 2, "no PEM certificate")]
fn an_error_names_cause_and_remedy(#[case] environment: &[(&str, &str)], #[case] code: i32, #[case] words: &str) {
    let remote = Remote::start(&nowhere(), "operator");
    let output = remote
        .command(&["instance", "list"])
        .envs(environment.iter().map(|(name, value)| (*name, *value)))
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert!(!stderr(&output).contains("hidden") && !stderr(&output).contains(&remote.secret), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn missing_forbidden_and_foreign_targets_have_different_messages() {
    let server = Server::start(Flavor::Valkey91);
    let remote = Remote::start(&nowhere(), "reader");
    let absent = "0".repeat(32);
    for (arguments, code, words) in [
        (vec!["task", "show", &absent], 2, "there is no such task in this project"),
        (vec!["task", "show", "x"], 2, "invalid task ID \"x\": expected 32 hex digits"),
        (vec!["task", "list", "absent"], 2, "no instance \"absent\" in this project"),
        (vec!["task", "list", &absent], 2, "This DCS instance does not exist"),
        (vec!["instance", "show", &absent], 2, "there is no such instance"),
        (vec!["task", "create", "cache"], 4, "an admin of the project can grant the required role"),
        (vec!["task", "cancel", &absent], 4, "needs the role operator"),
    ] {
        let output = remote.run(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
    let at =
        |endpoint: &str| remote.command(&["instance", "list", "--endpoint", endpoint]).output().expect("it starts");
    let refused = at(&format!("http://127.0.0.1:{}", free_port()));
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("connection refused; check host and port"), "{}", stderr(&refused));
    let other = at(&format!("http://127.0.0.1:{}", server.port()));
    assert_eq!(other.status.code(), Some(3), "{}", stderr(&other));
    let plain = at(&remote.service.base.replace("http://", "https://"));
    assert_eq!(plain.status.code(), Some(3), "{}", stderr(&plain));
    assert!(stderr(&plain).contains("does not speak TLS on this port"), "{}", stderr(&plain));
}

#[test]
fn a_service_without_authentication_needs_no_key_and_one_project_needs_no_name() {
    let installation = installation!();
    installation.register(&nowhere());
    let service = installation.serve(&["--no-auth"]);
    let list = |more: &[&str]| {
        installation.run(&[&["instance", "list", "--json", "--endpoint", service.base.as_str()], more].concat())
    };
    let found: Value = serde_json::from_slice(&list(&[]).stdout).expect("one JSON object");
    assert_eq!(found["instances"][0]["name"], "cache");
    installation.admin(&["project", "add", "search"]);
    let several = list(&[]);
    assert_eq!(several.status.code(), Some(2));
    assert!(stderr(&several).contains("choose one with --project"), "{}", stderr(&several));
    let found: Value = serde_json::from_slice(&list(&["--project", "search"]).stdout).expect("one JSON object");
    assert_eq!(found["instances"], serde_json::json!([]));
}

#[test]
fn the_access_key_can_be_in_a_file_and_the_certificate_must_be_trusted() {
    let authority = Authority::new();
    let certificate = authority.issue(&["localhost"]);
    let remote = Remote::start(&nowhere(), "reader");
    let [shown, key] = [&certificate.certificate, &certificate.key].map(|path| path.to_str().expect("plain"));
    let service = remote.installation.serve(&["--tls-cert", shown, "--tls-key", key]);
    let endpoint = service.base.replace("http://127.0.0.1", "https://localhost");
    let file = remote.installation.folder().join("credentials.json");
    let text = format!("{{\"access\":\"{}\",\"secret\":\"{}\"}}\n", remote.access, remote.secret);
    fs::write(&file, text).expect("written");
    let list = |endpoint: &str, ca: Option<&PathBuf>| {
        let mut command = remote.installation.command(&["instance", "list"]);
        command.env("KEYSWEEP_ENDPOINT", endpoint).arg("--credentials").arg(&file);
        ca.iter().for_each(|path| {
            command.arg("--ca-file").arg(path);
        });
        command.output().expect("the binary starts")
    };
    let trusted = list(&endpoint, Some(&authority.file()));
    assert_eq!(trusted.status.code(), Some(0), "{}", stderr(&trusted));
    for (ca, words) in [
        (None, "provide the CA certificate with --ca-file"),
        (Some(Authority::new().file()), "not signed by the CA in --ca-file"),
    ] {
        let output = list(&endpoint, ca.as_ref());
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let plainly = list(&endpoint.replace("https://", "http://"), None);
    assert!(stderr(&plainly).contains("try https://"), "{}", stderr(&plainly));
    let other_name = list(&service.base.replace("http://", "https://"), Some(&authority.file()));
    assert!(
        stderr(&other_name).contains("its certificate is valid for localhost, not for 127.0.0.1;"),
        "{}",
        stderr(&other_name)
    );
    fs::write(&file, "{\"access\":\"a\"}").expect("written");
    let output = list(&endpoint, Some(&authority.file()));
    assert!(output.status.code() == Some(2) && stderr(&output).contains("expected {\"access\""), "{}", stderr(&output));
}

#[test]
fn a_verbose_command_prints_its_requests_without_secrets_and_a_quiet_one_prints_none() {
    let remote = Remote::start(&nowhere(), "reader");
    let said = |options: &[&str]| stderr(&remote.run(&[&["instance", "list"], options].concat()));
    let verbose = said(&["-v"]);
    let request = format!("GET /api/v1/projects/{}/instances?activity=true → 200 in ", remote.project);
    assert!(verbose.contains(&request) && !verbose.contains(&remote.secret), "{verbose}");
    assert_eq!((said(&[]), said(&["-v", "-q"])), (String::new(), String::new()));
}

/// A library that sets the clock of one program two hours ahead, by replacing a function of the C library.
const AHEAD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += 7200;
    return result;
}
"#;

#[test]
fn clock_skew_is_named_as_the_cause() {
    let remote = Remote::start(&nowhere(), "reader");
    let folder = remote.installation.folder();
    fs::write(folder.join("ahead.c"), AHEAD).expect("written");
    let library = folder.join("ahead.so");
    let compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(folder.join("ahead.c"))
        .arg("-ldl")
        .output()
        .expect("cc, which links Rust programs, is there");
    assert!(compiler.status.success(), "{}", stderr(&compiler));
    let output = remote.command(&["instance", "list"]).env("LD_PRELOAD", &library).output().expect("it starts");
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("the local clock is 1") && stderr(&output).contains("minutes ahead of"),
        "{}",
        stderr(&output)
    );
}
