//! `keysweep task`, `instance` and `autoscan`: the command line against a service somewhere else.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use keysweep_harness::{
    Authority, DataSet, Fault, Flavor, Installation, KilledOnDrop, Proxy, Server, Service, eventually, free_port, id,
};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A service that asks for credentials, with one instance, and somebody who calls it.
struct Remote {
    installation: Installation,
    service: Service,
    project: String,
    access: String,
    secret: String,
}

impl Remote {
    fn start(url: &str, role: &str) -> Self {
        Self::start_with(url, role, &[])
    }

    fn start_with(url: &str, role: &str, options: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", url, role, options)
    }

    fn start_at(address: &str, url: &str, role: &str, options: &[&str]) -> Self {
        let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
        let (project, _) = installation.register_with(url, options);
        installation.admin(&["user", "add", "robot", "--project", &project, "--role", role]);
        let key = installation.admin(&["access-key", "add", "--user", "robot"]);
        let text = |name: &str| key[name].as_str().expect("a text").to_owned();
        let service = installation.serve_at(address, &[]);
        Self { service, project, access: text("access"), secret: text("secret"), installation }
    }

    fn command(&self, arguments: &[&str]) -> Command {
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

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// What a command prints when all is well.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())).expect("one JSON object")
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Answers one request after another with these statuses and bodies; returns where.
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
fn a_proxy_that_does_not_reach_the_service_for_a_moment_ends_no_watching() {
    let (id, task) = ("b".repeat(32), |status: &str| json!({ "id": "1", "status": status }).to_string());
    let away = |status| (status, "<h1>Bad Gateway</h1>".to_owned());
    let ended = || (200, task("success"));
    let run = |arguments: &[&str], answers| {
        let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
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
    assert_eq!(output.status.code(), Some(3), "nobody has seen the task: {}", stderr(&output));
    assert!(stderr(&output).contains("what stands before the service does not reach it"), "{}", stderr(&output));
}

#[test]
fn no_proxy_is_asked_the_way_to_this_machine_and_an_empty_variable_is_none() {
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

fn nowhere() -> String {
    format!("redis://127.0.0.1:{}", free_port())
}

/// What comes out of a pipe, as far as it has come, and the thread that ends with the pipe.
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

/// Ends a process that a test has started, and reads what it has said.
fn interrupt(mut child: KilledOnDrop) -> (Option<i32>, String) {
    kill_process(Pid::from_child(&child), Signal::INT).expect("a child can be sent signals");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    (child.wait().expect("it ends").code(), said)
}

#[test]
fn a_task_is_created_by_the_instances_name_waited_for_listed_and_shown() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(3_000).dead(2_000).load(&server);
    let remote = Remote::start(&server.url(), "operator");

    let task = remote.json(&["task", "create", "cache", "--wait"]);
    assert_eq!((&task["status"], task["keys_reclaimed"].as_u64()), (&"success".into(), Some(loaded.dead)));
    let task = id(&task);

    let page = remote.json(&["task", "list", "cache", "--status", "success"]);
    assert_eq!((page["count"].as_u64(), page["records"][0]["id"].as_str()), (Some(1), Some(task.as_str())));
    let table = remote.text(&["task", "list", "cache"]);
    assert!(table.contains(&task) && table.contains("2,000") && table.contains("1 of 1 tasks"), "{table}");
    assert!(!remote.text(&["task", "list", "cache", "--offset", "1"]).contains(&task));

    let shown = remote.text(&["task", "show", &task]);
    for words in ["success", "robot", "keys released", "2,000  (exactly)", "slices"] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
    let watched = remote.run(&["task", "watch", &task]);
    assert_eq!(watched.status.code(), Some(0), "one that has ended is shown at once: {}", stderr(&watched));
    assert_eq!(remote.text(&["task", "cancel", &task]).trim(), "the task is success");
}

#[test]
fn an_instance_is_listed_and_shown_with_what_was_last_seen_of_it() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(1_234).load(&server);
    let remote = Remote::start_with(&server.url(), "reader", &["--pace", "gentle"]);
    let list = remote.text(&["instance", "list"]);
    assert!(list.contains("cache") && list.contains("valkey 9.1.") && list.contains("1,234"), "{list}");
    let shown = remote.text(&["instance", "show", "cache"]);
    for words in ["gentle", "standalone", &server.address().to_string()] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
    // Without what was last seen: the service may look again between two of these.
    let without_stats = |mut instance: Value| {
        assert_eq!(instance["stats"]["keys"], 1_234, "{instance:#}");
        instance["stats"].take();
        instance
    };
    let by_name = without_stats(remote.json(&["instance", "show", "cache"]));
    assert_eq!(without_stats(remote.json(&["instance", "show", &id(&by_name)])), by_name);
    assert_eq!(without_stats(remote.json(&["instance", "list"])["instances"][0].take()), by_name);
}

#[test]
fn a_task_that_waits_is_shown_as_such_and_is_over_once_it_is_cancelled() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(1_000).load(&server);
    let proxy = Proxy::before(&server);
    let remote = Remote::start(&proxy.url(), "operator");
    // A server that lets connect and is slow to say what it is keeps the task active for as long as this test needs.
    proxy.set(Fault::Drip);
    let created = remote.json(&["task", "create", "cache"]);
    let task = id(&created);
    assert!(remote.text(&["task", "create", "cache"]).contains(&task), "the active one is the answer");
    assert!(remote.text(&["task", "show", &task]).contains("keys released"));
    remote.text(&["task", "cancel", &task]);
    let watched = remote.run(&["task", "watch", &task, "--json"]);
    assert_eq!(watched.status.code(), Some(1), "a cancelled task has failed: {}", stderr(&watched));
    let end: Value = serde_json::from_slice(&watched.stdout).expect("one JSON object and nothing else");
    assert_eq!(end["reason"]["code"], "cancelled");
    assert!(stderr(&watched).contains("what was released stays released"), "{}", stderr(&watched));
}

#[test]
fn waiting_for_a_task_ends_with_the_exit_code_of_its_outcome() {
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
fn who_watches_sees_the_bar_move_through_a_restart_of_the_service() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100_000).dead(50_000).load(&server);
    // A port that no outgoing connection is given while nobody listens there.
    let address = format!("127.0.0.1:{}", free_port());
    let remote = Remote::start_at(&address, &server.url(), "operator", &["--pace", "gentle"]);
    let task = id(&remote.json(&["task", "create", "cache"]));
    // A bar needs a terminal; `script` makes one and exits as its command did.
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
    eventually("the sweep is under way", Duration::from_secs(30), || {
        let shown = remote.json(&["task", "show", &task]);
        assert_eq!(shown["report"], Value::Null, "the sweep was over before the service could be restarted");
        shown["progress"]["fraction"].as_f64().filter(|fraction| *fraction > 0.05)
    });
    let Remote { installation, service, .. } = remote;
    assert_eq!(service.terminate().0, Some(0));
    eventually("the client has noticed", Duration::from_secs(20), || {
        drawn.lock().expect("a text").contains("trying again").then_some(())
    });
    let _service = installation.serve_at(&address, &[]);
    let code = child.wait().expect("it ends").code();
    reader.join().expect("it only reads");
    let drawn = drawn.lock().expect("a text").clone();
    assert_eq!(code, Some(0), "{drawn}");
    assert!(drawn.contains("released of") && drawn.contains(" %"), "a bar was drawn: {drawn}");
    assert!(drawn.contains("50,000  ("), "{drawn}");
}

