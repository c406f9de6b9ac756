//! Runs the command lines of `lines.rs` and compares them with the command line: every command and option must be in one.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
};

use keysweep_harness::{Authority, DataSet, Flavor, Installation, KilledOnDrop, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    lines::{self, Line},
    words,
};

use crate::common::root;

const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");
const PASSWORD: &str = "hunter2-hunter2";

/// Values of the placeholders in lines.
struct Places {
    installation: Installation,
    authority: Authority,
    values: BTreeMap<&'static str, String>,
}

impl Places {
    /// Files that lines name.
    fn new() -> Self {
        let (installation, authority) = (Installation::new(BINARY), Authority::new());
        let issued = authority.issue(&["cache.example", "localhost"]);
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let file = |name: &str| text(&installation.folder().join(name));
        let values = BTreeMap::from([
            ("database", installation.database_url()),
            ("key", text(&installation.key_file())),
            ("config", file("keysweep.toml")),
            ("password", file("password")),
            ("backup", file("backup.db")),
            ("next_key", file("next.key")),
            ("pages", file("pages")),
            ("inventory", file("fleet.yaml")),
            ("data", file("data")),
            ("window", "02:00-05:00 Europe/Paris".to_owned()),
            ("cli", "(command line)".to_owned()),
            ("ca", text(&authority.file())),
            ("cert", text(&issued.certificate)),
            ("cert_key", text(&issued.key)),
        ]);
        fs::write(&values["config"], "concurrency = 3\n").expect("written");
        fs::write(&values["password"], format!("{PASSWORD}\n")).expect("written");
        fs::set_permissions(&values["password"], Permissions::from_mode(0o600)).expect("it is ours");
        Self { installation, authority, values }
    }

    fn put(&mut self, place: &'static str, value: impl Into<String>) {
        self.values.insert(place, value.into());
    }

    /// Returns the words of a line; the value of a placeholder is one word.
    fn words(&self, line: &str) -> Vec<String> {
        let put = |word: &str| {
            self.values
                .iter()
                .fold(word.to_owned(), |word, (place, value)| word.replace(&format!("{{{place}}}"), value))
        };
        let words: Vec<String> = line.split_whitespace().map(put).collect();
        assert!(!words.iter().any(|word| word.contains('{')), "{words:?}: a place is not known");
        words
    }

