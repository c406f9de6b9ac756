//! Logs: text on a terminal, JSON elsewhere, on standard error. `KEYSWEEP_LOG` filters (for example `debug`).

pub mod traces;

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging for a process that serves.
pub fn start() {
    let filter = EnvFilter::try_from_env("KEYSWEEP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = fmt().with_env_filter(filter).with_writer(stderr);
    // A second start in one process (tests do that) keeps the first one's log.
    let _ = match stderr().is_terminal() {
        true => log.with_target(false).try_init(),
        false => log.json().flatten_event(true).try_init(),
    };
}
