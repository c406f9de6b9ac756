//! `keysweep init`, without a terminal.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Output, Stdio},
};

use keysweep_harness::{DataSet, Flavor, Installation, Server, free_port, installation};
use serde_json::{Value, json};

use crate::common::stderr;

/// Runs `keysweep init` in the folder of the installation, with a password on its standard input.
fn init(installation: &Installation, arguments: &[&str]) -> Output {
    let mut command = installation.command(&[&["init", "--password-stdin"], arguments].concat());
    command.current_dir(installation.folder()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(b"correct horse battery\n").expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn after_init_the_administrator_signs_in_and_the_access_key_scans_the_first_instance() {
    let server = Server::with(Flavor::Valkey91).password("hunter2-hunter2").start();
    let loaded = DataSet::new().live(50).stale(20).load(&server);
    let installation = installation!();
    let password = installation.folder().join("password.txt");
    fs::write(&password, "hunter2-hunter2\n").expect("written");
    let (url, password) = (format!("redis://127.0.0.1:{}", server.port()), password.display().to_string());
    let first = ["--url", &url, "--instance", "sessions", "--server-password-file", &password];
    let named = ["--project", "shop", "--admin", "ada", "--credentials", "ada.json"];
    let made = init(&installation, &[&first[..], &named].concat());
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let keys = loaded.live + loaded.stale;
    assert!(stderr(&made).contains(&format!("sessions added: Valkey 9.1.2, {keys} keys")), "{}", stderr(&made));
    assert!(made.stdout.is_empty(), "the secret is in the file alone");
    let file = installation.folder().join("ada.json");
    assert_eq!(fs::metadata(&file).expect("written").permissions().mode() & 0o777, 0o600);

    let service = installation.serve(&[]);
    let body = json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": {
        "name": "ada", "password": "correct horse battery", "domain": { "name": "default" } } } } } });
    assert_eq!(service.send("POST", "/v3/auth/tokens", &[], body.to_string()).status, 201);
    let credentials = file.display().to_string();
    let wait = ["task", "create", "sessions", "--wait", "--json", "--endpoint", &service.base];
    let scanned = installation.run(&[&wait[..], &["--credentials", &credentials]].concat());
    let task: Value = serde_json::from_slice(&scanned.stdout).expect("one JSON object");
    assert_eq!(task["keys_reclaimed"], loaded.stale, "{}", stderr(&scanned));
}

#[test]
fn init_creates_all_or_nothing_and_only_once() {
    let installation = installation!();
    let refused = init(&installation, &["--url", "redis://169.254.169.254:6379"]);
    assert_eq!(refused.status.code(), Some(2), "the service never connects there");
    assert!(stderr(&refused).contains("nothing was created"), "{}", stderr(&refused));
    assert_eq!(installation.admin(&["user", "list"]), json!([]));
    assert_eq!(installation.admin(&["project", "list"]), json!([]));
    assert!(!installation.folder().join("keysweep-key.json").exists());

    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let made = init(&installation, &["--url", &nowhere]);
    assert_eq!(made.status.code(), Some(0), "a server need not be there yet: {}", stderr(&made));
    assert!(stderr(&made).contains("cache added, but its server is unreachable"), "{}", stderr(&made));
    let config = installation.folder().join("keysweep.toml");
    fs::write(&config, "concurrency = 3\n").expect("written");
    let [config, key] = [config, installation.key_file()].map(|path| path.display().to_string());
    let same = ["--database", &installation.database_url(), "--key-file", &key, "--config", &config];
    let again = init(
        &installation,
        &[&same[..], &["--allowed-targets", "127.0.0.0/8", "--new-database", "--project", "other"]].concat(),
    );
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("already has projects or users"), "{}", stderr(&again));
}

#[test]
fn without_a_terminal_and_a_password_init_names_the_option() {
    let installation = installation!();
    let mut command = installation.command(&["init"]);
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--password-stdin"), "{}", stderr(&output));
}
