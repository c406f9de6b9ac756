//! How fast slices get along: what they cost before that is measured, how many keys each asks for, how many cursors a path has
//! work for, and what a scan takes beside busy clients. The pacing begins with these figures, and the pre-flight checks name what
//! follows from them. Pure.

use std::time::Duration;

use crate::{limits::Limits, link::Info};

/// The lowest COUNT: SCAN's default.
pub(crate) const MIN_COUNT: u32 = 10;
/// The highest COUNT; more would only fill buffers.
pub(crate) const MAX_COUNT: u32 = 100_000;
/// Part of `max_slice` that a slice aims at, so that the usual variance stays below it.
pub(crate) const AIM: f64 = 0.85;
/// What a slice costs besides SCAN until that is calibrated, seconds: 11 on a core that is awake, 20–40 on one that is not.
pub(crate) const OVERHEAD: f64 = 30e-6;
/// Round trip from which on a server is at a distance: the PINGs vary there with the network.
pub(crate) const DISTANT: Duration = Duration::from_millis(1);
/// Several cursors pay where the round trip is longer than this many slices.
const SLICES_PER_ROUND_TRIP: f64 = 3.0;

/// The lowest CPU limit that a sweep backs off to, 0–1.
pub(crate) const MIN_CPU: f64 = 0.01;
/// Load of the main thread, the sweep's part included, beyond which the server is crowded and replies queue, 0–1.
pub(crate) const CROWDED: f64 = 0.8;
/// Share of the main thread up to which clients do not keep a server busy, 0–1: what they send during a slice is served right
/// after it, and so they wait no longer beside a scan that uses the rest.
pub(crate) const QUIET: f64 = 0.25;
/// Part of the full CPU limit that is kept on a crowded server, and the most of its main thread, 0–1. With less a sweep might not
/// finish.
const KEPT_WHEN_CROWDED: f64 = 0.1;
pub(crate) const MOST_WHEN_CROWDED: f64 = 0.025;

/// Returns the seconds of SCAN for each unit of COUNT that a server of this version should need at most: twice of what was
/// measured on a slow machine.
pub(crate) fn expected_cost(info: &Info) -> f64 {
    match () {
        () if info.is_since((9, 0), None) => 0.4e-6,
        () if info.is_since((8, 0), Some((7, 2))) => 0.8e-6,
        () => 1.4e-6,
    }
}

/// Returns COUNT for a server where a slice takes `fixed` seconds, and `per_unit` seconds for each unit of COUNT.
pub(crate) fn first_count(limits: Limits, fixed: f64, per_unit: f64) -> u32 {
    let aim = (limits.max_slice.as_secs_f64() * AIM - fixed).max(0.0) / per_unit.max(1e-9);
    (aim as u32).clamp(MIN_COUNT, most_for_the_cap(limits).max(MIN_COUNT))
}

/// Returns the highest COUNT under a cap: a twentieth of a second's keys, so that the rate is even.
pub(crate) fn most_for_the_cap(limits: Limits) -> u32 {
    let caps = [limits.keys_per_second, limits.reclaims_per_second];
    caps.into_iter().flatten().min().map_or(MAX_COUNT, |rate| (rate / 20).min(u64::from(MAX_COUNT)) as u32)
}

/// Returns how many cursors can use these limits together over a path with this round trip. `limits`: those over the path, see
/// [`Limits::over`].
pub(crate) fn useful_cursors(limits: Limits, round_trip: Duration) -> usize {
    let slice = limits.max_slice.as_secs_f64().max(1e-6);
    let round_trip = round_trip.as_secs_f64();
    if round_trip <= SLICES_PER_ROUND_TRIP * slice {
        return 1;
    }
    (limits.max_cpu * (round_trip + slice) / slice).ceil().clamp(1.0, f64::from(Limits::CURSORS)) as usize
}

/// Returns the share of the main thread that a guarded sweep with this CPU limit begins with beside clients that use so much of
/// it, 0–1.
pub(crate) fn share_beside(full: f64, clients: f64) -> f64 {
    match clients <= QUIET {
        true => full,
        false => (CROWDED - clients).clamp(least_when_crowded(full), full),
    }
}

/// Returns the share that a sweep with this CPU limit keeps on a crowded server, 0–1.
pub(crate) fn least_when_crowded(full: f64) -> f64 {
    (full * KEPT_WHEN_CROWDED).clamp(MIN_CPU.min(full), MOST_WHEN_CROWDED)
}
