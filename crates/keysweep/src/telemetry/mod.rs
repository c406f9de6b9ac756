//! Logs: text on a terminal, JSON elsewhere, on standard error. `KEYSWEEP_LOG` filters (for example `debug`).

pub mod traces;

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

/// Starts logging for a process that serves.
pub fn start() {
    let wanted = std::env::var("KEYSWEEP_LOG").ok().filter(|wanted| !wanted.is_empty());
    let (filter, wrong) = match wanted.as_deref().map_or_else(|| read("info"), read) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let log = fmt().with_env_filter(filter).with_writer(stderr);
    // A second start in one process (tests do that) keeps the first one's log.
    let _ = match stderr().is_terminal() {
        true => log.with_target(false).try_init(),
        false => log.json().flatten_event(true).try_init(),
    };
    if let Some(error) = wrong {
        tracing::warn!(
            value = wanted,
            error,
            "KEYSWEEP_LOG cannot be used and counts as info; write error, warn, info, debug or trace"
        );
    }
}

/// A filter, or why it is none.
fn read(text: &str) -> Result<EnvFilter, String> {
    // A lone word that is no level would be taken for the name of a part of the program, and everything else be silent,
    // failures included.
    if !text.contains('=') {
        text.parse::<LevelFilter>().map_err(|_| "there is no such level".to_owned())?;
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_silence_the_log_by_mistake_is_no_filter() {
        for good in ["debug", "WARN", "off", "warn,keysweep=debug", "keysweep::task=trace"] {
            read(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for wrong in ["warning", "verbose", "keysweep=loud"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
