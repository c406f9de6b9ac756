//! `keysweep task`, `instance` and `autoscan`: the command line against a service.

mod errors;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use keysweep_harness::{
    DataSet, Fault, Flavor, Installation, KilledOnDrop, Proxy, Server, Service, eventually, free_port, id, installation,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::stderr;

/// A service with authentication, one instance and an access key.
pub struct Remote {
    pub installation: Installation,
    service: Service,
    pub project: String,
    access: String,
    secret: String,
}

impl Remote {
    fn start(url: &str, role: &str) -> Self {
        Self::start_with(url, role, &[])
    }

    pub fn start_with(url: &str, role: &str, options: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", url, role, options)
    }

    fn start_at(address: &str, url: &str, role: &str, options: &[&str]) -> Self {
        let installation = installation!();
        let (project, _) = installation.register_with(url, options);
        installation.admin(&["user", "add", "robot", "--project", &project, "--role", role]);
        let key = installation.admin(&["access-key", "add", "--user", "robot"]);
        let text = |name: &str| key[name].as_str().expect("a text").to_owned();
        let service = installation.serve_at(address, &[]);
        Self { service, project, access: text("access"), secret: text("secret"), installation }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.installation.command(arguments);
        command
            .env("KEYSWEEP_ENDPOINT", &self.service.base)
            .env("KEYSWEEP_PROJECT", &self.project)
            .env("KEYSWEEP_ACCESS_KEY", &self.access)
            .env("KEYSWEEP_SECRET_KEY", &self.secret)
            // A client has no store.
            .env("KEYSWEEP_DATABASE", "sqlite:/nowhere/at/all.db");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// Returns the output of a command that must succeed.
    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())).expect("one JSON object")
    }
}

/// Starts a server that answers one request after another with these statuses and bodies; returns its URL.
fn scripted(answers: Vec<(u16, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                head.extend(byte);
            }
            let length = body.len();
            write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
                .expect("it is sent");
        }
    });
    base
}

