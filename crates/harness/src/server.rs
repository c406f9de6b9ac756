//! A running Redis or Valkey server: its address, and the operations that tests perform on its process.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisResult};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::binaries::Flavor;
use crate::command::ServerCommand;
use crate::condition::eventually;

/// Longest time for a start, which takes less than 100 ms on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for a replica's full sync, which takes less than a second with the data of tests.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for a graceful shutdown; a primary waits up to 10 s for lagging replicas.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout of a reply. No command of a test takes this long; without it a paused server would hang the test.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// A server that a test started. Killed on drop.
#[derive(Debug)]
pub struct Server {
    command: ServerCommand,
    port: u16,
    tls_port: Option<u16>,
    child: Child,
    directory: TempDir,
}

impl Server {
    /// Returns the product and version.
    #[must_use]
    pub const fn flavor(&self) -> Flavor {
        self.command.flavor
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id, which changes with [`Server::restart`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the address of the plain port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((self.command.host, self.port))
    }

    /// Returns the address of the TLS port, if TLS is enabled.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Whether the nodes of a cluster of such servers use TLS among themselves.
    pub(crate) fn has_tls_bus(&self) -> bool {
        let off = ["--tls-cluster", "no"];
        !self.command.arguments.windows(2).any(|pair| pair == off)
    }

    /// Returns the number of keys in all databases, stale ones included.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn held(&self) -> u64 {
        let info: String = redis::cmd("INFO").arg("keyspace").query(&mut self.connection()).expect("INFO answers");
        let keys = |line: &str| line.split_once(":keys=")?.1.split(',').next()?.parse::<u64>().ok();
        info.lines().filter_map(keys).sum()
    }