#[test]
fn ctrl_c_ends_the_watching_and_not_the_task() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(1_000).load(&server);
    let proxy = Proxy::before(&server);
    let remote = Remote::start(&proxy.url(), "operator");
    // A server that lets connect and is slow to say what it is keeps the task active for as long as this test needs.
    proxy.set(Fault::Drip);
    let task = id(&remote.json(&["task", "create", "cache"]));
    let child = remote
        .command(&["task", "watch", &task])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let child = KilledOnDrop(child);
    // Signals are caught from here on: its mask says so.
    let status = format!("/proc/{}/status", child.id());
    eventually("it catches signals", Duration::from_secs(20), || {
        let status = fs::read_to_string(&status).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught >> (2 - 1) & 1 == 1).then_some(())
    });
    let (code, said) = interrupt(child);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("the task goes on"), "{said}");
    proxy.set(Fault::None);
    assert_eq!(remote.run(&["task", "watch", &task]).status.code(), Some(0));
}

#[test]
fn a_schedule_is_set_field_by_field_and_the_service_says_beside_which_option_a_value_is_wrong() {
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
        assert!(stderr(&output).contains("parameter is invalid"), "the service's words: {}", stderr(&output));
    }
    assert_eq!(remote.json(&["autoscan", "get", "cache"])["enable_auto_scan"], false, "nothing was kept of those");

    let enable = ["--enable", "--first-scan-at", "2099-01-01T02:00:00Z", "--interval", "12h", "--timeout", "86400"];
    assert_eq!(set(&enable).status.code(), Some(0));
    // At once again: two signatures of the same second, and the same change.
    assert_eq!(set(&enable).status.code(), Some(0));
    assert_eq!(set(&["--scan-keys-count", "500"]).status.code(), Some(0));
    let config = remote.json(&["autoscan", "get", "cache"]);
    assert_eq!(
        (&config["enable_auto_scan"], &config["interval"], &config["timeout"], &config["scan_keys_count"]),
        (&true.into(), &43_200.into(), &86_400.into(), &500.into())
    );
    let table = remote.text(&["autoscan", "set", "cache", "--disable"]);
    assert!(table.contains("2099-01-01 02:00:00 UTC") && table.contains("43,200 s"), "{table}");
    assert_eq!(set(&[]).status.code(), Some(2), "nothing to change is no change");
}

