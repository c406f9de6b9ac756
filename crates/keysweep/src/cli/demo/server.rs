//! A disposable Redis or Valkey server on a free port, in a folder of its own.

use std::{
    env,
    ffi::OsString,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use keysweep_engine::{
    Address, Credentials, Stop,
    link::{Link, LinkError, Plain},
};

use super::cleanup::Cleanup;
use crate::cli::client::fields::engine;

/// How long the server may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// A running server.
pub struct DemoServer {
    address: Address,
}

impl DemoServer {
    /// Starts the server binary named by `KEYSWEEP_DEMO_SERVER`, else the first one on the PATH.
    ///
    /// # Errors
    /// No binary was found, the server did not start or answer in time, or `stop` was raised.
    pub fn start(cleanup: &Cleanup, folder: &Path, stop: &Stop) -> anyhow::Result<Self> {
        let binary = find_binary()?;
        // Another program can take the port before the server does; the server then exits and the demo reports it.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(&binary);
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        cleanup.start_server(&mut command).with_context(|| format!("cannot start {}", binary.display()))?;
        let server = Self { address: Address::tcp("127.0.0.1", port) };
        server.wait_until_ready(cleanup, stop)?;
        Ok(server)
    }

    fn wait_until_ready(&self, cleanup: &Cleanup, stop: &Stop) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = cleanup.server_ended()? {
                bail!("the demo server exited at once ({status}); try again");
            }
            match self.connect(stop) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).context("the demo server does not answer");
                }
                Err(_) if stop.is_raised() => bail!("stopped"),
                Err(_) => stop.wait_until(Instant::now() + Duration::from_millis(20)),
            }
        }
    }

    /// Opens a connection for the loader or for samples. A raised `stop` ends its waits.
    ///
    /// # Errors
    /// The server did not accept the connection or did not answer.
    pub fn connect(&self, stop: &Stop) -> Result<Link, LinkError> {
        Link::open(&Plain, &self.address, &Credentials::default(), "keysweep-demo", stop)
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

/// Returns what a server calls itself, with its version.
///
/// # Errors
/// The server did not answer.
pub fn name(link: &mut Link) -> Result<String, LinkError> {
    let info = link.info(&["server"])?.unwrap_or_default();
    let version = info.engine_version().unwrap_or("of an unknown version");
    Ok(format!("{} {version}", engine(info.engine())))
}

fn find_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("KEYSWEEP_DEMO_SERVER").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = ["valkey-server", "redis-server"].iter().find_map(|name| on_path(&path, name));
    found.context(
        "no valkey-server or redis-server on the PATH; install one, run `make demo`, or set KEYSWEEP_DEMO_SERVER to one",
    )
}

fn on_path(path: &OsString, name: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}
