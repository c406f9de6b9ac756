//! The last act of the demo: the stale share is held below a target while the writer goes on, beside what it would be without.

use std::time::{Duration, Instant};

use anyhow::Context;
use keysweep_engine::{Stop, link::Link};
use serde_json::{Value, json};

use super::loader::{ExpiryLog, Sample};
use crate::cli::term;

/// Share of all keys below which the demo holds its stale keys.
const TARGET: f64 = 0.08;
/// Time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Sets the target through the API, and prints the stale share until the stop is raised.
pub fn run(agent: &ureq::Agent, path: &str, link: &mut Link, log: &ExpiryLog, stop: &Stop) -> anyhow::Result<()> {
    // The demo's own server: no consent of an operator is needed.
    let policy = json!({
        "level": "hold", "below": TARGET, "max_effort": 10, "max_hz": 50, "interval_seconds": 2, "settle_floor_seconds": 5,
    });
    term::line(&format!(
        "\nNow keysweep holds the stale share below {:.0} %, with the server's own expiry cycle:",
        TARGET * 100.0
    ));
    agent.put(path).send_json(&policy).context("the target cannot be set")?;
    while !stop.is_raised() {
        stop.wait_until(Instant::now() + LINE_INTERVAL);
        if stop.is_raised() {
            break;
        }
        let hold: Value = agent.get(path).call()?.body_mut().read_json()?;
        let server = &hold["servers"][0];
        let sample = Sample::take(link, log)?;
        let state = server["state"].as_str().unwrap_or("waiting for a worker");
        let effort =
            server["setting"]["effort"].as_u64().map_or_else(String::new, |effort| format!(" at effort {effort}"));
        let without =
            server["without"].as_f64().map_or_else(String::new, |share| format!(", {:.1} % without", share * 100.0));
        term::line(&format!("{:.1} % stale{effort}{without} ({state})", sample.stale_share() * 100.0));
    }
    Ok(())
}
