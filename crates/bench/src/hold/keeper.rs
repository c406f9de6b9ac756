//! What runs against a server under churn to keep its stale share down.

use std::{
    fs,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use keysweep_harness::{Flavor, KilledOnDrop, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tempfile::TempDir;

use crate::{child, contestant, rival};

use super::{LONGEST_TTL, RATE, TARGET};

/// Time between two scans by `redis-cli`.
const MINUTE: Duration = Duration::from_secs(60);
/// Scans take at most this part of the time, as an auto-scan with a target allows.
const SCAN_PART: u32 = 10;
/// Longest time until `keysweep hold` holds.
const HOLDING_TIMEOUT: Duration = Duration::from_secs(240);
/// What `keysweep hold` may raise, and how often it looks.
const HOLD: &str = "--interval 5s --settle-floor 15s --max-effort 9 --max-hz 30";

/// What keeps the stale share down beside the server's own cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeper {
    /// Nothing: the server's own cycle at its default settings.
    Nothing,
    /// `redis-cli --scan` every minute.
    RedisCli,
    /// SCAN COUNT 100 every 5 ms without an end.
    Dcs100,
    /// `keysweep scan` at the interval that the law gives for the target.
    AutoScan,
    /// `keysweep hold`.
    Hold,
}

impl Keeper {
    /// All keepers.
    pub const ALL: [Self; 5] = [Self::Nothing, Self::RedisCli, Self::Dcs100, Self::AutoScan, Self::Hold];

    /// Returns the title for tables and the chart.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nothing => "nothing running",
            Self::RedisCli => "redis-cli --scan every minute",
            Self::Dcs100 => "COUNT 100 every 5 ms, endless",
            Self::AutoScan => "keysweep scan at the interval for 8 %",
            Self::Hold => "keysweep hold --below 8%",
        }
    }

    /// Starts it. `keysweep hold` has reached its target on return; `None`: it has given the server its own settings back instead.
    pub fn start(self, server: &Server) -> Result<Option<Kept>> {
        let (port, address) = (server.port(), server.address());
        Ok(Some(match self {
            Self::Nothing => Kept::Nothing,
            Self::RedisCli => Kept::repeated(move || {
                let binary = Flavor::Redis70.binary().with_file_name("redis-cli");
                let finished = child::run(Command::new(binary).args(["-p", &port.to_string(), "--scan"]), false)?;
                Ok(MINUTE.saturating_sub(Duration::from_secs_f64(finished.wall)))
            }),
            Self::Dcs100 => {
                let mut connection = redis::Client::open(format!("redis://{address}"))?.get_connection()?;
                let mut cursor = 0;
                Kept::repeated(move || {
                    cursor = rival::scan_once(&mut connection, cursor, 100)?;
                    Ok(rival::DCS_INTERVAL)
                })
            }
            Self::AutoScan => {
                let url = server.url();
                let living = RATE as f64 * LONGEST_TTL.as_secs_f64() / 2.0;
                let interval = Duration::from_secs_f64(2.0 * TARGET * living / RATE as f64);
                Kept::repeated(move || {
                    let wall = Duration::from_secs_f64(contestant::scan(&url, &["--pace", "normal"])?.wall);
                    Ok(interval.max(SCAN_PART * wall).saturating_sub(wall))
                })
            }
            Self::Hold => return Kept::hold(server),
        }))
    }
}

/// A keeper at work.
pub enum Kept {
    /// Nothing is.
    Nothing,
    /// Something that runs again and again, until the sender is dropped.
    Repeated(Sender<()>, JoinHandle<Result<()>>),
    /// `keysweep hold`, and the folder with its output.
    Hold(KilledOnDrop, TempDir),
}

impl Kept {
    /// Repeats `work`, which returns the time until its next turn.
    fn repeated(mut work: impl FnMut() -> Result<Duration> + Send + 'static) -> Self {
        let (sender, stop) = mpsc::channel();
        let thread = thread::spawn(move || {
            loop {
                let due = Instant::now() + work()?;
                match stop.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return Ok(()),
                }
            }
        });
        Self::Repeated(sender, thread)
    }

    fn hold(server: &Server) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("output");
        let file = fs::File::create(&output)?;
        let mut command = Command::new(child::keysweep()?);
        let below = format!("{}%", 100.0 * TARGET);
        command.args(["hold", &server.url(), "--below", &below, "--data-dir"]).arg(folder.path());
        command.args(HOLD.split(' ')).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut process = KilledOnDrop(command.spawn().context("keysweep cannot be started")?);
        let begun = Instant::now();
        loop {
            let said = fs::read_to_string(&output)?;
            if said.contains(": holding: ") {
                return Ok(Some(Self::Hold(process, folder)));
            }
            if said.contains(": backing_off: ") {
                eprintln!("{said}");
                return Ok(None);
            }
            ensure!(process.try_wait()?.is_none(), "keysweep hold ended: {said}");
            // What it leaves is measured all the same.
            if begun.elapsed() >= HOLDING_TIMEOUT {
                eprintln!("the target is not held: {said}");
                return Ok(Some(Self::Hold(process, folder)));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it, and waits for its end.
    ///
    /// # Errors
    /// If it failed.
    pub fn stop(self) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Repeated(sender, thread) => {
                drop(sender);
                thread.join().map_err(|_| anyhow!("a keeper panicked"))?
            }
            Self::Hold(mut process, folder) => {
                kill_process(Pid::from_child(&process), Signal::TERM)?;
                if !process.wait()?.success() {
                    bail!("keysweep hold failed: {}", fs::read_to_string(folder.path().join("output"))?);
                }
                Ok(())
            }
        }
    }
}
