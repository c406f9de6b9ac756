//! A throwaway Redis or Valkey server: on a free port, in a folder of its own.

use std::{
    env,
    ffi::OsString,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use keysweep_engine::Stop;

use super::leftovers::Leftovers;

/// How long the server may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How long each answer to the loader may take: those of a batch are waited for one after the other, whatever became of
/// the first.
const REPLY_PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub struct ThrowawayServer {
    port: u16,
}

impl ThrowawayServer {
    /// Starts the server that `KEYSWEEP_DEMO_SERVER` names, else the first that the PATH has.
    pub fn start(leftovers: &Leftovers, folder: &Path, stop: &Stop) -> anyhow::Result<Self> {
        let binary = find_binary()?;
        // Free when asked for; should somebody take it in between, the server exits and we say so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(&binary);
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        leftovers.start_server(&mut command).with_context(|| format!("cannot start {}", binary.display()))?;
        let server = Self { port };
        server.wait_until_ready(leftovers, stop)?;
        Ok(server)
    }

    fn wait_until_ready(&self, leftovers: &Leftovers, stop: &Stop) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = leftovers.server_ended()? {
                bail!("the demo's own server ended at once ({status}); try again");
            }
            match self.connect() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).context("the demo's own server does not answer");
                }
                Err(_) if stop.is_raised() => bail!("stopped"),
                Err(_) => stop.wait_until(Instant::now() + Duration::from_millis(20)),
            }
        }
    }

    /// A connection of the loader's; an independent client, so that the demo's figures are a second opinion.
    pub fn connect(&self) -> anyhow::Result<redis::Connection> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        connection.set_read_timeout(Some(REPLY_PATIENCE))?;
        connection.set_write_timeout(Some(REPLY_PATIENCE))?;
        let _: String = redis::cmd("PING").query(&mut connection)?;
        Ok(connection)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

fn find_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("KEYSWEEP_DEMO_SERVER").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = ["valkey-server", "redis-server"].iter().find_map(|name| on_path(&path, name));
    found.context("no valkey-server or redis-server on the PATH; install one, run `make demo`, or name one in KEYSWEEP_DEMO_SERVER")
}

fn on_path(path: &OsString, name: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}
