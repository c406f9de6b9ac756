//! When scheduled scans are due: one pure rule. `scheduler` carries it out.
//!
//! The k-th run is due at first_scan_at + k·interval. Only the latest due time counts, so that neither a clock that jumps nor a
//! downtime leads to a burst: a run that cannot start within five minutes is skipped. With interval 0 and with an adaptive
//! interval each run is due some time after the one before, and starts as soon as it can.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{AutoScan, Instance, ScanType},
    store::Plan,
};

/// How late a run may start, counted from its due time or, where that is outside the window, from the window's opening.
const MAX_DELAY: SignedDuration = SignedDuration::from_secs(300);
/// With interval 0, the time from the end of one run to the next.
const REST: SignedDuration = SignedDuration::from_secs(60);
/// Time between two checks whether the task that a pending run waits for has finished.
const PENDING_INTERVAL: SignedDuration = SignedDuration::from_millis(500);
/// Longest time from the end of a failed run to the next one of an adaptive auto-scan.
const MAX_RETRY: SignedDuration = SignedDuration::from_secs(300);
/// Longest time between two checks of an adaptive auto-scan: scans that others start measure as well.
const MAX_ADAPTIVE_CHECK: SignedDuration = SignedDuration::from_secs(60);
/// Longest time between two checks of a plan: a clock may have been set.
const MAX_INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// What is due of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A run starts now.
    Start {
        /// When it was due.
        due_at: Timestamp,
        /// When to check the plan next.
        next_check_at: Timestamp,
    },
    /// A run is skipped.
    Skip {
        /// When it was due.
        due_at: Timestamp,
        /// Why it does not start.
        cause: SkipCause,
        /// When to check the plan next.
        next_check_at: Timestamp,
    },
    /// Nothing, for now.
    Nothing {
        /// When to check the plan next.
        next_check_at: Timestamp,
    },
}

/// Why a run is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipCause {
    /// The clock was ahead, and runs up to a later time are handled already.
    ClockSetBack,
    /// The instance is paused.
    Paused,
    /// The server cannot be scanned.
    Unsupported,
    /// Another task of the instance was active for too long.
    OtherTaskActive,
    /// No process checked the schedule in time.
    Late,
    /// The maintenance window has closed since the run was due.
    WindowClosed,
}

impl fmt::Display for SkipCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClockSetBack => "the clock was set back",
            Self::Paused => "the instance is paused",
            Self::Unsupported => "the server cannot be scanned",
            Self::OtherTaskActive => "another task of the instance was active for five minutes",
            Self::Late => "the schedule was not checked within five minutes",
            Self::WindowClosed => "the maintenance window has closed",
        })
    }
}

/// Returns what is due of a plan.
///
/// A window that cannot be read delays nothing: the run starts, and its worker ends the task with the field as the reason, so
/// that a record says why the instance is not scanned. One such record a day is enough: more would push the records of real
/// scans out of the history.
pub fn due(now: Timestamp, plan: &Plan) -> Due {
    let latest_check = later(now, if plan.config.target.is_some() { MAX_ADAPTIVE_CHECK } else { MAX_INTERVAL });
    let nothing_until = |next_check_at: Timestamp| Due::Nothing { next_check_at: next_check_at.min(latest_check) };
    let (true, Some(first)) = (plan.config.enabled, plan.config.first_scan_at) else {
        return nothing_until(latest_check);
    };
    let window = plan.instance.window.as_ref().and_then(|window| window.value().ok());
    let opening = |due_at: Timestamp| window.map_or(due_at, |window| window.next_open(due_at));
    let Ok(interval) = SignedDuration::try_from(plan.config.interval) else { return nothing_until(latest_check) };
    let refusal = match () {
        () if plan.instance.paused => Some(SkipCause::Paused),
        () if plan.instance.unsupported().is_some() => Some(SkipCause::Unsupported),
        () => None,
    };
    if let Some(due_at) = due_after_last(first, &plan.config, &plan.instance, plan.last_end) {
        let start_at = opening(due_at.max(now));
        return match () {
            () if plan.active => nothing_until(later(now, PENDING_INTERVAL)),
            () if now < start_at => nothing_until(start_at),
            () if refusal.is_some() => nothing_until(later(now, REST)),
            () => Due::Start { due_at, next_check_at: later(now, PENDING_INTERVAL) },
        };
    }
    let Some(due_at) = latest(now, first, interval) else { return nothing_until(first) };
    let next = later(due_at, interval);
    let next_check_at = next.min(latest_check);
    let handled = match plan.handled {
        // Further ahead than any run can be: the clock was wrong, and is right again.
        Some(handled) if handled > later(now, interval) => {
            return Due::Skip { due_at, cause: SkipCause::ClockSetBack, next_check_at };
        }
        handled => handled,
    };
    let is_new = handled.is_none_or(|handled| due_at > handled) && due_at >= plan.config.updated_at;
    let fails_again = plan.instance.blocking_field(ScanType::Auto).is_some()
        && handled.is_some_and(|handled| due_at < later(handled, MAX_INTERVAL));
    let start_at = opening(due_at);
    let skip = |cause| Due::Skip { due_at, cause, next_check_at };
    match refusal {
        _ if !is_new || fails_again => nothing_until(next),
        _ if now < start_at => nothing_until(start_at.min(next)),
        Some(cause) => skip(cause),
        None if now > later(start_at, MAX_DELAY) && plan.active => skip(SkipCause::OtherTaskActive),
        None if now > later(start_at, MAX_DELAY) => skip(SkipCause::Late),
        None if opening(now) != now => skip(SkipCause::WindowClosed),
        None if plan.active => nothing_until(later(now, PENDING_INTERVAL)),
        None => Due::Start { due_at, next_check_at },
    }
}

