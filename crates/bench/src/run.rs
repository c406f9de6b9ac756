//! A whole run: every server in turn, everything that was asked for.

use std::fs;

use anyhow::{Context as _, Result};
use keysweep_harness::Flavor;
use serde::Serialize;

use crate::{
    claims::{Claim, claims},
    duty::{self, Duty},
    guard::{self, Guard},
    pressure::{self, Pressure},
    rounds::{self, Contest},
    settings::Settings,
};

/// What was measured on one server.
#[derive(Debug, Clone, Serialize)]
pub struct ServerResults {
    /// Engine and version.
    pub server: String,
    /// All contestants.
    pub contests: Vec<Contest>,
    /// Duties as set and as used.
    pub duties: Vec<Duty>,
    /// The guard, where it was run.
    pub guard: Option<Guard>,
    /// The primary under pressure, where it was run.
    pub pressure: Option<Pressure>,
    /// What this shows.
    pub claims: Vec<Claim>,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// The day, by the machine's clock.
    pub date: String,
    /// What it ran on.
    pub machine: Machine,
    /// What was asked for.
    pub settings: Settings,
    /// Each server.
    pub servers: Vec<ServerResults>,
}

/// The size of the machine.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
}

/// Runs everything.
pub fn run(settings: Settings) -> Result<Results> {
    let machine = Machine { cores: std::thread::available_parallelism()?.get(), memory: memory()? };
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let servers = settings.servers.iter().map(|flavor| one(*flavor, &settings)).collect::<Result<_>>()?;
    Ok(Results { date, machine, settings, servers })
}

fn one(flavor: Flavor, settings: &Settings) -> Result<ServerResults> {
    let engine = if flavor.is_valkey() { "Valkey" } else { "Redis" };
    let mut results = ServerResults {
        server: format!("{engine} {}", flavor.version()),
        contests: rounds::run(flavor, settings)?,
        duties: duty::run(flavor, settings)?,
        guard: guard::run(flavor, settings)?,
        pressure: pressure::run(flavor, settings)?,
        claims: Vec::new(),
    };
    results.claims = claims(&results);
    Ok(results)
}

fn memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo says how much memory there is")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("/proc/meminfo has no MemTotal")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
