//! `keysweep demo`: that it tells what happened, and leaves nothing behind whichever way it ends.

use std::{
    fs,
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write},
    net::TcpStream,
    process::{Child, Output, Stdio},
    time::Duration,
};

use keysweep_harness::{Flavor, Installation, eventually};
use procfs::process::Process;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Keys enough for a signal in the middle of loading them.
const LOADS_FOR_LONG: u64 = 5_000_000;

/// How long a thing may take of which nobody says how long it takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a demo may take to clear away what it has started.
const TO_THE_END: Duration = Duration::from_secs(60);

/// A thread that has slept for this long without a turn waits for something that does not come.
const MORE_THAN_A_NAP: Duration = Duration::from_millis(100);

/// A demo that is interrupted. Killed on drop, with its server, if its end was not waited for.
struct Interrupted {
    child: Option<Child>,
    folder: TempDir,
    /// Where its server is.
    server: String,
}

impl Interrupted {
    /// Starts it, with this many keys to load and this to print on, and waits until its server is there.
    fn start(keys: u64, stdout: impl Into<Stdio>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
        let mut command = installation.command(&["demo", "--keys", &keys.to_string()]);
        command.env("KEYSWEEP_DEMO_SERVER", Flavor::Valkey91.binary()).env("TMPDIR", folder.path());
        let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut demo = Self { child: Some(child), folder, server: String::new() };
        demo.server = eventually("its server is there", PATIENCE, || {
            // It writes its address where its arguments were.
            let title = Process::new(demo.server_process()?.as_raw_pid()).ok()?.cmdline().ok()?.join(" ");
            let server = title.split_whitespace().find(|word| word.starts_with("127.0.0.1:"))?.to_owned();
            TcpStream::connect(&server).is_ok().then_some(server)
        });
        demo
    }

    fn child(&self) -> &Child {
        self.child.as_ref().expect("its end was not waited for")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child()), signal).expect("a child can be sent signals");
    }

    /// The demo's server, which is its only child.
    fn server_process(&self) -> Option<Pid> {
        let id = self.child().id();
        // None where it has ended.
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        Pid::from_raw(children.trim().parse().ok()?)
    }

    /// Waits until this thread of it hangs.
    fn hangs(&self, thread: &str) {
        let mut before = None;
        eventually("it hangs", PATIENCE, || {
            std::thread::sleep(MORE_THAN_A_NAP);
            let now = self.turns_of(thread);
            let hangs = now.is_some() && now == before;
            before = now;
            hangs.then_some(())
        });
    }

    /// How often this thread has gone to sleep; nothing while it does something.
    fn turns_of(&self, thread: &str) -> Option<u64> {
        let process = Process::new(self.child().id() as i32).expect("it runs");
        let mut threads = process.tasks().expect("its threads").flatten().filter_map(|task| task.status().ok());
        let status = threads.find(|status| status.name == thread).expect("a thread of this name");
        status.voluntary_ctxt_switches.filter(|_| status.state.starts_with('S'))
    }

    /// Waits for its end; nothing of it may be left then.
    fn ends(mut self) -> Output {
        // Seen first: one that does not end is killed when this is dropped.
        eventually("it ends", TO_THE_END, || {
            self.child.as_mut().and_then(|child| child.try_wait().expect("it can be waited for"))
        });
        let child = self.child.take().expect("its end was not waited for");
        let output = child.wait_with_output().expect("it has ended");
        assert_eq!(fs::read_dir(self.folder.path()).expect("the folder").count(), 0, "its files are gone");
        assert!(TcpStream::connect(&self.server).is_err(), "its server is gone");
        output
    }
}

impl Drop for Interrupted {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        let server = self.server_process();
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        // It would go on without its demo.
        server.map(|server| kill_process(server, Signal::KILL));
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
    let demo = Interrupted::start(LOADS_FOR_LONG, Stdio::null());
    demo.signal(signal);
    let output = demo.ends();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(!error.contains("error"), "{error}");
}

#[test]
fn a_second_signal_ends_a_demo_that_hangs_and_leaves_nothing_either() {
    // Like a terminal that Ctrl-S has stopped: no signal interrupts what is printed there.
    let (_nobody_reads, stopped) = full_pipe();
    let demo = Interrupted::start(LOADS_FOR_LONG, stopped);
    demo.hangs("keysweep");
    demo.signal(Signal::INT);
    // Not another INT: two of the same may arrive as one.
    demo.signal(Signal::TERM);
    assert_eq!(demo.ends().status.code(), Some(130));
}

#[test]
fn heavy_the_first_signal_ends_a_demo_whose_server_hangs() {
    let (printed, stdout) = io::pipe().expect("a pipe");
    let demo = Interrupted::start(100_000, stdout);
    let mut lines = BufReader::new(printed).lines().map(|line| line.expect("text"));
    assert!(lines.any(|line| line.starts_with("POST http")), "it came to its sweep");
    kill_process(demo.server_process().expect("a server"), Signal::STOP).expect("it can be sent signals");
    // The only one whom no signal interrupts; the others hear the stop.
    demo.hangs("demo-writer");
    demo.signal(Signal::INT);
    assert_eq!(demo.ends().status.code(), Some(0));
}

/// A pipe that nothing more fits into.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe need not block");
    while writer.write(b" ").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe may block");
    (reader, writer)
}
