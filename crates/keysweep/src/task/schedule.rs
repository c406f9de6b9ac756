//! When scheduled scans are due: one pure rule. `scheduler` carries it out.
//!
//! The k-th run is due at first_scan_at + k·interval. Only the latest due time counts, so that neither a clock that jumps nor a
//! downtime leads to a burst: a run that cannot start within five minutes is skipped.

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
    let latest_check = later(now, MAX_INTERVAL);
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
    if interval.is_zero() {
        let due_at = plan.last_end.map_or(first, |end| first.max(later(end, rest(&plan.instance))));
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
    let due = match latest(now, first, interval) {
        _ if interval.is_zero() => last_end.map_or(first, |end| first.max(later(end, rest(instance)))).max(now),
        None => first,
        Some(latest) => later(latest, interval),
    };
    Some(instance.closed_until(ScanType::Auto, due).unwrap_or(due))
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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{AutoScan, Instance, InstanceStats, Stored};

    const HOUR: i64 = 3_600;

    /// Returns the time this many seconds after midnight, UTC, of a day.
    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + seconds).expect("a time")
    }

    /// Returns a plan first due at `at(0)`, then every `interval` seconds; set an hour before.
    fn plan(interval: i64) -> Plan {
        let instance =
            Instance::new("i".into(), "p".into(), "cache".into(), "redis://cache.example:6379".into(), at(-2 * HOUR));
        let config = AutoScan {
            instance_id: "i".into(),
            enabled: true,
            first_scan_at: Some(at(0)),
            first_scan_text: None,
            interval: Duration::from_secs(interval as u64),
            timeout: Duration::from_secs(600),
            scan_keys_count: 10,
            updated_at: at(-HOUR),
        };
        Plan { config, instance, handled: None, active: false, last_end: None }
    }

    /// Checks every ten seconds from `from` to `to`, as the scheduler does; returns which due times were started when.
    fn play(mut plan: Plan, from: i64, to: i64, active: impl Fn(i64) -> bool) -> Vec<(i64, i64)> {
        let mut started = Vec::new();
        let mut next_check_at = at(from);
        for second in (from..to).step_by(10) {
            plan.active = active(second);
            if next_check_at > at(second) {
                continue;
            }
            match due(at(second), &plan) {
                Due::Nothing { next_check_at: next } => next_check_at = next,
                Due::Skip { due_at, next_check_at: next, .. } => (plan.handled, next_check_at) = (Some(due_at), next),
                Due::Start { due_at, next_check_at: next } => {
                    assert!(!plan.active);
                    started.push(((due_at.as_second() - at(0).as_second()), second));
                    (plan.handled, next_check_at) = (Some(due_at), next);
                }
            }
        }
        started
    }

    fn with_window(interval: i64, window: &str) -> Plan {
        let mut plan = plan(interval);
        plan.instance.window = Some(Stored::read(window));
        plan
    }

    #[test]
    fn the_kth_run_is_due_k_intervals_after_the_first() {
        let started = play(plan(HOUR), -HOUR, 3 * HOUR + 10, |_| false);
        assert_eq!(started, [(0, 0), (HOUR, HOUR), (2 * HOUR, 2 * HOUR), (3 * HOUR, 3 * HOUR)]);
    }

    #[test]
    fn a_run_that_finds_a_task_active_waits_five_minutes_for_it() {
        assert_eq!(play(plan(HOUR), -60, HOUR, |second| second < 290), [(0, 290)]);
        assert_eq!(play(plan(HOUR), -60, HOUR, |second| second < 310), [], "too late; the next one is due");
    }

    #[test]
    fn after_a_downtime_only_the_latest_missed_run_starts_and_only_within_five_minutes() {
        assert_eq!(play(plan(HOUR), 50 * HOUR + 300, 51 * HOUR, |_| false), [(50 * HOUR, 50 * HOUR + 300)]);
        assert_eq!(play(plan(HOUR), 50 * HOUR + 310, 51 * HOUR, |_| false), []);
    }

    #[test]
    fn with_interval_zero_it_runs_again_a_minute_after_the_end() {
        let mut again = plan(0);
        assert_eq!(due(at(-10), &again), Due::Nothing { next_check_at: at(0) });
        assert!(matches!(due(at(0), &again), Due::Start { due_at, .. } if due_at == at(0)));
        again.active = true;
        assert!(matches!(due(at(500), &again), Due::Nothing { .. }));
        (again.active, again.last_end) = (false, Some(at(600)));
        assert_eq!(due(at(610), &again), Due::Nothing { next_check_at: at(660) });
        assert!(matches!(due(at(660), &again), Due::Start { due_at, .. } if due_at == at(660)));
        assert!(matches!(due(at(10 * HOUR), &again), Due::Start { .. }), "after a downtime as well");
    }

    #[test]
    fn a_clock_that_jumps_forward_starts_one_run() {
        let mut jumped = plan(HOUR);
        jumped.handled = Some(at(HOUR));
        assert_eq!(play(jumped.clone(), 10 * HOUR, 11 * HOUR, |_| false), [(10 * HOUR, 10 * HOUR)]);
        assert_eq!(play(jumped, 10 * HOUR + 1_000, 11 * HOUR, |_| false), []);
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_no_run_and_does_not_stop_the_schedule() {
        let mut back = plan(HOUR);
        back.handled = Some(at(5 * HOUR));
        assert_eq!(play(back.clone(), 5 * HOUR - 60, 6 * HOUR + 60, |_| false), [(6 * HOUR, 6 * HOUR)]);
        // It had been a year ahead; the next run is the one after now.
        back.handled = Some(at(365 * 24 * HOUR));
        assert_eq!(play(back, 5 * HOUR + 60, 7 * HOUR, |_| false), [(6 * HOUR, 6 * HOUR)]);
    }

    #[test]
    fn a_run_due_before_the_settings_changed_is_not_caught_up() {
        let mut changed = plan(HOUR);
        changed.config.updated_at = at(2 * HOUR + 100);
        assert_eq!(play(changed, 2 * HOUR + 100, 3 * HOUR + 60, |_| false), [(3 * HOUR, 3 * HOUR)]);
    }

    #[test]
    fn a_disabled_or_paused_instance_does_not_run() {
        let mut disabled = plan(HOUR);
        disabled.config.enabled = false;
        assert_eq!(play(disabled, 0, 3 * HOUR, |_| false), []);
        for interval in [0, HOUR] {
            let mut paused = plan(interval);
            paused.instance.paused = true;
            assert_eq!(play(paused, 0, 3 * HOUR, |_| false), []);
        }
    }

    #[test]
    fn a_server_that_cannot_be_scanned_gets_no_run() {
        for interval in [0, HOUR] {
            let mut unsupported = plan(interval);
            unsupported.instance.stats = Some(InstanceStats::of_other_engine(at(-HOUR)));
            assert_eq!(play(unsupported, 0, 3 * HOUR, |_| false), []);
        }
    }

    #[test]
    fn an_unreadable_window_does_not_hide_that_a_run_was_due() {
        let unreadable = "02:00-05:00 Mars/Olympus";
        assert_eq!(play(with_window(24 * HOUR, unreadable), -60, 24 * HOUR, |_| false), [(0, 0)]);
    }

    #[test]
    fn an_unreadable_window_fails_one_run_a_day() {
        let unreadable = "02:00-05:00 Mars/Olympus";
        let mut again = with_window(0, unreadable);
        again.last_end = Some(at(600));
        let (next, nothing) = (at(600 + 24 * HOUR), |next_check_at| Due::Nothing { next_check_at });
        assert_eq!(due(at(660), &again), nothing(next));
        assert_eq!(next_run(at(660), &again.config, &again.instance, again.last_end), Some(next));
        assert!(matches!(due(next, &again), Due::Start { .. }));
        again.instance.window = None;
        assert!(matches!(due(at(660), &again), Due::Start { .. }), "at once when the window is set again");
        assert_eq!(play(with_window(HOUR, unreadable), -60, 25 * HOUR, |_| false), [(0, 0), (24 * HOUR, 24 * HOUR)]);
    }

    #[test]
    fn no_next_run_is_announced_for_a_server_that_cannot_be_scanned() {
        let Plan { config, mut instance, .. } = plan(HOUR);
        assert_eq!(next_run(at(60), &config, &instance, None), Some(at(HOUR)));
        instance.stats = Some(InstanceStats::of_other_engine(at(-HOUR)));
        assert_eq!(next_run(at(60), &config, &instance, None), None);
    }

    #[test]
    fn a_skipped_run_has_its_cause() {
        let cause = |second: i64, plan: &Plan| match due(at(second), plan) {
            Due::Skip { cause, .. } => cause,
            other => panic!("not skipped: {other:?}"),
        };
        let late = plan(HOUR);
        assert_eq!(cause(310, &late), SkipCause::Late);
        assert_eq!(cause(310, &Plan { active: true, ..late.clone() }), SkipCause::OtherTaskActive);
        let ahead = Plan { handled: Some(at(365 * 24 * HOUR)), ..late.clone() };
        assert_eq!(cause(10, &ahead), SkipCause::ClockSetBack);
        assert_eq!(cause(60, &with_window(24 * HOUR, "23:00-00:01 UTC")), SkipCause::WindowClosed);
        let mut refused = late;
        refused.instance.stats = Some(InstanceStats::of_other_engine(at(-HOUR)));
        assert_eq!(cause(10, &refused), SkipCause::Unsupported);
        refused.instance.paused = true;
        assert_eq!(cause(10, &refused), SkipCause::Paused);
    }

    #[test]
    fn a_run_that_is_due_outside_the_window_starts_when_it_opens() {
        let night = "02:00-05:00 UTC";
        assert_eq!(play(with_window(24 * HOUR, night), -60, 24 * HOUR, |_| false), [(0, 2 * HOUR)]);
        let hourly = play(with_window(HOUR, night), -60, 24 * HOUR, |_| false);
        assert_eq!(hourly, [(2 * HOUR, 2 * HOUR), (3 * HOUR, 3 * HOUR), (4 * HOUR, 4 * HOUR)]);
        // A run that finds a task active when the window opens waits five minutes from there.
        let pending = play(with_window(24 * HOUR, night), -60, 24 * HOUR, |second| second < 2 * HOUR + 200);
        assert_eq!(pending, [(0, 2 * HOUR + 200)]);
    }

    #[test]
    fn with_interval_zero_nothing_starts_outside_the_window() {
        let mut again = with_window(0, "02:00-05:00 UTC");
        assert_eq!(due(at(HOUR), &again), Due::Nothing { next_check_at: at(2 * HOUR) });
        again.last_end = Some(at(5 * HOUR - 30));
        assert_eq!(due(at(5 * HOUR + 30), &again), Due::Nothing { next_check_at: at(26 * HOUR) });
    }

    #[test]
    fn extreme_intervals_and_times_stay_inside_the_calendar() {
        for interval in [0, 1, i64::MAX / 2] {
            let mut plan = plan(interval);
            plan.config.first_scan_at = Some(Timestamp::MAX);
            for now in [Timestamp::MIN, at(0), Timestamp::MAX] {
                due(now, &plan);
            }
            plan.config.first_scan_at = Some(Timestamp::MIN);
            due(Timestamp::MAX, &plan);
        }
    }
}
