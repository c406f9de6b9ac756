//! The results of a run, as docs/benchmarks.json holds them.

use std::fs;

use anyhow::{Context as _, Result};
use keysweep_harness::Flavor;
use serde::Serialize;

use crate::{
    backoff::Backoff, claim::Claim, cpu_limit::CpuLimit, pressure::Pressure, rounds::Contest, settings::Settings,
};

/// Results for one server.
#[derive(Debug, Clone, Serialize)]
pub struct ServerResults {
    /// Engine and version.
    pub server: String,
    /// The contestants side by side.
    pub contests: Vec<Contest>,
    /// The grid of settings that the presets are chosen from.
    pub grid: Vec<Contest>,
    /// CPU limits and the CPU shares that scans used.
    pub cpu_limits: Vec<CpuLimit>,
    /// Backoff under load; `None` if it was not run.
    pub backoff: Option<Backoff>,
    /// The primary under pressure; `None` if it was not run.
    pub pressure: Option<Pressure>,
    /// The claims, measured against these results.
    pub claims: Vec<Claim>,
}

/// Results of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// Date of the run, UTC.
    pub date: String,
    /// The machine of the run.
    pub machine: Machine,
    /// The settings of the run.
    pub settings: Settings,
    /// One entry per server.
    pub servers: Vec<ServerResults>,
}

/// Returns the date of a run, UTC.
pub fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// Returns engine and version of a server.
pub fn engine(flavor: Flavor) -> String {
    format!("{} {}", if flavor.is_valkey() { "Valkey" } else { "Redis" }, flavor.version())
}

/// Size of the machine.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Machine {
    /// Number of cores available to this process.
    pub cores: usize,
    /// Memory, bytes.
    pub memory: u64,
}

impl Machine {
    /// Returns this machine.
    pub fn here() -> Result<Self> {
        let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let line = line.context("/proc/meminfo has no MemTotal")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(Self { cores: std::thread::available_parallelism()?.get(), memory: kilobytes * 1024 })
    }
}
