//! Outcome of one contestant's run: measured the same way for programs and for the loops inside this process.

use std::time::Instant;

use keysweep_engine::Report;

use crate::child::Finished;

/// Cost of one run.
pub struct Outcome {
    /// Start of the run.
    pub began: Instant,
    /// Seconds from start to end.
    pub wall: f64,
    /// CPU time of the contestant itself, seconds.
    pub own_cpu: f64,
    /// Peak resident memory, bytes; `None` for loops inside this process.
    pub peak_rss: Option<u64>,
    /// keysweep's own report; `None` for other contestants.
    pub report: Option<Report>,
}

impl Outcome {
    /// Returns the outcome of a program.
    pub fn of_program(finished: Finished, report: Option<Report>) -> Self {
        let Finished { began, wall, cpu, peak_rss, .. } = finished;
        Self { began, wall, own_cpu: cpu, peak_rss, report }
    }
}
