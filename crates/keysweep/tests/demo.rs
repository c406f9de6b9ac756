//! `keysweep demo`: that it tells what happened, and leaves nothing behind whichever way it ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Child, Output, Stdio},
};

use keysweep_harness::{Flavor, Installation};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A demo that loads for long enough to be interrupted.
struct Interrupted {
    child: Child,
    folder: TempDir,
    /// Where its server is.
    server: String,
}

impl Interrupted {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
        let mut command = installation.command(&["demo", "--keys", "5000000"]);
        command.env("KEYSWEEP_DEMO_SERVER", Flavor::Valkey91.binary()).env("TMPDIR", folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut first).expect("a line");
        let server = first.trim().trim_end_matches('.').rsplit("redis://").next().expect("an address").to_owned();
        assert!(TcpStream::connect(&server).is_ok(), "its server is there: {first}");
        Self { child, folder, server }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be sent signals");
    }

    /// The demo's server, which is its only child.
    fn server_process(&self) -> Pid {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("the list of children");
        Pid::from_raw(children.trim().parse().expect("one child")).expect("a process id")
    }

    /// Waits for its end; nothing of it may be left then.
    fn ends(self) -> Output {
        let output = self.child.wait_with_output().expect("it ends");
        assert_eq!(fs::read_dir(self.folder.path()).expect("the folder").count(), 0, "its files are gone");
        assert!(TcpStream::connect(&self.server).is_err(), "its server is gone");
        output
    }
}

#[test]
fn heavy_the_demo_runs_to_its_end_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
    let mut command = installation.command(&["demo", "--once", "--keys", "300000"]);
    let output = command
        .env("KEYSWEEP_DEMO_SERVER", Flavor::Valkey91.binary())
        .env("TMPDIR", folder.path())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for words in ["keys alive by the loader's own ledger", "The sweep released"] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    assert!(!text.contains("curl"), "nobody would answer by now: {text}");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "its files are gone");
    let port =
        text.split("redis://127.0.0.1:").nth(1).and_then(|rest| rest.split('.').next()).expect("the server's port");
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "its server is gone");
}

#[rstest]
#[case::ctrl_c(Signal::INT)]
#[case::sigterm(Signal::TERM)]
#[case::a_closed_terminal(Signal::HUP)]
fn a_signal_in_the_middle_ends_it_quietly(#[case] signal: Signal) {
    let demo = Interrupted::start();
    demo.signal(signal);
    let output = demo.ends();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(!error.contains("error"), "{error}");
}

#[test]
fn a_second_signal_ends_a_demo_that_hangs_and_leaves_nothing_either() {
    let demo = Interrupted::start();
    // Its loader waits half a minute for an answer of this server, so that the first signal alone ends nothing.
    kill_process(demo.server_process(), Signal::STOP).expect("it can be sent signals");
    demo.signal(Signal::INT);
    // Not another INT: two of the same may arrive as one.
    demo.signal(Signal::TERM);
    assert_eq!(demo.ends().status.code(), Some(130));
}