#[test]
fn watching_survives_a_proxy_that_briefly_cannot_reach_the_service() {
    let (id, task) = ("b".repeat(32), |status: &str| json!({ "id": "1", "status": status }).to_string());
    let away = |status| (status, "<h1>Bad Gateway</h1>".to_owned());
    let ended = || (200, task("success"));
    let run = |arguments: &[&str], answers| {
        let installation = installation!();
        let (base, project) = (scripted(answers), "a".repeat(32));
        let mut command = installation.command(arguments);
        command.env("KEYSWEEP_ENDPOINT", base).env("KEYSWEEP_PROJECT", project).output().expect("it starts")
    };
    let watch = ["task", "watch", &id];
    let output = run(&watch, vec![(200, task("running")), away(502), away(503), away(504), ended()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let created = (200, json!({ "id": id, "status": "waiting" }).to_string());
    let output = run(&["task", "create", &id, "--wait"], vec![created, away(502), ended()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = run(&watch, vec![away(502)]);
    assert_eq!(output.status.code(), Some(3), "the first response is an error: {}", stderr(&output));
    assert!(stderr(&output).contains("bad gateway, the proxy cannot reach keysweep"), "{}", stderr(&output));
}

#[test]
fn loopback_requests_bypass_proxies_and_empty_variables_count_as_unset() {
    let remote = Remote::start(&nowhere(), "operator");
    let mut command = remote.command(&["instance", "list"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, format!("http://127.0.0.1:{}", free_port()));
    }
    for name in ["KEYSWEEP_CREDENTIALS", "KEYSWEEP_CA_FILE", "KEYSWEEP_PROJECT"] {
        command.env(name, "");
    }
    let output = command.output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("cache"));
}

pub fn nowhere() -> String {
    format!("redis://127.0.0.1:{}", free_port())
}

/// Collects the output of a pipe in a thread that ends with the pipe.
fn collect(mut pipe: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let text = Arc::new(Mutex::new(String::new()));
    let written = Arc::clone(&text);
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            written.lock().expect("a text").push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
    (text, reader)
}

/// Interrupts a process of the test; returns its exit code and standard error.
fn interrupt(mut child: KilledOnDrop) -> (Option<i32>, String) {
    kill_process(Pid::from_child(&child), Signal::INT).expect("a child can be sent signals");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    (child.wait().expect("it ends").code(), said)
}

#[test]
fn a_task_is_created_by_instance_name_watched_listed_and_shown() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(3_000).stale(2_000).load(&server);
    let remote = Remote::start(&server.url(), "operator");

    let task = remote.json(&["task", "create", "cache", "--wait"]);
    assert_eq!((&task["status"], task["keys_reclaimed"].as_u64()), (&"success".into(), Some(loaded.stale)));
    let task = id(&task);

    let page = remote.json(&["task", "list", "cache", "--status", "success"]);
    assert_eq!((page["count"].as_u64(), page["records"][0]["id"].as_str()), (Some(1), Some(task.as_str())));
    let table = remote.text(&["task", "list", "cache"]);
    assert!(table.contains(&task) && table.contains("2,000") && table.contains("1 of 1 tasks"), "{table}");
    assert!(!remote.text(&["task", "list", "cache", "--offset", "1"]).contains(&task));

    let shown = remote.text(&["task", "show", &task]);
    for words in ["success", "robot", "keys reclaimed", "2,000  (exact)", "slices"] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
    let watched = remote.run(&["task", "watch", &task]);
    assert_eq!(watched.status.code(), Some(0), "a finished task is shown at once: {}", stderr(&watched));
    assert_eq!(remote.text(&["task", "cancel", &task]).trim(), "task is success");
}

#[test]
fn an_instance_is_listed_and_shown_with_the_stats_of_its_last_poll() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(1_234).load(&server);
    let remote = Remote::start_with(&server.url(), "reader", &["--pace", "gentle"]);
    let list = remote.text(&["instance", "list"]);
    assert!(list.contains("cache") && list.contains("valkey 9.1.") && list.contains("1,234"), "{list}");
    let shown = remote.text(&["instance", "show", "cache"]);
    for words in ["gentle", "standalone", &server.address().to_string()] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
    // Stats are compared without their time: the service may poll between two of these commands.
    let without_stats = |mut instance: Value| {
        assert_eq!(instance["stats"]["keys"], 1_234, "{instance:#}");
        instance["stats"].take();
        instance.as_object_mut().expect("an instance").remove("activity");
        instance
    };
    let by_name = without_stats(remote.json(&["instance", "show", "cache"]));
    assert_eq!(without_stats(remote.json(&["instance", "show", &id(&by_name)])), by_name);
    assert_eq!(without_stats(remote.json(&["instance", "list"])["instances"][0].take()), by_name);
}

#[test]
fn a_running_task_is_shown_and_finishes_when_cancelled() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(1_000).load(&server);
    let proxy = Proxy::before(&server);
    let remote = Remote::start(&proxy.url(), "operator");
    // A server that answers a byte at a time keeps the task active for as long as this test needs.
    proxy.set(Fault::Drip);
    let created = remote.json(&["task", "create", "cache"]);
    let task = id(&created);
    assert!(remote.text(&["task", "create", "cache"]).contains(&task), "the active one is the answer");
    assert!(remote.text(&["task", "show", &task]).contains("keys reclaimed"));
    remote.text(&["task", "cancel", &task]);
    let watched = remote.run(&["task", "watch", &task, "--json"]);
    assert_eq!(watched.status.code(), Some(1), "a cancelled task has failed: {}", stderr(&watched));
    let end: Value = serde_json::from_slice(&watched.stdout).expect("one JSON object and nothing else");
    assert_eq!(end["reason"]["code"], "cancelled");
    assert!(stderr(&watched).contains("keys reclaimed before stay reclaimed"), "{}", stderr(&watched));
}

