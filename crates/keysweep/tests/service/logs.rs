//! Logs of the service: content, format and level.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use keysweep_harness::{DataSet, Flavor, Installation, KilledOnDrop, ScanTask, Server, eventually, id, task_path};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");

#[test]
fn a_line_about_a_task_has_its_id_and_the_id_of_its_request() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(1_000).stale(500).load(&server);
    let installation = Installation::new(BINARY);
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    let created = service.create_scan(&project, &instance);
    let id = id(&created.body);
    service.wait_for_task(&ScanTask::new(&project, &id), |task| task["status"] == "success");
    let refused = service.request("GET", &task_path(&project, &instance));
    assert_eq!(refused.status, 404);

    let (_, log) = service.terminate();
    let lines: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not on a terminal, and no JSON: {line}")))
        .collect();
    let find = |message: &str| {
        let line = lines.iter().find(|line| line["message"] == message);
        line.unwrap_or_else(|| panic!("no line has the message {message:?}: {lines:#?}"))
    };
    for message in ["task created", "scan started", "scan finished"] {
        assert_eq!(find(message)["task_id"], id, "{message}");
    }
    assert_eq!(find("task created")["span"]["request_id"], created.header("x-request-id").expect("an id"));
    assert_eq!(find("request refused")["request_id"], refused.header("x-request-id").expect("an id"));
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[test]
fn on_a_terminal_the_log_is_text() {
    let installation = Installation::new(BINARY);
    let transcript = installation.folder().join("transcript");
    // script(1) runs its child on a terminal. A service outlives the hang-up of that, and so it is killed with script.
    let serve = format!("{BINARY} serve --listen 127.0.0.1:0 --database {}", installation.database_url());
    let command = format!("exec setpriv --pdeathsig KILL -- {serve}");
    let terminal = Command::new("script")
        .args(["--quiet", "--flush", "--command", &command])
        .arg(&transcript)
        .env_remove("KEYSWEEP_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("script starts; it is part of every Debian");
    let terminal = KilledOnDrop(terminal);
    let said = eventually("the service is serving", Duration::from_secs(20), || {
        fs::read_to_string(&transcript).ok().filter(|said| said.contains("serving"))
    });
    drop(terminal);
    let line = said.lines().find(|line| line.contains("serving")).expect("a line");
    assert!(serde_json::from_str::<Value>(line).is_err() && line.contains("INFO"), "{line}");
}

#[test]
fn the_level_is_configurable_and_an_invalid_one_does_not_silence_the_log() {
    let installation = Installation::new(BINARY);
    let log = |filter: &str| {
        let service = installation.serve_with(&["--no-auth"], &[("KEYSWEEP_LOG", filter)]);
        assert_eq!(service.request("GET", "/openapi.json").status, 200);
        service.terminate().1.join("\n")
    };
    assert!(log("debug").contains("\"level\":\"DEBUG\""));
    assert!(!log("info").contains("\"level\":\"DEBUG\""));
    // The warning comes before the line that the service is serving, which has level info.
    let mut command = installation.command(&["serve", "--listen", "127.0.0.1:0", "--no-auth"]);
    command.env("KEYSWEEP_LOG", "warning").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = KilledOnDrop(command.spawn().expect("the binary starts"));
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let first = lines.next().expect("a line");
    assert!(first.contains("WARN") && first.contains("invalid KEYSWEEP_LOG, using info"), "{first}");
    assert!(lines.any(|line| line.contains("serving")));
}
