//! A running server: how to reach it, and what a test can do to it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisResult};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::binaries::Flavor;
use crate::condition::eventually;
use crate::launch::Launch;

/// Starting takes well under 100 ms; this is for a machine that is busy compiling.
const START_LIMIT: Duration = Duration::from_secs(10);
/// A full sync of what tests load takes less than a second.
const SYNC_LIMIT: Duration = Duration::from_secs(30);
/// A primary that is asked to stop waits up to 10 s for replicas that lag.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Nothing that a test asks takes this long; without it a paused server would hang the test.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// A server that a test started. It is killed when dropped, and never left behind.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    port: u16,
    tls_port: Option<u16>,
    child: Child,
    directory: TempDir,
}

impl Server {
    /// Starts a server with defaults: standalone, no password, no persistence, `DEBUG` allowed.
    ///
    /// # Panics
    /// See [`Launch::start`].
    #[must_use]
    pub fn start(flavor: Flavor) -> Self {
        Self::with(flavor).start()
    }

    /// A server to be started with more than the defaults.
    #[must_use]
    pub fn with(flavor: Flavor) -> Launch {
        Launch::new(flavor)
    }

    /// Starts a replica of this server, of the same flavor, and waits until it is in sync.
    ///
    /// # Panics
    /// See [`Launch::start`].
    #[must_use]
    pub fn replica(&self) -> Self {
        Self::with(self.flavor()).replica_of(self).start()
    }

    /// Which server it is.
    #[must_use]
    pub const fn flavor(&self) -> Flavor {
        self.launch.flavor
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The process id; another one after [`Server::restart`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Where it listens for TLS, if it does.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Keys that it holds in all databases, dead ones included.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn held(&self) -> u64 {
        let info: String = redis::cmd("INFO").arg("keyspace").query(&mut self.connection()).expect("INFO answers");
        let keys = |line: &str| line.split_once(":keys=")?.1.split(',').next()?.parse::<u64>().ok();
        info.lines().filter_map(keys).sum()
    }

    /// The password that it requires, if any.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.launch.password.as_deref()
    }

    /// `redis://[:password@]127.0.0.1:port`, the password percent-encoded.
    #[must_use]
    pub fn url(&self) -> String {
        let encode = |byte: u8| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        let login = self.password().map(|password| format!(":{}@", password.bytes().map(encode).collect::<String>()));
        format!("redis://{}{}", login.unwrap_or_default(), self.address())
    }

    /// What it has written to its log since it was started.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A connection to database 0, authenticated, that gives up a reply after 20 s (on its own it would wait
    /// for ever).
    ///
    /// # Panics
    /// When the server cannot be reached.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.connection_to(self.port)
    }

    fn connection_to(&self, port: u16) -> Connection {
        self.connect(port, REPLY_LIMIT)
            .unwrap_or_else(|error| panic!("{} on port {port}: {error}", self.flavor().name()))
    }

    /// Kills it and its child processes at once (SIGKILL) and waits until it is gone. Its port stays reserved for [`Server::restart`]
    /// only as far as nobody else takes it.
    pub fn kill(&mut self) {
        // Not after it has been waited for: by then somebody else might have its id.
        if self.is_running() {
            // Fails only when it has ended in this moment.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        self.child.wait().expect("the server is a child of this process");
    }

    /// Asks it to end (SIGTERM), as an operator would, and waits until it has.
    ///
    /// # Panics
    /// When it has not ended within 20 s.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let child = &mut self.child;
        eventually("a stopped server ends", STOP_LIMIT, || child.try_wait().expect("it is a child of this process"))
    }

    /// Starts it again on the same port with the same arguments, empty and with another run id.
    ///
    /// # Panics
    /// When it is still running, or see [`Launch::start`].
    pub fn restart(&mut self) {
        assert!(!self.is_running(), "only a server that was stopped or killed can be restarted");
        self.child = self.launch.spawn(self.port, self.tls_port, self.directory.path(), &self.log_path());
        self.await_ready().unwrap_or_else(|log| panic!("{} did not start again: {log}", self.flavor().name()));
    }

    /// Freezes it (SIGSTOP): it keeps its connections and answers nothing.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Server::pause`].
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Whether the process is there, paused or not.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the server is a child of this process").is_none()
    }

    /// Starts the process without waiting for it.
    pub(crate) fn spawn(launch: Launch, port: u16, tls_port: Option<u16>) -> Self {
        let directory = tempfile::Builder::new().prefix("keysweep-").tempdir().expect("a temporary folder can be made");
        let child = launch.spawn(port, tls_port, directory.path(), &directory.path().join("server.log"));
        Self { launch, port, tls_port, child, directory }
    }

    /// Waits until it answers; the error says why it does not, with the end of its log.
    pub(crate) fn await_ready(&mut self) -> Result<(), String> {
        let began = Instant::now();
        // Twice the limit is never reached: the error below is the better message.
        eventually("a server answers or ends", START_LIMIT * 2, || {
            if !self.is_running() {
                return Some(Err(format!("it has ended\n{}", self.log_tail())));
            }
            if self.answers() {
                return Some(Ok(()));
            }
            (began.elapsed() > START_LIMIT)
                .then(|| Err(format!("no answer within {START_LIMIT:?}\n{}", self.log_tail())))
        })
    }

    /// Waits until its link to its primary, which has this port and the same password, is up at both ends: Redis 7.0 lists a
    /// replica only when it has heard from it once more.
    pub(crate) fn await_sync(&self, primary: u16) {
        let (mut connection, mut above) = (self.connection(), self.connection_to(primary));
        let replication = |connection: &mut Connection| -> String {
            redis::cmd("INFO").arg("replication").query(connection).expect("INFO answers")
        };
        let online = format!("port={},state=online", self.port);
        eventually("a replica is in sync with its primary", SYNC_LIMIT, || {
            let is_up = replication(&mut connection).contains("master_link_status:up");
            (is_up && replication(&mut above).contains(&online)).then_some(())
        });
    }

    /// Whether *this* process answers: where another server took the port first, that one would.
    fn answers(&self) -> bool {
        let ask = || -> RedisResult<bool> {
            let mut connection = self.connect(self.port, Duration::from_secs(1))?;
            let pong: String = redis::cmd("PING").query(&mut connection)?;
            let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
            Ok(pong == "PONG" && info.contains(&format!("process_id:{}\r\n", self.pid())))
        };
        ask().unwrap_or(false)
    }

    fn connect(&self, port: u16, reply_limit: Duration) -> RedisResult<Connection> {
        let mut login = RedisConnectionInfo::default();
        if let Some(password) = self.password() {
            login = login.set_password(password);
        }
        let address = ConnectionAddr::Tcp("127.0.0.1".into(), port);
        let client = Client::open(address.into_connection_info()?.set_redis_settings(login))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(reply_limit))?;
        connection.set_write_timeout(Some(reply_limit))?;
        Ok(connection)
    }

    /// Only to a process that has not been waited for: until then nobody else can have its id.
    fn signal(&mut self, signal: Signal) {
        assert!(self.is_running(), "{} has ended\n{}", self.flavor().name(), self.log_tail());
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be sent signals");
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
