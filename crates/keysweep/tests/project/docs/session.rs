//! A shell that runs the examples of one document in order, as a reader would type them: with a real server at the address of
//! the examples, and the binary on the PATH.

use std::{
    fmt::Write,
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use keysweep_harness::{DataSet, Flavor, Server, eventually, free_port};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::fence::Block;
use crate::common::root;

/// Addresses of server and service in the examples, replaced by those of the test.
const SERVER: &str = "127.0.0.1:6379";
const SERVICE: &str = "127.0.0.1:7080";
const METRICS: &str = "127.0.0.1:7081";
/// Timeout of the examples of one document.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Pages whose examples need no preparation.
const BEGIN_WITH_NOTHING: [&str; 3] = ["README.md", "docs/quick-start.md", "docs/metrics.md"];

/// Preparation for other pages: the state after docs/quick-start.md.
const SET_UP: &str = r#"
keysweep admin project add shop
keysweep admin instance add cache redis://127.0.0.1:6379 --project shop
keysweep admin user add robot --project shop --role admin
keysweep admin --json access-key add --user robot > key.json
printf 'correct horse battery\n' > password.txt
keysweep admin user passwd robot --password-stdin < password.txt
keysweep serve > serve.log 2>&1 &
until curl -sf "http://127.0.0.1:7080/readyz" > /dev/null; do sleep 0.05; done
export KEYSWEEP_ENDPOINT=http://127.0.0.1:7080 KEYSWEEP_PROJECT=shop
export KEYSWEEP_ACCESS_KEY=$(python3 -c 'import json; print(json.load(open("key.json"))["access"])')
export KEYSWEEP_SECRET_KEY=$(python3 -c 'import json; print(json.load(open("key.json"))["secret"])')
export INSTANCE_ID=$(keysweep instance show cache --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
export PROJECT_ID=$(keysweep instance show cache --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["project_id"])')
"#;

/// Runs the blocks and returns the output of each; an error names the block that failed.
pub fn run(document: &str, blocks: &[&Block]) -> Result<Vec<String>, String> {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(3_000).stale(1_000).load(&server);
    let [listen, metrics] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let folder = TempDir::with_prefix("keysweep-docs-").expect("a temporary folder");
    let place = |name: &str| folder.path().join(name);
    fs::create_dir(place("bin")).expect("created");
    symlink(env!("CARGO_BIN_EXE_keysweep"), place("bin/keysweep")).expect("linked");
    symlink(root().join(".cache/servers/redis-7.0/redis-cli"), place("bin/redis-cli")).expect("linked");
    // Not a symbolic link: Python locates its packages by the path it was called with.
    let python = format!("#!/bin/sh\nexec {} \"$@\"\n", root().join(".cache/venv/bin/python").display());
    fs::write(place("bin/python3"), python).expect("written");
    fs::set_permissions(place("bin/python3"), Permissions::from_mode(0o755)).expect("it is ours");
    let here = |text: &str| {
        text.replace(SERVER, &server.address().to_string()).replace(SERVICE, &listen).replace(METRICS, &metrics)
    };
    let mut script = String::from("set -euo pipefail\n");
    if !BEGIN_WITH_NOTHING.contains(&document) {
        script.push_str(&here(SET_UP));
    }
    for (number, block) in blocks.iter().enumerate() {
        let text = here(&block.text);
        writeln!(script, "echo {number} > current").expect("a string");
        match (block.language.as_str(), block.in_background) {
            ("sh", true) => {
                match text.trim_end() {
                    // The page redirects its output.
                    text if text.ends_with('&') => writeln!(script, "{text}"),
                    text => writeln!(script, "{text} > out.{number} 2>&1 &"),
                }
                .expect("a string");
                writeln!(script, "until curl -sf http://{listen}/readyz > /dev/null; do sleep 0.05; kill -0 $!; done")
                    .expect("a string");
            }
            ("sh", false) => writeln!(script, "{{\n{text}}} > out.{number} 2>&1").expect("a string"),
            _ => {
                let program = place(&format!("block.{number}.py"));
                fs::write(&program, text).expect("written");
                writeln!(script, "python3 {} > out.{number} 2>&1", program.display()).expect("a string");
            }
        }
    }
    fs::write(place("script.sh"), script).expect("written");
    let search = format!("{}:{}", place("bin").display(), std::env::var("PATH").expect("a path"));
    let mut command = Command::new("bash");
    for name in std::env::vars_os().map(|(name, _)| name) {
        if name.to_string_lossy().starts_with("KEYSWEEP_") {
            command.env_remove(name);
        }
    }
    let log = fs::File::create(place("log")).expect("created");
    command
        .arg("script.sh")
        .current_dir(folder.path())
        .env("PATH", search)
        .env("HOME", folder.path())
        .env("XDG_DATA_HOME", folder.path())
        .env("KEYSWEEP_LISTEN", &listen)
        .env_remove("REDISCLI_AUTH")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Background processes of the shell end with it.
        .process_group(0);
    let mut shell = Group(command.spawn().expect("bash starts"));
    let status = eventually(&format!("the examples of {document} have run"), TIMEOUT, || {
        shell.0.try_wait().expect("it can be waited for")
    });
    let read = |name: &str| fs::read_to_string(place(name)).unwrap_or_default();
    if !status.success() {
        let number = read("current").trim().parse::<usize>().ok();
        let (place, said) = match number {
            Some(number) => (blocks[number].place.clone(), read(&format!("out.{number}"))),
            None => (document.to_owned(), "the set-up failed".into()),
        };
        return Err(format!("{place} fails:\n{said}\n{}\n{}", read("log"), read("serve.log")));
    }
    Ok((0..blocks.len()).map(|number| read(&format!("out.{number}"))).collect())
}

/// A shell and its child processes. Killed on drop.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // An error means that no process is left.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}