    /// Returns the required password, if any.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.command.password.as_deref()
    }

    /// Returns `redis://[:password@]host:port`, the password percent-encoded.
    #[must_use]
    pub fn url(&self) -> String {
        let encode = |byte: u8| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        let login = self.password().map(|password| format!(":{}@", password.bytes().map(encode).collect::<String>()));
        format!("redis://{}{}", login.unwrap_or_default(), self.address())
    }

    /// Returns the log since the first start.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Opens an authenticated connection to database 0 with a reply timeout of 20 s.
    ///
    /// # Panics
    /// If the server cannot be reached.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.connection_to(self.port)
    }

    /// Connects as [`Server::connection`] does, to a server that may close the connection: Sentinels close all clients of one that
    /// they promote or demote.
    ///
    /// # Errors
    /// The server cannot be reached, or closes the connection.
    pub fn try_connection(&self) -> RedisResult<Connection> {
        self.connect(self.port, REPLY_TIMEOUT)
    }

    /// Subscribes a client to the events of expired keys, until the server ends. With it a scan reclaims at most 10,000 keys a
    /// second, so that one of some ten thousand stale keys takes seconds.
    ///
    /// # Panics
    /// If the server cannot be reached, or refuses the setting.
    pub fn watch_expired_keys(&self) {
        let mut connection = self.connection();
        let setting = ["SET", "notify-keyspace-events", "Ex"];
        redis::cmd("CONFIG").arg(&setting).exec(&mut connection).expect("the server takes the setting");
        let mut subscriber = self.connection();
        redis::cmd("PSUBSCRIBE").arg("__keyevent@*__:expired").exec(&mut subscriber).expect("a subscription");
        let _ = subscriber.set_read_timeout(None);
        thread::spawn(move || while subscriber.recv_response().is_ok() {});
    }

    fn connection_to(&self, port: u16) -> Connection {
        self.connect(port, REPLY_TIMEOUT)
            .unwrap_or_else(|error| panic!("{} on port {port}: {error}", self.flavor().name()))
    }

    /// Kills the server and its child processes (SIGKILL) and waits for the exit. The port is free for other processes until
    /// [`Server::restart`].
    pub fn kill(&mut self) {
        // After an exit that was waited for, another process may have the id.
        if self.is_running() {
            // Fails only if the server has just exited.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        self.child.wait().expect("the server is a child of this process");
    }

    /// Shuts the server down (SIGTERM) and waits for the exit.
    ///
    /// # Panics
    /// If it does not exit within 20 s.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let child = &mut self.child;
        eventually("a stopped server exits", STOP_TIMEOUT, || child.try_wait().expect("it is a child of this process"))
    }

    /// Starts the server again on the same port with the same arguments; its data is gone and its run id differs.
    ///
    /// # Panics
    /// If it is still running or does not start.
    pub fn restart(&mut self) {
        assert!(!self.is_running(), "only a server that was stopped or killed can be restarted");
        self.child = self.command.spawn(self.port, self.tls_port, self.directory.path(), &self.log_path());
        self.await_ready().unwrap_or_else(|log| panic!("{} did not start again: {log}", self.flavor().name()));
    }

    /// Stops the process (SIGSTOP): connections stay open and get no replies.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Continues the process after [`Server::pause`].
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Returns whether the process exists, paused or not.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the server is a child of this process").is_none()
    }

    /// Starts the process without waiting for an answer.
    pub(crate) fn spawn(command: ServerCommand, port: u16, tls_port: Option<u16>) -> Self {
        let directory = tempfile::Builder::new().prefix("keysweep-").tempdir().expect("a temporary folder can be made");
        let child = command.spawn(port, tls_port, directory.path(), &directory.path().join("server.log"));
        Self { command, port, tls_port, child, directory }
    }

    /// Waits until the server answers. The error says why it does not, with the end of its log.
    pub(crate) fn await_ready(&mut self) -> Result<(), String> {
        let began = Instant::now();
        // The error below has the better message, so this timeout must not fire first.
        eventually("a server answers or exits", START_TIMEOUT * 2, || {
            if !self.is_running() {
                return Some(Err(format!("it has exited\n{}", self.log_tail())));
            }
            if self.answers() {
                return Some(Ok(()));
            }
            (began.elapsed() > START_TIMEOUT)
                .then(|| Err(format!("no answer within {START_TIMEOUT:?}\n{}", self.log_tail())))
        })
    }

    /// Waits until the link to the primary on this port, which has the same password, is up at both ends: Redis 7.0 lists a
    /// replica only after its first acknowledgement.
    pub(crate) fn await_sync(&self, primary: u16) {
        let (mut connection, mut above) = (self.connection(), self.connection_to(primary));
        let replication = |connection: &mut Connection| -> String {
            redis::cmd("INFO").arg("replication").query(connection).expect("INFO answers")
        };
        let online = format!("port={},state=online", self.port);
        eventually("a replica is in sync with its primary", SYNC_TIMEOUT, || {
            let is_up = replication(&mut connection).contains("master_link_status:up");
            (is_up && replication(&mut above).contains(&online)).then_some(())
        });
    }

    /// Returns whether *this* process answers: another server may have taken the port first.
    fn answers(&self) -> bool {
        let ask = || -> RedisResult<bool> {
            let mut connection = self.connect(self.port, Duration::from_secs(1))?;
            let pong: RedisResult<String> = redis::cmd("PING").query(&mut connection);
            // A server may have been started without the command.
            let answers =
                pong.map_or_else(|error| error.to_string().contains("unknown command"), |pong| pong == "PONG");
            let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
            Ok(answers && info.contains(&format!("process_id:{}\r\n", self.pid())))
        };
        ask().unwrap_or(false)
    }

    fn connect(&self, port: u16, reply_timeout: Duration) -> RedisResult<Connection> {
        let mut login = RedisConnectionInfo::default();
        if let Some(password) = self.password() {
            login = login.set_password(password);
        }
        let address = ConnectionAddr::Tcp(self.command.host.to_string(), port);
        let client = Client::open(address.into_connection_info()?.set_redis_settings(login))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(reply_timeout))?;
        connection.set_write_timeout(Some(reply_timeout))?;
        Ok(connection)
    }

    /// Sends a signal to the process, which must not have been waited for: until then its id is not reused.
    fn signal(&mut self, signal: Signal) {
        assert!(self.is_running(), "{} has exited\n{}", self.flavor().name(), self.log_tail());
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