#[test]
fn waiting_for_a_task_exits_with_its_outcome() {
    let remote = Remote::start(&nowhere(), "operator");
    let output = remote.run(&["task", "create", "cache", "--wait"]);
    assert_eq!(output.status.code(), Some(3), "unreachable: {}", stderr(&output));
    assert!(stderr(&output).contains("check host, port and firewall"), "{}", stderr(&output));

    let server = Server::with(Flavor::Valkey91).password("a-password").start();
    let remote = Remote::start(&format!("redis://127.0.0.1:{}", server.port()), "operator");
    let output = remote.run(&["task", "create", "cache", "--wait"]);
    assert_eq!(output.status.code(), Some(4), "denied: {}", stderr(&output));
}

#[test]
fn the_progress_bar_continues_through_a_restart_of_the_service() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100_000).stale(50_000).load(&server);
    server.watch_expired_keys();
    // A port outside the range of outgoing connections, so that none takes it during the restart.
    let address = format!("127.0.0.1:{}", free_port());
    let remote = Remote::start_at(&address, &server.url(), "operator", &["--pace", "gentle"]);
    let task = id(&remote.json(&["task", "create", "cache"]));
    // A progress bar needs a terminal; `script` allocates one and exits with the code of its command.
    let watch = format!("{} task watch {task}", env!("CARGO_BIN_EXE_keysweep"));
    let client = remote.command(&[]);
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &watch, "/dev/null"]).env("TERM", "xterm");
    for (name, value) in client.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    let child = terminal.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("script (bsdutils) starts");
    let mut child = KilledOnDrop(child);
    let (drawn, reader) = collect(child.stdout.take().expect("a pipe"));
    eventually("the scan is running", Duration::from_secs(30), || {
        let shown = remote.json(&["task", "show", &task]);
        assert_eq!(shown["report"], Value::Null, "the scan was finished before the service could be restarted");
        shown["progress"]["fraction"].as_f64().filter(|fraction| *fraction > 0.05)
    });
    let Remote { installation, service, .. } = remote;
    assert_eq!(service.terminate().0, Some(0));
    eventually("the client has noticed", Duration::from_secs(20), || {
        drawn.lock().expect("a text").contains("retrying").then_some(())
    });
    let _service = installation.serve_at(&address, &[]);
    let code = child.wait().expect("it ends").code();
    reader.join().expect("it only reads");
    let drawn = drawn.lock().expect("a text").clone();
    assert_eq!(code, Some(0), "{drawn}");
    assert!(drawn.contains("reclaimed of") && drawn.contains(" %"), "a bar was drawn: {drawn}");
    assert!(drawn.contains("50,000  ("), "{drawn}");
}

#[test]
fn ctrl_c_stops_watching_and_not_the_task() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(1_000).load(&server);
    let proxy = Proxy::before(&server);
    let remote = Remote::start(&proxy.url(), "operator");
    // A server that answers a byte at a time keeps the task active for as long as this test needs.
    proxy.set(Fault::Drip);
    let task = id(&remote.json(&["task", "create", "cache"]));
    let child = remote
        .command(&["task", "watch", &task])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let child = KilledOnDrop(child);
    // The signal mask of the process shows when its handler is installed.
    let status = format!("/proc/{}/status", child.id());
    eventually("it catches signals", Duration::from_secs(20), || {
        let status = fs::read_to_string(&status).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught >> (2 - 1) & 1 == 1).then_some(())
    });
    let (code, said) = interrupt(child);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("the task continues"), "{said}");
    proxy.set(Fault::None);
    assert_eq!(remote.run(&["task", "watch", &task]).status.code(), Some(0));
}