    /// Runs a line, with the password on standard input if the line reads one there.
    fn run(&self, line: &str) -> Output {
        let words = self.words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.installation.command(&words);
        // Without variables, so that the options alone take effect.
        command.env_remove("KEYSWEEP_DATABASE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut input = child.stdin.take().expect("a pipe");
        if words.contains(&"--password-stdin") {
            writeln!(input, "{PASSWORD}").expect("it reads");
        }
        drop(input);
        child.wait_with_output().expect("it ends")
    }

    /// Runs a line, checks its outcome and returns its standard output.
    fn hold(&self, line: &str, Line { code, says, .. }: Line) -> String {
        let output = self.run(line);
        let [said, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert_eq!(output.status.code(), Some(code), "{line}\n{said}\n{error}");
        assert!(said.contains(says) || error.contains(says), "{line}\n{said}\n{error}");
        assert!(!error.contains("server is unreachable"), "{line}\n{error}");
        said
    }
}

/// Starts servers with the same stale keys: one without a password and its replica, one with a password, one behind a Sentinel
/// with a password, and one with TLS.
fn servers(places: &mut Places) -> [Server; 5] {
    let socket = places.installation.folder().join("redis.sock").to_str().expect("UTF-8").to_owned();
    let plain = Server::with(Flavor::Valkey91).arg("--unixsocket", &socket).start();
    places.put("socket", socket);
    let locked = Server::with(Flavor::Valkey91).password(PASSWORD).start();
    let sentinel = Server::with(Flavor::Valkey91).sentinel_of("main", &plain, 1).password(PASSWORD).start();
    let issued = places.authority.issue(&["cache.example"]);
    let encrypted = Server::with(Flavor::Redis70).tls(&places.authority, &issued, true).start();
    for server in [&plain, &locked, &encrypted] {
        DataSet::new().live(200).stale(100).load(server);
    }
    let inventory = format!(
        "instances:\n  - name: sessions\n    url: {}\n    labels: {{env: prod}}\n  - name: carts\n    url: redis://{}\n    labels: {{env: test}}\n    password_file: password\n",
        plain.url(),
        locked.address()
    );
    fs::write(&places.values["inventory"], inventory).expect("written");
    let replica = plain.replica();
    places.put("server", plain.url());
    places.put("replica", replica.url());
    places.put("locked", format!("redis://{}", locked.address()));
    places.put("watched", format!("redis-sentinel://{}/main", sentinel.address()));
    places.put("tls", format!("rediss://{}", encrypted.tls_address().expect("it speaks TLS")));
    [replica, sentinel, plain, locked, encrypted]
}

#[test]
fn every_command_and_every_option_is_in_a_tested_line() {
    let mut left = words::commands();
    for line in lines::all() {
        let (command, options) = words::used_by(&line.split_whitespace().collect::<Vec<_>>());
        let left = left.get_mut(&command).unwrap_or_else(|| panic!("there is no `keysweep {command}`"));
        // A line without any option still runs its command.
        left.insert("(run)".into());
        left.retain(|option| !options.contains(option));
    }
    for (command, left) in &mut left {
        assert!(left.remove("(run)"), "no line of lines.rs runs `keysweep {command}`");
        assert!(left.is_empty(), "no line of lines.rs runs `keysweep {command}` with {left:?}");
    }
    for (line, file) in lines::ELSEWHERE {
        let text = fs::read_to_string(root().join("crates/keysweep").join(file)).expect("a test");
        for option in line.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(text.contains(option), "{file} does not run `keysweep {line}`");
        }
    }
}

#[test]
fn scan_and_estimate_run_with_every_option() {
    let mut places = Places::new();
    let _servers = servers(&mut places);
    for line in lines::SCANS {
        places.hold(line.typed, *line);
    }
}

#[test]
fn admin_runs_with_every_option() {
    let mut places = Places::new();
    let _servers = servers(&mut places);
    for line in lines::ADMIN {
        let said = places.hold(&lines::admin(line.typed), *line);
        let answer: Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{}: {error}: {said}", line.typed));
        if let Some(access) = answer["access"].as_str() {
            places.put("access", access);
        }
    }
}

#[test]
fn the_commands_for_a_remote_service_run_with_every_option() {
    let mut places = Places::new();
    let _servers = servers(&mut places);
    let installation = &places.installation;
    installation.admin(&["project", "add", "shop"]);
    let server = &places.values["server"];
    installation.admin(&["instance", "add", "cache", server, "--project", "shop", "--label", "env=prod"]);
    installation.admin(&["user", "add", "ada", "--project", "shop", "--role", "admin"]);
    let key = installation.admin(&["access-key", "add", "--user", "ada"]);
    let credentials = installation.folder().join("key.json");
    fs::write(&credentials, key.to_string()).expect("written");
    let service = installation.serve(&["--tls-cert", &places.values["cert"], "--tls-key", &places.values["cert_key"]]);
    let endpoint = service.base.replace("http://127.0.0.1", "https://localhost");
    places.put("credentials", credentials.to_str().expect("UTF-8"));
    places.put("endpoint", endpoint);
    for line in lines::REMOTE {
        let said = places.hold(&lines::remote(line.typed), *line);
        let answer: Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{}: {error}: {said}", line.typed));
        if let Some(id) = answer["id"].as_str() {
            places.put("id", id);
        }
    }
}

#[test]
fn serve_and_worker_run_with_every_option() {
    let places = Places::new();
    for line in lines::SERVICES {
        let words = places.words(line.typed);
        let mut command = places.installation.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        command.env_remove("KEYSWEEP_DATABASE").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = KilledOnDrop(command.spawn().expect("the binary starts"));
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let (mut entry, mut metrics) = (Value::Null, false);
        let mut said = String::new();
        while entry["message"] != line.says {
            let begin = said.len();
            assert_ne!(log.read_line(&mut said).expect("text"), 0, "it has ended: {said}");
            entry = serde_json::from_str(&said[begin..]).unwrap_or_else(|error| panic!("{error}: {said}"));
            metrics |= entry["metrics"].is_string();
        }
        assert!(metrics, "{said}");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("a child can be sent signals");
        std::io::copy(&mut log, &mut std::io::sink()).expect("it is read to its end");
        assert_eq!(child.wait().expect("it ends").code(), Some(line.code), "{said}");
    }
}

#[test]
fn commands_that_describe_the_command_line_run_with_every_option() {
    let places = Places::new();
    for line in lines::PAGES {
        places.hold(line.typed, *line);
    }
    assert!(Path::new(&places.values["pages"]).join("keysweep-scan.1").exists());
}
