//! A whole run: every server in turn, everything that was asked for.

use std::fs;

use anyhow::{Context as _, Result};
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

/// Runs everything, and has what is known kept after every scenario: a run takes long, and what stops it may be its last part.
pub fn run(settings: Settings, keep: impl Fn(&Results) -> Result<()>) -> Result<()> {
    let machine = Machine { cores: std::thread::available_parallelism()?.get(), memory: memory()? };
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut results = Results { date, machine, settings: settings.clone(), servers: Vec::new() };
    for flavor in settings.servers.iter().copied() {
        let engine = if flavor.is_valkey() { "Valkey" } else { "Redis" };
        results.servers.push(ServerResults {
            server: format!("{engine} {}", flavor.version()),
            contests: Vec::new(),
            duties: Vec::new(),
            guard: None,
            pressure: None,
            claims: Vec::new(),
        });
        let mut enter = |measure: &dyn Fn(&mut ServerResults) -> Result<()>| {
            let server = results.servers.last_mut().context("one was just added")?;
            measure(server)?;
            server.claims = claims(server);
            keep(&results)
        };
        enter(&|server| rounds::run(flavor, &settings).map(|contests| server.contests = contests))?;
        enter(&|server| duty::run(flavor, &settings).map(|duties| server.duties = duties))?;
        enter(&|server| guard::run(flavor, &settings).map(|guard| server.guard = guard))?;
        enter(&|server| pressure::run(flavor, &settings).map(|pressure| server.pressure = pressure))?;
    }
    Ok(())
}

fn memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo says how much memory there is")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("/proc/meminfo has no MemTotal")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
