//! A PostgreSQL server for one test: on a free port, in a temporary folder, killed on drop.
//!
//! `initdb` takes longer than most tests, so its result is kept in `.cache/postgres` and copied for each test. PostgreSQL refuses to
//! run as root; if the tests run as root, the server runs as the user nobody.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::certificates::Issued;
use crate::condition::eventually;
use crate::port::free_port;

/// User and group id of the server if the tests run as root: Debian's nobody and nogroup.
const NOBODY: u32 = 65_534;
/// Number of ports that are tried before a start fails.
const PORTS: usize = 5;
/// Longest time for a start, crash recovery included.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for a shutdown.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A PostgreSQL server with an empty database.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    port: u16,
    child: Child,
    folder: TempDir,
    durable: bool,
}

impl Postgres {
    /// Starts a server without fsync.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(false)
    }

    /// Starts a server with fsync, which keeps commits through a crash of the machine, as in production.
    ///
    /// # Panics
    /// See [`Postgres::start`].
    #[must_use]
    pub fn start_durable() -> Self {
        Self::launch(true)
    }

    fn launch(durable: bool) -> Self {
        let bin = binaries();
        let template = template(&bin);
        for _ in 0..PORTS {
            let (folder, port) = (open_folder(), free_port());
            copy(&template, &folder.path().join("data"));
            let child = spawn(&bin, folder.path(), port, durable);
            let mut server = Self { bin: bin.clone(), port, child, folder, durable };
            if server.await_ready() {
                return server;
            }
            let log = server.log();
            assert!(log.contains("could not bind"), "PostgreSQL did not start: {log}");
        }
        panic!("{PORTS} ports in a row were taken by others while PostgreSQL started");
    }

    /// Returns the `postgres://` URL of the database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://keysweep@127.0.0.1:{}/postgres", self.port)
    }

    /// Enables TLS with this certificate, beside plain connections.
    ///
    /// # Panics
    /// If the server does not accept the certificate.
    pub fn speak_tls(&self, issued: &Issued) {
        for (name, from) in [("server.crt", &issued.certificate), ("server.key", &issued.key)] {
            let to = self.folder.path().join("data").join(name);
            fs::copy(from, &to).expect("the server's folder can be written to");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("it is ours");
            if is_root() {
                chown(&to, Some(NOBODY), Some(NOBODY)).expect("root may give it away");
            }
        }
        self.sql("ALTER SYSTEM SET ssl = on");
        self.sql("SELECT pg_reload_conf()");
        eventually("PostgreSQL speaks TLS", START_TIMEOUT, || (self.sql("SHOW ssl") == "on").then_some(()));
    }

    /// Returns the CPU time of the server and all its connections, closed ones included.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let own = cpu_time(self.child.id() as i32, true);
        children(self.child.id()).into_iter().fold(own, |sum, pid| sum + cpu_time(pid, false))
    }

    /// Returns the log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// Shuts the server down in fast mode (SIGINT), which closes its connections, and waits for the exit.
    pub fn stop(&mut self) {
        self.signal(Signal::INT);
        let child = &mut self.child;
        eventually("PostgreSQL exits", STOP_TIMEOUT, || child.try_wait().expect("it is a child of this process"));
    }

    /// Kills the server with all its processes (SIGKILL), as a crash does. Its System V segment is removed, as a crash of the machine does.
    pub fn kill(&mut self) {
        if self.child.try_wait().expect("it is a child of this process").is_some() {
            return;
        }
        // Its processes lead process groups of their own, and the next start fails while one of them runs.
        let children = children(self.child.id());
        let segment = self.segment();
        // Fails only if the server has just exited.
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        self.child.wait().expect("it is a child of this process");
        for &pid in &children {
            if let Some(pid) = Pid::from_raw(pid) {
                // An orphan of the killed server may have exited already.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        eventually("the processes of a killed PostgreSQL exit", STOP_TIMEOUT, || {
            children.iter().all(|pid| is_gone(*pid)).then_some(())
        });
        // A killed server cannot remove it, and the system has room for 4,096 of all that run on it.
        if let Some(id) = segment {
            let _ = Command::new("ipcrm").args(["--shmem-id", &id]).status();
        }
    }

    /// Starts the server again with its data, on the same port.
    pub fn restart(&mut self) {
        assert!(self.child.try_wait().expect("it is a child of this process").is_some(), "it still runs");
        self.child = spawn(&self.bin, self.folder.path(), self.port, self.durable);
        assert!(self.await_ready(), "PostgreSQL did not start again: {}", self.log());
    }

    /// Runs SQL through psql and returns its output: one line per row, columns separated by `|`.
    ///
    /// # Panics
    /// If the statement fails.
    pub fn sql(&self, sql: &str) -> String {
        let output = Command::new(self.bin.join("psql"))
            .args(["--no-psqlrc", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.url()])
            .output()
            .expect("psql starts");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn await_ready(&mut self) -> bool {
        let mut ready = Command::new(self.bin.join("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        let child = &mut self.child;
        // Another server may have taken the port and answer in place of this one. The first line of postmaster.pid is the process
        // id, the last line the state.
        let (id, status) = (child.id().to_string(), self.folder.path().join("data/postmaster.pid"));
        let is_up = || {
            let status = fs::read_to_string(&status).unwrap_or_default();
            let mut lines = status.lines().map(str::trim);
            lines.next() == Some(&id) && lines.next_back() == Some("ready")
        };
        eventually("PostgreSQL answers or exits", START_TIMEOUT, || {
            if child.try_wait().expect("it is a child of this process").is_some() {
                return Some(false);
            }
            (is_up() && ready.status().is_ok_and(|status| status.success())).then_some(true)
        })
    }

    /// Returns the id of the server's System V shared memory segment, from the seventh line of postmaster.pid: key and id.
    fn segment(&self) -> Option<String> {
        let status = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).ok()?;
        Some(status.lines().nth(6)?.split_whitespace().nth(1)?.to_owned())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be sent signals");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the folder of the server's programs: the newest `/usr/lib/postgresql/N/bin`, else a folder of `PATH`.
fn binaries() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = debian.map(|version| version.join("bin")).collect();
    found.sort();
    found.reverse();
    found.extend(std::env::split_paths(&path));
    found
        .into_iter()
        .find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .expect("PostgreSQL is installed; run scripts/postgres")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Creates a temporary folder that the server's user may write to.
fn open_folder() -> TempDir {
    let folder = TempDir::with_prefix("keysweep-postgres-").expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    if is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may give it away");
    }
    folder
}

/// Returns a command that runs a program of the server as the server's user.
fn program(path: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    // If the test is killed, the kernel tells the server to quit at once, see `command.rs`. SIGKILL would leave its System V segment.
    command.args(["--pdeathsig", "QUIT", "--"]).arg(path);
    command
}

/// Returns the database cluster to copy, and creates it if there is none.
fn template(bin: &Path) -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/postgres");
    let version = Command::new(bin.join("postgres")).arg("--version").output().expect("it starts").stdout;
    let name: String = String::from_utf8_lossy(&version).chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    let template = cache.join(format!("{name}-{}", if is_root() { "root" } else { "user" }));
    if template.exists() {
        return template;
    }
    let folder = open_folder();
    let data = folder.path().join("data");
    let output = program(&bin.join("initdb"))
        .args(["--username", "keysweep", "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C"])
        .args(["--wal-segsize", "1", "--pgdata"])
        .arg(&data)
        .current_dir(folder.path())
        .output()
        .expect("setpriv starts");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    fs::create_dir_all(&cache).expect("the repository's cache");
    // The rename happens only once the copy is complete. If another process was first, its copy is used.
    let made = TempDir::new_in(&cache).expect("a folder beside it");
    copy(&data, &made.path().join("data"));
    let _ = fs::rename(made.path().join("data"), &template);
    assert!(template.exists(), "{} could not be created", template.display());
    template
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().expect("cp starts");
    assert!(status.success(), "{} could not be copied to {}", from.display(), to.display());
}

fn spawn(bin: &Path, folder: &Path, port: u16, durable: bool) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("server.log")).expect("a log");
    let data = folder.join("data");
    debug_assert!(data.metadata().is_ok_and(|data| data.uid() != 0));
    let mut command = program(&bin.join("postgres"));
    command.arg("-D").arg(data).args(["-p", &port.to_string()]);
    // Commits survive a crash of the server without fsync, but not a crash of the machine.
    let sync = if durable { ["fsync=on", "full_page_writes=on"] } else { ["fsync=off", "full_page_writes=off"] };
    for setting in [
        sync[0],
        sync[1],
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "shared_buffers=32MB",
        "max_connections=100",
        "max_wal_senders=0",
        "wal_level=minimal",
        "jit=off",
    ] {
        command.args(["-c", setting]);
    }
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file handle can be duplicated"))
        .stderr(log)
        .spawn()
        .expect("setpriv starts")
}

