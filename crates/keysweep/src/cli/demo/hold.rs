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

/// Time between two PINGs of the client whose latency is shown.
const PING_INTERVAL: Duration = Duration::from_millis(10);
/// Stale share at which a bar is full, 0–1, and its length.
const FULL_SHARE: f64 = 0.25;
const BAR_LENGTH: usize = 20;

/// Sets the target through the API, and prints the stale share until the stop is raised. Calls `held` once the share is below it.
///
/// # Errors
/// The API or the server did not answer.
pub fn run(
    agent: &ureq::Agent,
    path: &str,
    link: &mut Link,
    log: &ExpiryLog,
    stop: &Stop,
    held: impl FnOnce(),
) -> anyhow::Result<()> {
    let before = p90(link, LINE_INTERVAL, stop)?;
    // The demo's own server: no consent of an operator is needed. On a busy machine cycles take several times as long, and with the
    // usual limits the demo would back off for ten minutes.
    let policy = json!({
        "level": "hold", "below": TARGET, "max_effort": 10, "max_hz": 50, "max_added_stall_ms": 10, "max_added_cpu": 0.2,
        "interval_seconds": 2, "settle_floor_seconds": 5,
    });
    term::line(&format!(
        "\nkeysweep holds the stale share below {:.0} %, with the server's own expiry cycle; clients' p90 was {before}:",
        TARGET * 100.0
    ));
    agent.put(path).send_json(&policy).context("the target cannot be set")?;
    let (mut held, mut status) = (Some(held), None::<term::Status>);
    while !stop.is_raised() {
        let latency = p90(link, LINE_INTERVAL, stop)?;
        if stop.is_raised() {
            break;
        }
        let hold: Value = agent.get(path).call()?.body_mut().read_json()?;
        let server = &hold["servers"][0];
        let share = Sample::take(link, log)?.stale_share();
        let state = server["state"].as_str().unwrap_or("waiting for a worker");
        let effort =
            server["setting"]["effort"].as_u64().map_or_else(String::new, |effort| format!(" at effort {effort}"));
        let without =
            server["without"].as_f64().map_or_else(String::new, |share| format!(", {:.1} % without", share * 100.0));
        let text = format!("{} {:.1} % stale{effort}{without} ({state}); p90 {latency}", bar(share), share * 100.0);
        match &status {
            None => term::line(&text),
            Some(status) => status.show(&text),
        }
        if share < TARGET
            && let Some(held) = held.take()
        {
            held();
            // The text above stays the last one on a terminal.
            status = Some(term::Status::new());
        }
    }
    Ok(())
}

/// Returns the round trip that nine of ten PINGs took at most, over `time`, as text.
fn p90(link: &mut Link, time: Duration, stop: &Stop) -> anyhow::Result<String> {
    let (until, mut trips) = (Instant::now() + time, Vec::new());
    while Instant::now() < until && !stop.is_raised() {
        let sent = Instant::now();
        link.call(&[b"PING"])?;
        trips.push(sent.elapsed());
        stop.wait_until(sent + PING_INTERVAL);
    }
    trips.sort_unstable();
    let p90 = trips.get(trips.len() * 9 / 10);
    Ok(p90.map_or_else(|| "unknown".to_owned(), |trip| format!("{:.2} ms", trip.as_secs_f64() * 1e3)))
}

/// Returns a bar of a stale share.
pub fn bar(share: f64) -> String {
    let filled = ((share / FULL_SHARE * BAR_LENGTH as f64).round() as usize).min(BAR_LENGTH);
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR_LENGTH - filled))
}