#[rstest]
#[case::no_endpoint(&[("KEYSWEEP_ENDPOINT", "")], 2, "set KEYSWEEP_ENDPOINT")]
#[case::no_url(&[("KEYSWEEP_ENDPOINT", "127.0.0.1")], 2, "it is no URL")]
#[case::another_scheme(&[("KEYSWEEP_ENDPOINT", "redis://127.0.0.1")], 2, "http:// or https://")]
#[case::a_path(&[("KEYSWEEP_ENDPOINT", "http://127.0.0.1/api")], 2, "nothing may stand behind")]
#[case::a_password_in_it(&[("KEYSWEEP_ENDPOINT", "http://me:hidden@127.0.0.1")], 2, "takes no user and password")]
#[case::no_key(&[("KEYSWEEP_ACCESS_KEY", ""), ("KEYSWEEP_SECRET_KEY", "")], 2, "set KEYSWEEP_ACCESS_KEY and")]
#[case::no_secret(&[("KEYSWEEP_SECRET_KEY", "")], 2, "KEYSWEEP_SECRET_KEY is not")]
#[case::no_access(&[("KEYSWEEP_ACCESS_KEY", "")], 2, "KEYSWEEP_ACCESS_KEY is not")]
#[case::wrong_secret(&[("KEYSWEEP_SECRET_KEY", "hidden")], 4, "does not take the access key")]
#[case::a_key_with_a_line_end(&[("KEYSWEEP_ACCESS_KEY", "hidden\n")], 2, "characters that no access key has")]
#[case::another_project(&[("KEYSWEEP_PROJECT", "0123456789abcdef0123456789abcdef")], 4, "check --project")]
#[case::no_such_project(&[("KEYSWEEP_PROJECT", "nowhere")], 1, "is none of those that this access key is good for: test")]
#[case::no_such_host(&[("KEYSWEEP_ENDPOINT", "http://no-such-host.invalid")], 3, "cannot reach")]
#[case::no_file(&[("KEYSWEEP_CREDENTIALS", "/no/such.json")], 2, "--credentials /no/such.json")]
#[case::no_ca_file(&[("KEYSWEEP_ENDPOINT", "https://localhost"), ("KEYSWEEP_CA_FILE", "/no/ca.pem")], 2, "--ca-file /no/ca.pem")]
#[case::no_certificate(&[("KEYSWEEP_ENDPOINT", "https://localhost"), ("KEYSWEEP_CA_FILE", "/dev/null")], 2, "no PEM certificate")]
fn a_first_error_says_what_is_wrong_and_what_to_do(
    #[case] environment: &[(&str, &str)],
    #[case] code: i32,
    #[case] words: &str,
) {
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
fn what_is_not_there_not_allowed_or_not_keysweep_is_told_apart() {
    let server = Server::start(Flavor::Valkey91);
    let remote = Remote::start(&nowhere(), "reader");
    let absent = "0".repeat(32);
    for (arguments, code, words) in [
        (vec!["task", "show", &absent], 1, "there is no such task in this project"),
        (vec!["task", "show", "x"], 2, "is no task's id"),
        (vec!["task", "list", "nobody"], 1, "no instance of this project is called \"nobody\""),
        (vec!["task", "list", &absent], 1, "This DCS instance does not exist"),
        (vec!["instance", "show", &absent], 1, "there is no such instance"),
        (vec!["task", "create", "cache"], 4, "an admin of the project can grant the role"),
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
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
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
fn the_key_may_stand_in_a_file_and_the_certificate_must_be_of_a_trusted_authority() {
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
        (None, "name the authority that issued it with --ca-file"),
        (Some(Authority::new().file()), "not issued by the authority in --ca-file"),
    ] {
        let output = list(&endpoint, ca.as_ref());
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let plainly = list(&endpoint.replace("https://", "http://"), None);
    assert!(stderr(&plainly).contains("perhaps https:// is meant"), "{}", stderr(&plainly));
    let other_name = list(&service.base.replace("http://", "https://"), Some(&authority.file()));
    assert!(
        stderr(&other_name).contains("its certificate is not for 127.0.0.1 but for localhost;"),
        "{}",
        stderr(&other_name)
    );
    fs::write(&file, "{\"access\":\"a\"}").expect("written");
    let output = list(&endpoint, Some(&authority.file()));
    assert!(output.status.code() == Some(2) && stderr(&output).contains("it must hold"), "{}", stderr(&output));
}

/// A clock that is two hours ahead, for one program: what the C library says of the time of day.
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
fn a_clock_that_is_off_is_named_as_the_cause() {
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
        stderr(&output).contains("this machine's clock is 1") && stderr(&output).contains("minutes ahead of"),
        "{}",
        stderr(&output)
    );
}