/// Returns when the next scheduled scan of an instance starts, as far as that is known now: no other task of it may be active
/// then. `None`: never, as for a paused instance and a server that cannot be scanned, or when its active task has finished.
/// `last_end`: when its last task finished.
pub fn next_run(
    now: Timestamp,
    config: &AutoScan,
    instance: &Instance,
    last_end: Option<Timestamp>,
) -> Option<Timestamp> {
    let first =
        config.first_scan_at.filter(|_| config.enabled && !instance.paused && instance.unsupported().is_none())?;
    let interval = SignedDuration::try_from(config.interval).ok()?;
    let due = match (due_after_last(first, config, instance, last_end), latest(now, first, interval)) {
        (Some(due_at), _) => due_at.max(now),
        (None, None) => first,
        (None, Some(latest)) => later(latest, interval),
    };
    Some(instance.closed_until(ScanType::Auto, due).unwrap_or(due))
}

/// Returns when the next scheduled scans of an instance start, at most `count`, by the same rule as [`next_run`]; only the next
/// one where each is due some time after the one before.
pub fn next_runs(
    now: Timestamp,
    config: &AutoScan,
    instance: &Instance,
    last_end: Option<Timestamp>,
    count: usize,
) -> Vec<Timestamp> {
    let is_fixed = config.adaptive().is_none() && !config.interval.is_zero();
    let next = |from: Timestamp| next_run(from, config, instance, last_end);
    let after =
        |run: &Timestamp| next(later(*run, SignedDuration::from_micros(1))).filter(|next| is_fixed && next > run);
    std::iter::successors(next(now), after).take(count).collect()
}

/// Returns when the next run is due where that depends on the one before; `None`: runs are due at fixed times.
fn due_after_last(
    first: Timestamp,
    config: &AutoScan,
    instance: &Instance,
    last_end: Option<Timestamp>,
) -> Option<Timestamp> {
    let rested = |time: SignedDuration| last_end.map(|end| later(end, rest(instance).max(time)));
    let due = match config.adaptive() {
        Some(adaptive) => {
            let interval = SignedDuration::try_from(adaptive.interval).unwrap_or(MAX_INTERVAL);
            let scanned = config.gathering.as_ref();
            let has_failed = scanned.is_none_or(|scan| last_end.is_some_and(|end| end > scan.finished_at));
            let next = scanned.map(|scan| later(scan.started_at, interval));
            next.max(rested(interval.min(MAX_RETRY)).filter(|_| has_failed))
        }
        None if config.interval.is_zero() => rested(SignedDuration::ZERO),
        None => return None,
    };
    Some(due.map_or(first, |due| first.max(due)))
}

/// Returns the time from the end of one run to the next, with interval 0: longer where each run would fail for a stored field.
fn rest(instance: &Instance) -> SignedDuration {
    if instance.blocking_field(ScanType::Auto).is_some() { MAX_INTERVAL } else { REST }
}

/// Returns the latest due time that is not after now; `None`: the first is still to come.
fn latest(now: Timestamp, first: Timestamp, interval: SignedDuration) -> Option<Timestamp> {
    let since = now.duration_since(first);
    if since.is_negative() {
        return None;
    }
    let into = since.as_micros() % interval.as_micros().max(1);
    Some(later(now, SignedDuration::from_micros(-i64::try_from(into).ok()?)))
}

/// Adds, up to the end of the calendar.
fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
