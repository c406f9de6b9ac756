//! Settings of a run, read from the environment. Depending on them a run takes ten minutes or two hours.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, ensure};
use keysweep_harness::Flavor;
use serde::Serialize;

/// One key in this many is stale: 20 %, within the 10–28 % measured on servers without scans.
const STALE_ONE_IN: u64 = 5;

/// The settings of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Number of keys, stale ones included.
    pub keys: u64,
    /// Size of each value, bytes.
    pub value_bytes: usize,
    /// Number of runs per contestant.
    pub rounds: usize,
    /// Number of runs of every other scenario.
    pub scenario_rounds: usize,
    /// Number of runs of each keeper of the scenario hold.
    pub hold_rounds: usize,
    /// Requests per second of the foreground.
    pub rate: u64,
    /// Names of the selected contestants and scenarios; empty selects all.
    pub only: Vec<String>,
    /// Servers to measure on.
    #[serde(skip)]
    pub servers: Vec<Flavor>,
    /// Servers to hold on.
    #[serde(skip)]
    pub hold_servers: Vec<Flavor>,
    /// Folder for the page, the numbers and the charts.
    #[serde(skip)]
    pub out: PathBuf,
}

impl Settings {
    /// Reads `KEYSWEEP_BENCH_…`.
    ///
    /// # Errors
    /// If a value cannot be read or is out of range.
    pub fn from_environment() -> Result<Self> {
        let servers = list("KEYSWEEP_BENCH_SERVERS", "valkey-9.1,redis-7.0");
        // Those whose own cycle walks in the order of SCAN.
        let hold_servers = list("KEYSWEEP_BENCH_HOLD_SERVERS", "valkey-9.1,redis-8.2");
        let settings = Self {
            keys: number("KEYSWEEP_BENCH_KEYS", 1_000_000)?,
            value_bytes: 100,
            rounds: number("KEYSWEEP_BENCH_ROUNDS", 5)?,
            scenario_rounds: number("KEYSWEEP_BENCH_SCENARIO_ROUNDS", 3)?,
            hold_rounds: number("KEYSWEEP_BENCH_HOLD_ROUNDS", 5)?,
            rate: number("KEYSWEEP_BENCH_RATE", 4_000)?,
            only: list("KEYSWEEP_BENCH_ONLY", ""),
            servers: servers.iter().map(|name| flavor(name)).collect::<Result<_>>()?,
            hold_servers: hold_servers.iter().map(|name| flavor(name)).collect::<Result<_>>()?,
            out: env::var_os("KEYSWEEP_BENCH_OUT").map_or_else(|| workspace().join("docs"), PathBuf::from),
        };
        ensure!(settings.keys >= 1_000, "KEYSWEEP_BENCH_KEYS is {}; use at least 1000", settings.keys);
        ensure!((100..=20_000).contains(&settings.rate), "KEYSWEEP_BENCH_RATE must be 100 to 20000");
        let rounds = settings.rounds.min(settings.scenario_rounds).min(settings.hold_rounds);
        ensure!(rounds > 0 && !settings.servers.is_empty(), "nothing to run: rounds or servers are none");
        Ok(settings)
    }

    /// Returns the number of stale keys.
    pub fn stale(&self) -> u64 {
        self.keys / STALE_ONE_IN
    }

    /// Returns the number of live keys.
    pub fn live(&self) -> u64 {
        self.keys - self.stale()
    }

    /// Returns the same settings with so many live keys.
    pub fn with_live(&self, live: u64) -> Self {
        Self { keys: live * STALE_ONE_IN / (STALE_ONE_IN - 1), ..self.clone() }
    }

    /// Returns whether the contestant or scenario of this name is selected.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// Returns the root of this workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/bench lies in it")
}

fn number<T: FromStr<Err: fmt::Display>>(name: &str, default: T) -> Result<T> {
    match env::var(name) {
        Ok(text) => text.parse().map_err(|error| anyhow::anyhow!("{name} is {text:?}: {error}")),
        Err(_) => Ok(default),
    }
}

fn list(name: &str, default: &str) -> Vec<String> {
    let text = env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn flavor(name: &str) -> Result<Flavor> {
    let found = Flavor::ALL.into_iter().find(|flavor| flavor.name() == name);
    found.with_context(|| format!("KEYSWEEP_BENCH_SERVERS names {name:?}, which scripts/server does not install"))
}
