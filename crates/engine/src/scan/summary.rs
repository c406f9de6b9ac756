//! The report of a whole sweep, from the states of its shards.

use std::{ops::Add, time::Duration};

use super::shard_map::ShardMap;
use crate::{
    failure::{Failure, FailureKind},
    link::saturating_sum,
    options::Options,
    record::{ProbeSeconds, Report, ShardReport, Throttled, Totals, nanoseconds, outcome, quantiles},
    target::Target,
};

/// Returns the report. `failure`: the failure of the sweep as a whole; without one the shards' decide.
pub(super) fn report(
    target: &Target,
    options: &Options,
    shard_map: &ShardMap<'_>,
    failure: Option<Failure>,
    warnings: Vec<String>,
    elapsed: Duration,
) -> Report {
    let mut slices = nanoseconds();
    let (mut shards, mut failures) = (Vec::new(), Vec::new());
    for shard in shard_map.shards() {
        let state = shard.state();
        state.add_slices_to(&mut slices);
        failures.extend(state.failure.clone());
        shards.push(state.report());
    }
    let (outcome, reason, message) = outcome(failure.or_else(|| worst(&failures, shards.len())).as_ref());
    let totals = || shards.iter().map(|shard| &shard.totals);
    let used = before_and_after(&shards, |totals| (totals.used_memory_before, totals.used_memory_after));
    let rss = before_and_after(&shards, |totals| (totals.rss_before, totals.rss_after));
    Report {
        target: target.to_string(),
        outcome,
        reason,
        message,
        pace: options.pace.clone(),
        totals: Totals {
            exact: shard_map.is_exact(),
            keys_scanned: saturating_sum(totals().map(|shard| shard.keys_scanned)),
            keys_reclaimed: saturating_sum(totals().map(|shard| shard.keys_reclaimed)),
            keys_repeated: totals().map(|shard| shard.keys_repeated).sum(),
            used_memory_before: used.0,
            used_memory_after: used.1,
            rss_before: rss.0,
            rss_after: rss.1,
            remaining: totals().map(|shard| shard.remaining).reduce(|sum, next| Some(sum? + next?)).flatten(),
            elapsed_seconds: elapsed.as_secs_f64(),
            server_seconds: totals().fold(0.0, |sum, shard| sum + shard.server_seconds),
            server_cpu_seconds: totals().filter_map(|shard| shard.server_cpu_seconds).reduce(f64::add),
            cpu_share: totals().map(|shard| shard.cpu_share).fold(0.0, f64::max),
            slices: slices.len(),
            slice_seconds: quantiles(&slices),
            probe_seconds: worst_probe(&shards),
            backoffs: totals().map(|shard| shard.backoffs).sum(),
            throttled: totals().map(|shard| shard.throttled).fold(Throttled::default(), Throttled::add),
        },
        warnings,
        shards,
    }
}

/// Returns the failure that stands for all: an interruption before a timeout, a timeout before any other.
fn worst(failures: &[Failure], shards: usize) -> Option<Failure> {
    use FailureKind::{Interrupted, Timeout};
    let first =
        [Interrupted, Timeout].into_iter().find_map(|kind| failures.iter().find(|failure| failure.kind == kind));
    let failure = first.or_else(|| failures.first())?.clone();
    let count = failures.len();
    Some(match failure.kind {
        Interrupted | Timeout => failure,
        kind if shards > 1 => {
            Failure::new(kind, format!("{count} of {shards} primaries could not be scanned to the end: {failure}"))
        }
        _ => failure,
    })
}

/// Returns the sums of a size before and after, over the shards that have both: a difference needs the same shards.
fn before_and_after(
    shards: &[ShardReport],
    sizes: fn(&Totals) -> (Option<u64>, Option<u64>),
) -> (Option<u64>, Option<u64>) {
    let sizes = || shards.iter().map(|shard| sizes(&shard.totals));
    let both = sizes().filter_map(|(before, after)| before.zip(after));
    match both.reduce(|sum, next| (sum.0 + next.0, sum.1 + next.1)) {
        Some((before, after)) => (Some(before), Some(after)),
        None => (sizes().filter_map(|(before, _)| before).reduce(u64::add), None),
    }
}

/// Returns the probe of the shard with the highest latency.
fn worst_probe(shards: &[ShardReport]) -> ProbeSeconds {
    let probes = shards.iter().map(|shard| shard.totals.probe_seconds);
    let during = |probe: &ProbeSeconds| probe.during_p90.unwrap_or(0.0);
    probes.max_by(|left, right| during(left).total_cmp(&during(right))).unwrap_or_default()
}