/// Returns the child processes of a process.
fn children(pid: u32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Returns the CPU time of a process, with `reaped` also that of its exited children; zero if the process is gone.
pub(crate) fn cpu_time(pid: i32, reaped: bool) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Fields after the name: utime, stime, cutime, cstime.
    let fields = fields.get(11..if reaped { 15 } else { 13 }).unwrap_or_default();
    let ticks: u64 = fields.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

/// Unit of CPU times in /proc, the same on all Linux platforms.
const TICKS_PER_SECOND: u64 = 100;

fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie holds no resources.
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether the system holds a segment with this id (second column).
    fn is_held(id: &str) -> bool {
        let all = fs::read_to_string("/proc/sysvipc/shm").expect("the system lists its segments");
        all.lines().any(|line| line.split_whitespace().nth(1) == Some(id))
    }

    #[test]
    fn a_server_that_is_killed_or_whose_test_is_killed_leaves_no_shared_memory() {
        let mut server = Postgres::start();
        let id = server.segment().expect("a server has one");
        assert!(is_held(&id));
        server.kill();
        assert!(!is_held(&id), "a killed server");

        server.restart();
        let id = server.segment().expect("a server has one");
        assert!(is_held(&id));
        // What the kernel sends it when its test dies, see `program`.
        server.signal(Signal::QUIT);
        server.child.wait().expect("it is a child of this process");
        assert!(!is_held(&id), "a server whose test died");
    }
}
