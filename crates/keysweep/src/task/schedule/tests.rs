//! The schedule by the clock, without a store.

use std::time::Duration;

use super::*;
use crate::model::{AutoScan, Gathering, Instance, InstanceStats, Stored, TargetShare};

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
        target: None,
        gathering: None,
        updated_at: at(-HOUR),
    };
    Plan { config, instance, handled: None, active: false, last_end: None, last_scan: None }
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
fn the_announced_runs_are_those_that_start() {
    let announced = |plan: &Plan| {
        let runs = next_runs(at(-60), &plan.config, &plan.instance, None, 3);
        runs.into_iter().map(|run| run.as_second() - at(0).as_second()).collect::<Vec<_>>()
    };
    for (plan, expected) in [
        (plan(HOUR), [0, HOUR, 2 * HOUR]),
        (with_window(24 * HOUR, "02:00-04:00 UTC"), [2, 26, 50].map(|hour| hour * HOUR)),
        (with_window(HOUR, "02:00-04:00 UTC"), [2 * HOUR, 3 * HOUR, 26 * HOUR]),
    ] {
        assert_eq!(announced(&plan), expected);
        let started = play(plan, -60, 60 * HOUR, |_| false);
        assert_eq!(started.iter().map(|(_, start)| *start).take(3).collect::<Vec<_>>(), expected);
    }
    assert_eq!(announced(&plan(0)), [0], "the next one depends on when this one ends");
    let mut paused = plan(HOUR);
    paused.instance.paused = true;
    assert_eq!(announced(&paused), Vec::<i64>::new());
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

/// Returns a plan with a target of 5 %, whose last scan of 10 seconds began at `at(start)`. `every`: the seconds between scans
/// that hold the target.
fn adaptive(start: i64, every: f64) -> Plan {
    let target = TargetShare::new(0.05).expect("in range");
    let gathering = Gathering {
        task_id: "t".into(),
        started_at: at(start),
        finished_at: at(start + 10),
        scan_seconds: 10.0,
        keys: 1_000,
        share: 0.1,
        expiry_rate: None,
        growth: Some(0.1 / every),
        target,
    };
    let mut plan = plan(24 * HOUR);
    (plan.config.target, plan.config.gathering) = (Some(target), Some(gathering));
    plan.last_end = Some(at(start + 10));
    plan
}

#[test]
fn an_adaptive_run_is_due_an_interval_after_the_last_scan_began() {
    let start = |due_at: i64, plan: &Plan| match due(at(due_at), plan) {
        Due::Start { due_at, .. } => due_at.duration_since(at(0)).as_secs(),
        other => panic!("not started: {other:?}"),
    };
    let hourly = || adaptive(0, 3_600.0);
    for (name, plan, expected) in [
        ("T holds the target", hourly(), 3_600),
        ("not more than a tenth of the time is scanned", adaptive(0, 50.0), 100),
        ("once a day at least", adaptive(0, 1e9), 24 * HOUR),
        ("a scan takes more than T/4", adaptive(0, 30.0), 100),
        ("a failed run is repeated soon", Plan { last_end: Some(at(4_000)), ..hourly() }, 4_300),
        ("but not at once", Plan { last_end: Some(at(105)), ..adaptive(0, 50.0) }, 205),
        (
            "not before the first time",
            {
                let mut plan = hourly();
                plan.config.first_scan_at = Some(at(5_000));
                plan
            },
            5_000,
        ),
    ] {
        let next_check_at = at(expected - 1 + 1);
        assert_eq!(due(at(expected - 1), &plan), Due::Nothing { next_check_at }, "{name}");
        assert_eq!(start(expected, &plan), expected, "{name}");
        assert_eq!(start(expected + 7_200, &plan), expected, "{name}: after a downtime as well");
        assert_eq!(next_run(at(20), &plan.config, &plan.instance, plan.last_end), Some(at(expected)), "{name}");
    }
    let ended = Plan { active: true, ..hourly() };
    assert!(matches!(due(at(4_000), &ended), Due::Nothing { .. }), "one task at a time");
}

#[test]
fn an_adaptive_auto_scan_without_a_measurement_starts_at_its_first_time_and_repeats_what_failed() {
    let mut new = adaptive(0, 3_600.0);
    (new.config.gathering, new.last_end) = (None, None);
    assert_eq!(due(at(-10), &new), Due::Nothing { next_check_at: at(0) });
    assert!(matches!(due(at(0), &new), Due::Start { due_at, .. } if due_at == at(0)));
    new.last_end = Some(at(100));
    assert_eq!(due(at(390), &new), Due::Nothing { next_check_at: at(400) });
    assert!(matches!(due(at(400), &new), Due::Start { due_at, .. } if due_at == at(400)));
}

#[test]
fn an_adaptive_run_waits_for_the_window_and_is_checked_every_minute() {
    let mut plan = adaptive(2 * HOUR, 3_600.0);
    plan.instance.window = Some(Stored::read("02:00-02:30 UTC"));
    assert_eq!(due(at(3 * HOUR), &plan), Due::Nothing { next_check_at: at(3 * HOUR + 60) });
    assert!(matches!(due(at(26 * HOUR), &plan), Due::Start { .. }));
    plan.instance.paused = true;
    assert!(matches!(due(at(26 * HOUR), &plan), Due::Nothing { .. }));
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
