//! The results of a run, as docs/benchmarks.json holds them.

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

/// Size of the machine.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Machine {
    /// Number of cores available to this process.
    pub cores: usize,
    /// Memory, bytes.
    pub memory: u64,
}
