//! `keysweep demo`: its result, and that it leaves nothing behind however it ends.

use std::{
    fs,
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write},
    net::TcpStream,
    process::{Child, Output, Stdio},
    time::Duration,
};

use keysweep_harness::{Flavor, eventually, installation};
use procfs::process::Process;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Enough keys for a signal to arrive while they are loaded.
const LOADS_FOR_LONG: u64 = 5_000_000;

/// Timeout of steps without a time limit of their own.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a demo may take to clean up.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);

/// A thread that sleeps for this long without being scheduled is blocked.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);

/// A demo to interrupt. Killed on drop with its server, unless the test waited for its end.
struct Interrupted {
    child: Option<Child>,
    folder: TempDir,
    /// Address of its server.
    server: String,
}

impl Interrupted {
    /// Starts a demo with this number of keys and this standard output, and waits for its server.
    fn start(keys: u64, stdout: impl Into<Stdio>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let installation = installation!();
        let mut command = installation.command(&["demo", "--keys", &keys.to_string()]);
        command.env("KEYSWEEP_DEMO_SERVER", Flavor::Valkey91.binary()).env("TMPDIR", folder.path());
        let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut demo = Self { child: Some(child), folder, server: String::new() };
        demo.server = eventually("the server is running", STEP_TIMEOUT, || {
            // The server shows its address in its process title.
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

    /// Returns the server process, the only child of the demo.
    fn server_process(&self) -> Option<Pid> {
        let id = self.child().id();
        // `None` if the demo has exited.
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        Pid::from_raw(children.trim().parse().ok()?)
    }

    /// Returns whether a signal has stopped the server process.
    fn server_is_stopped(&self) -> bool {
        let process = self.server_process().and_then(|server| Process::new(server.as_raw_pid()).ok());
        process.and_then(|process| process.stat().ok()).is_some_and(|stat| stat.state == 'T')
    }

    /// Waits until this thread of the demo is blocked.
    fn hangs(&self, thread: &str) {
        let mut before = None;
        eventually("the thread hangs", STEP_TIMEOUT, || {
            std::thread::sleep(BLOCKED_AFTER);
            let now = self.switches_of(thread);
            let hangs = now.is_some() && now == before;
            before = now;
            hangs.then_some(())
        });
    }

    /// Returns the number of context switches of a sleeping thread; `None` while it runs.
    fn switches_of(&self, thread: &str) -> Option<u64> {
        let process = Process::new(self.child().id() as i32).expect("it runs");
        let mut threads = process.tasks().expect("its threads").flatten().filter_map(|task| task.status().ok());
        let status = threads.find(|status| status.name == thread).expect("a thread of this name");
        status.voluntary_ctxt_switches.filter(|_| status.state.starts_with('S'))
    }

    /// Waits for the end of the demo and asserts that nothing is left.
    fn ends(mut self) -> Output {
        // Polled first, so that a demo that does not end is killed on drop.
        eventually("it ends", CLEANUP_TIMEOUT, || {
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
            // An error means that the demo has exited.
            let _ = child.kill();
            let _ = child.wait();
        }
        // The server would outlive its demo.
        server.map(|server| kill_process(server, Signal::KILL));
    }
}

#[test]
fn heavy_a_finished_demo_prints_its_result_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let installation = installation!();
    let mut command = installation.command(&["demo", "--once", "--keys", "300000"]);
    let output = command
        .env("KEYSWEEP_DEMO_SERVER", Flavor::Valkey91.binary())
        .env("TMPDIR", folder.path())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for words in [
        "A disposable server is running, Valkey 9.1.2.",
        "300,000 sessions take ",
        "75,000 sessions have expired at once",
        "░░░░░░░░░░░░░░░░░░░░ 0.0 % stale",
        "live keys, by the loader's log",
        "0  (0.0 %)",
        "The scan reclaimed",
        "clients' p90, before and during the scan",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    assert!(!text.contains("://"), "server and service are gone by then: {text}");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "its files are gone");
}

#[rstest]
#[case::ctrl_c(Signal::INT)]
#[case::sigterm(Signal::TERM)]
#[case::a_closed_terminal(Signal::HUP)]
fn a_signal_ends_the_demo_without_an_error(#[case] signal: Signal) {
    let demo = Interrupted::start(LOADS_FOR_LONG, Stdio::null());
    demo.signal(signal);
    let output = demo.ends();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(!error.contains("error"), "{error}");
}

#[test]
fn a_second_signal_ends_a_blocked_demo_and_leaves_nothing() {
    // Like a terminal stopped by Ctrl-S: no signal interrupts a write to it.
    let (_reader, stopped) = full_pipe();
    let demo = Interrupted::start(LOADS_FOR_LONG, stopped);
    demo.hangs("keysweep");
    demo.signal(Signal::INT);
    // Two pending signals of the same kind can merge, so the second one is a TERM.
    demo.signal(Signal::TERM);
    assert_eq!(demo.ends().status.code(), Some(130));
}

#[test]
fn heavy_one_signal_ends_a_demo_whose_server_hangs() {
    let (printed, stdout) = io::pipe().expect("a pipe");
    let demo = Interrupted::start(100_000, stdout);
    let mut lines = BufReader::new(printed).lines().map(|line| line.expect("text"));
    assert!(lines.any(|line| line.starts_with("keysweep scans the server")), "the demo starts its scan");
    kill_process(demo.server_process().expect("a server"), Signal::STOP).expect("it can be sent signals");
    eventually("the server is stopped", STEP_TIMEOUT, || demo.server_is_stopped().then_some(()));
    demo.signal(Signal::INT);
    assert_eq!(demo.ends().status.code(), Some(0));
}

#[test]
fn heavy_a_demo_ends_by_holding_the_stale_share_beside_what_it_would_be_without() {
    let (printed, stdout) = io::pipe().expect("a pipe");
    let demo = Interrupted::start(100_000, stdout);
    let mut lines = BufReader::new(printed).lines().map(|line| line.expect("text"));
    let holds = |line: &String| line.contains("% stale at effort ") && line.contains("% without (");
    assert!(lines.any(|line| holds(&line)), "the demo holds the stale share");
    // The links come last, once the share is held: a terminal redraws the line below them.
    let next = lines.find(|line| !line.contains("% stale")).expect("an empty line");
    let [scan, console] = [(); 2].map(|()| lines.next().expect("a line"));
    assert!(next.is_empty() && scan.contains(&format!("keysweep scan redis://{}", demo.server)), "{scan}");
    assert!(console.starts_with("The web console") && console.ends_with("/console"), "{console}");
    demo.signal(Signal::INT);
    assert_eq!(demo.ends().status.code(), Some(0));
}

/// Returns a full pipe.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe need not block");
    while writer.write(b" ").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe may block");
    (reader, writer)
}
