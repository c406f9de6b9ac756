//! Command line of a test server: everything that a restart repeats.
//!
//! No server outlives its test: it is killed when dropped, also during a panic, and the kernel kills it if the test itself
//! is killed with SIGKILL (where `setpriv` is installed).

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::binaries::Flavor;

/// Arguments of a server, without its ports and folder.
#[derive(Clone, Debug)]
pub(crate) struct ServerCommand {
    pub(crate) flavor: Flavor,
    /// The loopback address on which tests connect to it.
    pub(crate) host: Ipv4Addr,
    pub(crate) arguments: Vec<String>,
    /// Password of the user `default`.
    pub(crate) password: Option<String>,
    /// Contents of the configuration file at the first start: a Sentinel rewrites its own, and those of the servers that have one.
    pub(crate) config: Option<String>,
    /// TLS directives; empty without TLS.
    pub(crate) tls: Vec<String>,
}

impl ServerCommand {
    pub(crate) fn new(flavor: Flavor) -> Self {
        // No persistence, and no delay before a replica's first sync: the default waits 5 s for further replicas.
        let fixed = "--bind 127.0.0.1 --appendonly no --repl-diskless-sync-delay 0 --save";
        let mut arguments: Vec<String> = fixed.split(' ').map(String::from).collect();
        arguments.push(String::new());
        if flavor.has_enable_debug_command() {
            arguments.extend(["--enable-debug-command".into(), "yes".into()]);
        }
        Self { flavor, host: Ipv4Addr::LOCALHOST, arguments, password: None, config: None, tls: Vec::new() }
    }

    /// Starts the process with its output appended to `log`.
    pub(crate) fn spawn(&self, port: u16, tls_port: Option<u16>, directory: &Path, log: &Path) -> Child {
        let output = File::options().create(true).append(true).open(log).expect("the log file can be opened");
        let mut command = killed_with_parent(&self.flavor.binary());
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
            .stdout(output.try_clone().expect("a file handle can be duplicated"))
            .stderr(output)
            // A process group of its own, so that the child of a BGSAVE is killed with the server.
            .process_group(0);
        command.spawn().unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.flavor.name()))
    }
}

/// Returns a command whose process the kernel kills when the *thread* that spawned it ends. A test runs in one thread from
/// start to end, so its servers live as long as the test. A server that is started in a short-lived thread, or kept in a static
/// for other tests, would not.
///
/// `setpriv` sets the signal and then becomes the server, with the same process id. Setting it between fork and exec in this
/// process would take unsafe code.
fn killed_with_parent(binary: &Path) -> Command {
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
