//! Starts a server: options first, then a free port, then the wait until it answers.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::binaries::Flavor;
use crate::certificates::{Authority, Issued};
use crate::command::ServerCommand;
use crate::port::free_port;
use crate::server::Server;

/// Number of ports that are tried before a start fails.
const PORTS: usize = 5;

impl Server {
    /// Starts a server with defaults: standalone, no password, no persistence, `DEBUG` allowed.
    ///
    /// # Panics
    /// See [`Launch::start`].
    #[must_use]
    pub fn start(flavor: Flavor) -> Self {
        Self::with(flavor).start()
    }

    /// Returns a launch to which options can be added.
    #[must_use]
    pub fn with(flavor: Flavor) -> Launch {
        Launch { command: ServerCommand::new(flavor), primary: None, port: None }
    }

    /// Starts a replica of this server, of the same flavor, and waits until it is in sync.
    ///
    /// # Panics
    /// See [`Launch::start`].
    #[must_use]
    pub fn replica(&self) -> Self {
        Self::with(self.flavor()).replica_of(self).start()
    }
}

/// Options of a server that is about to be started; made by [`Server::with`].
#[derive(Clone, Debug)]
pub struct Launch {
    command: ServerCommand,
    /// Port of the primary that the server replicates.
    primary: Option<u16>,
    /// The port, where it is not any free one.
    port: Option<u16>,
}

impl Launch {
    /// Adds a configuration directive, such as `.arg("--maxmemory", "100mb")`. The last directive of a name wins, so defaults
    /// can be overridden.
    #[must_use]
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        assert!(name.starts_with("--"), "{name}: a directive on a command line begins with --");
        self.command.arguments.extend([name.into(), value.into()]);
        self
    }

    /// Listens on a further loopback address, for tests that need servers on several hosts.
    #[must_use]
    pub fn also_on(mut self, address: &str) -> Self {
        assert!(address.starts_with("127."), "{address} is not a loopback address");
        let arguments = &mut self.command.arguments;
        let bind = arguments.iter().position(|argument| argument == "--bind").expect("every launch has one");
        arguments.insert(bind + 2, address.to_owned());
        self
    }

    /// Listens on this address of the loopback network alone, such as 127.0.0.2, and on this port: for nodes that differ only in
    /// their hosts.
    #[must_use]
    pub fn at(mut self, host: Ipv4Addr, port: u16) -> Self {
        assert!(host.is_loopback(), "{host} is not a loopback address");
        let bind = self.command.arguments.iter().position(|argument| argument == "--bind");
        self.command.arguments[bind.expect("every launch has one") + 1] = host.to_string();
        (self.command.host, self.port) = (host, Some(port));
        self
    }

    /// Removes a command, as on a managed server that does not offer it.
    #[must_use]
    pub fn without(mut self, command: &str) -> Self {
        self.command.arguments.extend(["--rename-command".into(), command.into(), String::new()]);
        self
    }

    /// Requires this password of the user `default`; [`Server::url`] and [`Server::connection`] use it.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.command.password = Some(password.into());
        self.arg("--requirepass", password)
    }

    /// Has a configuration file, which is empty at the first start: CONFIG REWRITE changes it, and a restart reads it.
    #[must_use]
    pub fn config_file(mut self) -> Self {
        self.command.config = Some(String::new());
        self
    }

    /// Replicates `primary`, with the primary's password; [`Launch::start`] then waits for the first sync.
    #[must_use]
    pub fn replica_of(mut self, primary: &Server) -> Self {
        self.primary = Some(primary.port());
        // One argument per word: Redis 6.2 does not split a quoted pair.
        self.command.arguments.extend(["--replicaof".into(), "127.0.0.1".into(), primary.port().to_string()]);
        match primary.password() {
            Some(password) => self.arg("--masterauth", password).password(password),
            None => self,
        }
    }

    /// Enables TLS with this certificate on a second port, [`Server::tls_address`]. With `asks_clients` a client certificate of
    /// the same authority is required.
    #[must_use]
    pub fn tls(mut self, authority: &Authority, issued: &Issued, asks_clients: bool) -> Self {
        let path = |path: &Path| path.to_str().expect("temporary folders are UTF-8").to_owned();
        self.command.tls = [
            ("--tls-cert-file", path(&issued.certificate)),
            ("--tls-key-file", path(&issued.key)),
            ("--tls-ca-cert-file", path(&authority.file())),
            // Cluster nodes announce their TLS ports only if their bus uses TLS.
            ("--tls-cluster", "yes".to_owned()),
            ("--tls-auth-clients", if asks_clients { "yes" } else { "no" }.to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        self
    }

    /// Makes the server a Sentinel that monitors `primary` by this name.
    #[must_use]
    pub fn sentinel_of(mut self, name: &str, primary: &Server, quorum: u32) -> Self {
        let auth = primary.password().map(|password| format!("sentinel auth-pass {name} {password}\n"));
        self.command.config = Some(format!(
            "sentinel monitor {name} 127.0.0.1 {} {quorum}\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\n{}",
            primary.port(),
            auth.unwrap_or_default(),
        ));
        self.command.arguments = ["--bind", "127.0.0.1", "--sentinel"].map(String::from).to_vec();
        self
    }

    /// Makes the server a Sentinel that monitors the primary of this host name, which it need not be able to resolve, and that
    /// announces the name.
    #[must_use]
    pub fn sentinel_of_host(mut self, name: &str, host: &str, port: u16) -> Self {
        self.command.config = Some(format!(
            "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel monitor {name} {host} {port} 1\n"
        ));
        self.command.arguments = ["--bind", "127.0.0.1", "--sentinel"].map(String::from).to_vec();
        self
    }

    /// Starts the server on a free port and waits until it answers; a replica until it is in sync with its primary.
    ///
    /// # Panics
    /// If the binary is missing, the server exits, or it does not answer within 10 s; the message ends with its log.
    #[must_use]
    pub fn start(self) -> Server {
        let name = self.command.flavor.name();
        for _ in 0..PORTS {
            let tls_port = (!self.command.tls.is_empty()).then(free_port);
            let mut server = Server::spawn(self.command.clone(), self.port.unwrap_or_else(free_port), tls_port);
            match server.await_ready() {
                Ok(()) => {
                    if let Some(primary) = self.primary {
                        server.await_sync(primary);
                    }
                    return server;
                }
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("{name} did not start: {log}"),
            }
        }
        panic!("{name} did not start: {PORTS} ports in a row were taken by other processes");
    }
}