#[test]
fn an_auto_scan_is_set_by_field_and_an_invalid_value_names_its_option() {
    let remote = Remote::start(&nowhere(), "operator");
    let unset = remote.json(&["autoscan", "get", "cache"]);
    assert_eq!((&unset["enable_auto_scan"], &unset["interval"]), (&false.into(), &86_400.into()));

    let set = |options: &[&str]| remote.run(&[&["autoscan", "set", "cache"], options].concat());
    for (options, beside) in [
        (&["--enable"][..], "--first-scan-at is missing: "),
        (&["--enable", "--first-scan-at", "2020-01-01T00:00:00Z"], "--first-scan-at \"2020-01-01T00:00:00Z\": "),
        (&["--enable", "--first-scan-at", "2099-01-01T02:00:00Z", "--interval", "-5"], "--interval -5: "),
        (&["--enable", "--first-scan-at", "2099-01-01T02:00:00Z", "--interval", "49h"], "--timeout 172800: "),
        (
            &["--enable", "--first-scan-at", "2099-01-01T02:00:00Z", "--interval", "1h", "--timeout", "1h"],
            "--timeout 3600: ",
        ),
        (&["--enable", "--first-scan-at", "2099-01-01T02:00:00Z", "--scan-keys-count", "9"], "--scan-keys-count 9: "),
    ] {
        let output = set(options);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(beside), "{options:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("parameter is invalid"), "the message of the service: {}", stderr(&output));
    }
    assert_eq!(remote.json(&["autoscan", "get", "cache"])["enable_auto_scan"], false, "nothing was kept of those");

    let enable = ["--enable", "--first-scan-at", "2099-01-01T02:00:00Z", "--interval", "12h", "--timeout", "86400"];
    assert_eq!(set(&enable).status.code(), Some(0));
    // Twice in the same second: the same change with the same signature.
    assert_eq!(set(&enable).status.code(), Some(0));
    assert_eq!(set(&["--scan-keys-count", "500"]).status.code(), Some(0));
    let config = remote.json(&["autoscan", "get", "cache"]);
    assert_eq!(
        (&config["enable_auto_scan"], &config["interval"], &config["timeout"], &config["scan_keys_count"]),
        (&true.into(), &43_200.into(), &86_400.into(), &500.into())
    );
    let listed = remote.text(&["autoscan", "list", "--output", "csv"]);
    assert!(listed.lines().nth(1).is_some_and(|line| line.contains(",cache,true,,43200,86400,500,")), "{listed}");
    let table = remote.text(&["autoscan", "set", "cache", "--disable"]);
    assert!(table.contains("2099-01-01 02:00:00 UTC") && table.contains("43,200 s"), "{table}");
    assert_eq!(set(&[]).status.code(), Some(2), "nothing to change is no change");
}

#[test]
fn an_auto_scan_that_keeps_a_share_is_set_by_one_option_and_ended_by_an_interval() {
    let remote = Remote::start(&nowhere(), "operator");
    let set = |options: &[&str]| remote.run(&[&["autoscan", "set", "cache"], options].concat());
    let state = || remote.json(&["autoscan", "get", "cache"]);
    assert!(state()["below"].is_null() && state()["adaptive"].is_null());
    for wrong in ["70%", "-5%", "some"] {
        let output = set(&["--below", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}: {}", stderr(&output));
        assert!(stderr(&output).contains("--below") && stderr(&output).contains("0.1 to 50"), "{}", stderr(&output));
    }
    let table = remote.text(&["autoscan", "set", "cache", "--below", "5%", "--first-scan-at", "2099-01-01T02:00:00Z"]);
    assert!(table.contains("5 %") && table.contains("until scans have measured"), "{table}");
    let config = state();
    assert_eq!((&config["enable_auto_scan"], &config["below"]), (&true.into(), &0.05.into()), "{config:#}");
    assert_eq!((&config["adaptive"]["state"], &config["scan_keys_count"]), (&"measuring".into(), &1_000.into()));

    // The DCS API, which has no such field, keeps the share as long as its interval stays.
    assert_eq!(set(&["--scan-keys-count", "500"]).status.code(), Some(0));
    assert_eq!((&state()["below"], &state()["scan_keys_count"]), (&0.05.into(), &500.into()));
    assert_eq!(set(&["--interval", "12h"]).status.code(), Some(0));
    assert!(state()["below"].is_null() && state()["adaptive"].is_null(), "{:#}", state());
    assert_eq!(set(&["--below", "2.5", "--disable"]).status.code(), Some(0));
    assert_eq!((&state()["below"], &state()["enable_auto_scan"]), (&0.025.into(), &false.into()));
    assert_eq!(set(&["--below", "0"]).status.code(), Some(0));
    assert!(state()["below"].is_null(), "{:#}", state());
    let output = set(&["--below", "5%", "--timeout", "1h"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("timeout 3600 is too short"), "{}", stderr(&output));
}
