//! How a server is started: its arguments, its process, and when it counts as up.
//!
//! Nothing may outlive a test: not after a panic (the server is killed when dropped) and not after a
//! SIGKILL of the test itself (the kernel kills it, where `setpriv` is there to ask for that).

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::binaries::Flavor;
use crate::certificates::{Authority, Issued};
use crate::port::free_port;
use crate::server::Server;

/// How many ports are tried before a start fails.
const PORTS: usize = 5;

/// A server that is about to be started; made by [`Server::with`].
#[derive(Clone, Debug)]
pub struct Launch {
    pub(crate) flavor: Flavor,
    pub(crate) arguments: Vec<String>,
    pub(crate) password: Option<String>,
    /// The port of the primary that it is to follow.
    primary: Option<u16>,
    /// Lines of a configuration file; a Sentinel must have one, which it rewrites.
    config: Option<String>,
    tls: Vec<String>,
}

impl Launch {
    pub(crate) fn new(flavor: Flavor) -> Self {
        // No file is written and no deadline of the server's own delays a test: a replica's first sync would
        // wait 5 s for others to join.
        let fixed = "--bind 127.0.0.1 --appendonly no --repl-diskless-sync-delay 0 --save";
        let mut arguments: Vec<String> = fixed.split(' ').map(String::from).collect();
        arguments.push(String::new());
        if flavor.has_enable_debug_command() {
            arguments.extend(["--enable-debug-command".into(), "yes".into()]);
        }
        Self { flavor, arguments, password: None, primary: None, config: None, tls: Vec::new() }
    }

    /// Adds a directive of the server's configuration, such as `.arg("--maxmemory", "100mb")`. The last one
    /// of a name counts, so the defaults can be overruled.
    #[must_use]
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        assert!(name.starts_with("--"), "{name}: a directive on a command line begins with --");
        self.arguments.extend([name.into(), value.into()]);
        self
    }

    /// Listens on this loopback address as well, for who needs servers on several hosts.
    #[must_use]
    pub fn also_on(mut self, address: &str) -> Self {
        assert!(address.starts_with("127."), "{address} can be reached from elsewhere");
        let bind = self.arguments.iter().position(|argument| argument == "--bind").expect("every launch has one");
        self.arguments.insert(bind + 2, address.to_owned());
        self
    }

    /// Takes a command away altogether, as on a server that never had it.
    #[must_use]
    pub fn without(mut self, command: &str) -> Self {
        self.arguments.extend(["--rename-command".into(), command.into(), String::new()]);
        self
    }

    /// Requires this password of clients (user `default`); [`Server::url`] and [`Server::connection`] use it.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.into());
        self.arg("--requirepass", password)
    }

    /// Makes it a replica of `primary`, with the primary's password; it is started when the link is up.
    #[must_use]
    pub fn replica_of(mut self, primary: &Server) -> Self {
        self.primary = Some(primary.port());
        // Two words, one argument each: 6.2 does not split a quoted pair.
        self.arguments.extend(["--replicaof".into(), "127.0.0.1".into(), primary.port().to_string()]);
        match primary.password() {
            Some(password) => self.arg("--masterauth", password).password(password),
            None => self,
        }
    }

    /// Speaks TLS with this certificate, on a port of its own beside the plain one: [`Server::tls_address`]. Whether clients
    /// must show a certificate, issued by the same authority, is up to `asks_clients`.
    #[must_use]
    pub fn tls(mut self, authority: &Authority, issued: &Issued, asks_clients: bool) -> Self {
        let path = |path: &Path| path.to_str().expect("temporary folders are UTF-8").to_owned();
        self.tls = [
            ("--tls-cert-file", path(&issued.certificate)),
            ("--tls-key-file", path(&issued.key)),
            ("--tls-ca-cert-file", path(&authority.file())),
            // The nodes of a cluster announce their encrypted ports only if they speak TLS among themselves.
            ("--tls-cluster", "yes".to_owned()),
            ("--tls-auth-clients", if asks_clients { "yes" } else { "no" }.to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        self
    }

    /// Makes it a Sentinel that watches `primary` by this name, together with others if there are.
    #[must_use]
    pub fn sentinel_of(mut self, name: &str, primary: &Server, quorum: u32) -> Self {
        let auth = primary.password().map(|password| format!("sentinel auth-pass {name} {password}\n"));
        self.config = Some(format!(
            "sentinel monitor {name} 127.0.0.1 {} {quorum}\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\n{}",
            primary.port(),
            auth.unwrap_or_default(),
        ));
        self.arguments = ["--bind", "127.0.0.1", "--sentinel"].map(String::from).to_vec();
        self
    }

    /// Starts it on a free port and waits until it answers; a replica until it is in sync with its primary.
    ///
    /// # Panics
    /// When the binary is missing, when it exits, or when it is not up within 10 s; with the end of its log.
    #[must_use]
    pub fn start(self) -> Server {
        let primary = self.primary;
        for _ in 0..PORTS {
            let tls_port = (!self.tls.is_empty()).then(free_port);
            let mut server = Server::spawn(self.clone(), free_port(), tls_port);
            match server.await_ready() {
                Ok(()) => {
                    if let Some(primary) = primary {
                        server.await_sync(primary);
                    }
                    return server;
                }
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("{} did not start: {log}", self.flavor.name()),
            }
        }
        panic!("{}: {PORTS} ports in a row were taken by others while it started", self.flavor.name());
    }

    /// Starts the process, its output appended to `log`.
    pub(crate) fn spawn(&self, port: u16, tls_port: Option<u16>, directory: &Path, log: &Path) -> Child {
        let output = File::options().create(true).append(true).open(log).expect("the log file can be opened");
        let mut command = mortal(&self.flavor.binary());
        if let Some(config) = &self.config {
            let file = directory.join("server.conf");
            if !file.exists() {
                fs::write(&file, config).expect("the folder can be written to");
            }
            command.arg(file);
        }
        if let Some(port) = tls_port {
            command.args(["--tls-port", &port.to_string()]).args(&self.tls);
        }
        command
            .args(["--port", &port.to_string(), "--dir"])
            .arg(directory)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file handle can be doubled"))
            .stderr(output)
            // A group of its own, so that a child that saves is killed with it.
            .process_group(0);
        command.spawn().unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.flavor.name()))
    }
}

/// A command whose process the kernel kills when the *thread* that spawned it ends, however that ends. A test
/// runs in one thread from start to end, so its servers live as long as it needs them; one that is started in
/// a thread of its own, or kept in a static for other tests, would not.
///
/// `setpriv` asks the kernel for it, then becomes the server, with the same process id: doing the same here,
/// between fork and exec, would take unsafe code.
fn mortal(binary: &Path) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let with_setpriv = *SETPRIV.get_or_init(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "KILL", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    if with_setpriv {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
        command
    } else {
        Command::new(binary)
    }
}
