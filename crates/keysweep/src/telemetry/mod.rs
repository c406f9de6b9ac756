//! Logging to standard error: text on a terminal, JSON otherwise. `KEYSWEEP_LOG` sets the level (for example `debug`).

pub mod traces;

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Starts logging. An invalid `KEYSWEEP_LOG` is logged and replaced by `info`.
pub fn start() {
    let wanted = std::env::var("KEYSWEEP_LOG").ok().filter(|wanted| !wanted.is_empty());
    let (filter, wrong) = match wanted.as_deref().map_or_else(|| read("info"), read) {
        Ok(filter) => (filter, None),
        Err(error) => (Targets::new().with_default(LevelFilter::INFO), Some(error)),
    };
    let (subscriber, log) = (tracing_subscriber::registry().with(filter), fmt::layer().with_writer(stderr));
    // A second call in one process (tests do that) keeps the first subscriber.
    let _ = match stderr().is_terminal() {
        true => subscriber.with(log.with_target(false)).try_init(),
        false => subscriber.with(log.json().flatten_event(true)).try_init(),
    };
    if let Some(error) = wrong {
        tracing::warn!(
            value = wanted,
            error,
            "invalid KEYSWEEP_LOG, using info: expected error, warn, info, debug or trace"
        );
    }
}

/// Parses a filter.
fn read(text: &str) -> Result<Targets, String> {
    // Targets would read a misspelt level as a module name and silence everything else, errors included.
    if !text.contains('=') {
        text.parse::<LevelFilter>().map_err(|_| "unknown level".to_owned())?;
    }
    text.parse::<Targets>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_rejected_instead_of_silencing_the_log() {
        for good in ["debug", "WARN", "off", "warn,keysweep=debug", "keysweep::task=trace"] {
            read(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for wrong in ["warning", "verbose", "keysweep=loud"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
