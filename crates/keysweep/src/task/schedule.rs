//! When an instance is swept by itself: one pure rule, and what carries it out.
//!
//! The k-th run is due at first_scan_at + k·interval. Only the latest due time counts, so that no clock that jumps and no
//! time that the service was down lead to a burst: a run that could not start within five minutes is let go.

use jiff::{SignedDuration, Timestamp};

use super::Tasks;
use crate::{
    fleet::new_id,
    model::{AutoScan, Instance, NewTask, ScanType, Window, hosts},
    store::{Plan, StoreError},
};

/// How late a run may start, counted from its due time or, where that lies outside the window, from its opening.
const LATE: SignedDuration = SignedDuration::from_secs(300);
/// With interval 0, from the end of one run to the next.
const REST: SignedDuration = SignedDuration::from_secs(60);
/// How often it is looked whether the task has ended that a pending run waits for.
const LOOK: SignedDuration = SignedDuration::from_millis(500);
/// Looked at again by then, whatever was expected: a clock may have been set.
const FAR: SignedDuration = SignedDuration::from_hours(24);
/// `scan_keys_count` counts keys every 5 ms.
const PER_SECOND: u64 = 200;
/// Plans that are read at a time.
const BATCH: u32 = 500;

/// What is to be done about a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The run that was due then starts now.
    Start {
        /// When it was due.
        due: Timestamp,
        /// When to look again.
        look_at: Timestamp,
    },
    /// The run that was due then does not take place.
    LetGo {
        /// When it was due.
        due: Timestamp,
        /// When to look again.
        look_at: Timestamp,
    },
    /// Nothing, for now.
    Wait {
        /// When to look again.
        look_at: Timestamp,
    },
}

/// The rule.
pub fn step(now: Timestamp, plan: &Plan) -> Step {
    let far = later(now, FAR);
    let wait = |look_at: Timestamp| Step::Wait { look_at: look_at.min(far) };
    let (true, Some(first)) = (plan.config.enabled, plan.config.first_scan_at) else { return wait(far) };
    // A window that cannot be read was checked when it was set, so this is another version's: it binds nobody.
    let window: Option<Window> = plan.instance.window.as_deref().and_then(|window| window.parse().ok());
    let opening = |due: Timestamp| window.as_ref().map_or(due, |window| window.next_open(due));
    let Ok(interval) = SignedDuration::try_from(plan.config.interval) else { return wait(far) };
    if interval.is_zero() {
        let due = plan.last_end.map_or(first, |end| first.max(later(end, REST)));
        let start_at = opening(due.max(now));
        return match () {
            () if plan.active => wait(later(now, LOOK)),
            () if now < start_at => wait(start_at),
            () if plan.instance.paused => wait(later(now, REST)),
            () => Step::Start { due, look_at: later(now, LOOK) },
        };
    }
    let Some(latest) = latest(now, first, interval) else { return wait(first) };
    let next = later(latest, interval);
    let handled = match plan.handled {
        // Further ahead than any run can be: the clock was wrong, and is right again.
        Some(handled) if handled > later(now, interval) => return Step::LetGo { due: latest, look_at: next.min(far) },
        handled => handled,
    };
    let is_new = handled.is_none_or(|handled| latest > handled) && latest >= plan.config.updated_at;
    let start_at = opening(latest);
    match () {
        () if !is_new => wait(next),
        () if now < start_at => wait(start_at.min(next)),
        () if now > later(start_at, LATE) || plan.instance.paused || opening(now) != now => {
            Step::LetGo { due: latest, look_at: next.min(far) }
        }
        () if plan.active => wait(later(now, LOOK)),
        () => Step::Start { due: latest, look_at: next.min(far) },
    }
}

/// When an instance is swept by itself next, as far as it can be told now: no other task of it may be active then. `None`: not
/// at all, or when its active task has ended. `last_end`: when its last task ended.
pub fn next_run(
    now: Timestamp,
    config: &AutoScan,
    instance: &Instance,
    last_end: Option<Timestamp>,
) -> Option<Timestamp> {
    let first = config.first_scan_at.filter(|_| config.enabled && !instance.paused)?;
    let interval = SignedDuration::try_from(config.interval).ok()?;
    let due = match latest(now, first, interval) {
        _ if interval.is_zero() => last_end.map_or(first, |end| first.max(later(end, REST))).max(now),
        None => first,
        Some(latest) => later(latest, interval),
    };
    Some(instance.closed_until(ScanType::Auto, due).unwrap_or(due))
}

/// The latest due time that is not after now; `None`: the first is still to come.
fn latest(now: Timestamp, first: Timestamp, interval: SignedDuration) -> Option<Timestamp> {
    let since = now.duration_since(first);
    if since.is_negative() {
        return None;
    }
    let into = since.as_micros() % interval.as_micros().max(1);
    Some(later(now, SignedDuration::from_micros(-i64::try_from(into).ok()?)))
}

/// Saturating: the end of the calendar is later than anything.
fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

impl Tasks {
    /// Looks at every plan whose time has come. Returns how many runs were started.
    pub async fn keep_schedule(&self) -> Result<usize, StoreError> {
        let mut started = 0;
        loop {
            let due = self.store.due_plans(BATCH).await?;
            for plan in &due.plans {
                started += usize::from(self.follow(due.now, plan).await?);
            }
            if due.plans.len() < BATCH as usize {
                return Ok(started);
            }
        }
    }

    async fn follow(&self, instant: Timestamp, plan: &Plan) -> Result<bool, StoreError> {
        match step(instant, plan) {
            Step::Wait { look_at } => self.store.put_off(plan, plan.handled, look_at).await?,
            Step::LetGo { due, look_at } => {
                tracing::info!(instance_id = plan.instance.id, %due, "a scheduled run could not start in time and is left out");
                self.store.put_off(plan, Some(due), look_at).await?;
            }
            Step::Start { due, look_at } => {
                let new = NewTask {
                    id: new_id(),
                    project_id: plan.instance.project_id.clone(),
                    instance_id: plan.instance.id.clone(),
                    scan_type: ScanType::Auto,
                    requested_by: None,
                    timeout: plan.config.timeout,
                    keys_per_second: Some(u64::from(plan.config.scan_keys_count) * PER_SECOND),
                    due_at: Some(due),
                    hosts: hosts(&plan.instance),
                    records: self.records,
                };
                let span = self.begin_creation(&new);
                // Another replica may have been faster, or a manual task, or an operator who has changed something.
                if let Some(task) = self.store.start_run(plan, &new, look_at).await? {
                    tracing::info!(task_id = task.id, instance_id = task.instance_id, %due, "scheduled run begins");
                    self.hint.notify_one();
                    return Ok(true);
                }
                span.forget();
            }
        }
        Ok(false)
    }
}

/// The most keys a second that a schedule may ask for stays far from this type's end.
const _: () = assert!(u32::MAX as u64 * PER_SECOND < i64::MAX as u64);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{AutoScan, Instance};

    const HOUR: i64 = 3_600;

    /// So many seconds after midnight, UTC, of some day.
    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + seconds).expect("a time")
    }

    /// First due at `at(0)`, then every `interval` seconds; set an hour before.
    fn plan(interval: i64) -> Plan {
        let instance =
            Instance::new("i".into(), "p".into(), "cache".into(), "redis://cache.example:6379".into(), at(-2 * HOUR));
        let config = AutoScan {
            instance_id: "i".into(),
            enabled: true,
            first_scan_at: Some(at(0)),
            interval: Duration::from_secs(interval as u64),
            timeout: Duration::from_secs(600),
            scan_keys_count: 10,
            updated_at: at(-HOUR),
        };
        Plan { config, instance, handled: None, active: false, last_end: None }
    }

    /// Looks once every ten seconds from `from` to `to`, as the keeper does; returns which due times were started when.
    fn play(mut plan: Plan, from: i64, to: i64, active: impl Fn(i64) -> bool) -> Vec<(i64, i64)> {
        let mut started = Vec::new();
        let mut look_at = at(from);
        for second in (from..to).step_by(10) {
            plan.active = active(second);
            if look_at > at(second) {
                continue;
            }
            match step(at(second), &plan) {
                Step::Wait { look_at: next } => look_at = next,
                Step::LetGo { due, look_at: next } => (plan.handled, look_at) = (Some(due), next),
                Step::Start { due, look_at: next } => {
                    assert!(!plan.active);
                    started.push(((due.as_second() - at(0).as_second()), second));
                    (plan.handled, look_at) = (Some(due), next);
                }
            }
        }
        started
    }

    fn with_window(interval: i64, window: &str) -> Plan {
        let mut plan = plan(interval);
        plan.instance.window = Some(window.into());
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
    fn however_many_were_missed_one_run_follows_a_downtime_and_only_if_it_is_fresh() {
        assert_eq!(play(plan(HOUR), 50 * HOUR + 300, 51 * HOUR, |_| false), [(50 * HOUR, 50 * HOUR + 300)]);
        assert_eq!(play(plan(HOUR), 50 * HOUR + 310, 51 * HOUR, |_| false), []);
    }

    #[test]
    fn with_interval_zero_it_runs_again_a_minute_after_the_end() {
        let mut again = plan(0);
        assert_eq!(step(at(-10), &again), Step::Wait { look_at: at(0) });
        assert!(matches!(step(at(0), &again), Step::Start { due, .. } if due == at(0)));
        again.active = true;
        assert!(matches!(step(at(500), &again), Step::Wait { .. }));
        (again.active, again.last_end) = (false, Some(at(600)));
        assert_eq!(step(at(610), &again), Step::Wait { look_at: at(660) });
        assert!(matches!(step(at(660), &again), Step::Start { due, .. } if due == at(660)));
        assert!(matches!(step(at(10 * HOUR), &again), Step::Start { .. }), "after a downtime as well");
    }

    #[test]
    fn a_clock_that_jumps_forward_starts_one_run() {
        let mut jumped = plan(HOUR);
        jumped.handled = Some(at(HOUR));
        assert_eq!(play(jumped.clone(), 10 * HOUR, 11 * HOUR, |_| false), [(10 * HOUR, 10 * HOUR)]);
        assert_eq!(play(jumped, 10 * HOUR + 1_000, 11 * HOUR, |_| false), []);
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_no_run_and_does_not_hold_the_schedule_up() {
        let mut back = plan(HOUR);
        back.handled = Some(at(5 * HOUR));
        assert_eq!(play(back.clone(), 5 * HOUR - 60, 6 * HOUR + 60, |_| false), [(6 * HOUR, 6 * HOUR)]);
        // It had been a year ahead; the next run is the one after now.
        back.handled = Some(at(365 * 24 * HOUR));
        assert_eq!(play(back, 5 * HOUR + 60, 7 * HOUR, |_| false), [(6 * HOUR, 6 * HOUR)]);
    }

    #[test]
    fn what_was_due_before_the_settings_changed_is_not_made_up_for() {
        let mut changed = plan(HOUR);
        changed.config.updated_at = at(2 * HOUR + 100);
        assert_eq!(play(changed, 2 * HOUR + 100, 3 * HOUR + 60, |_| false), [(3 * HOUR, 3 * HOUR)]);
    }

    #[test]
    fn what_is_disabled_or_paused_does_not_run() {
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
    fn a_run_that_is_due_outside_the_window_starts_when_it_opens() {
        let night = "02:00-05:00 UTC";
        assert_eq!(play(with_window(24 * HOUR, night), -60, 24 * HOUR, |_| false), [(0, 2 * HOUR)]);
        let hourly = play(with_window(HOUR, night), -60, 24 * HOUR, |_| false);
        assert_eq!(hourly, [(2 * HOUR, 2 * HOUR), (3 * HOUR, 3 * HOUR), (4 * HOUR, 4 * HOUR)]);
        // One that finds a task active at the opening waits five minutes from there.
        let pending = play(with_window(24 * HOUR, night), -60, 24 * HOUR, |second| second < 2 * HOUR + 200);
        assert_eq!(pending, [(0, 2 * HOUR + 200)]);
    }

    #[test]
    fn with_interval_zero_nothing_starts_outside_the_window() {
        let mut again = with_window(0, "02:00-05:00 UTC");
        assert_eq!(step(at(HOUR), &again), Step::Wait { look_at: at(2 * HOUR) });
        again.last_end = Some(at(5 * HOUR - 30));
        assert_eq!(step(at(5 * HOUR + 30), &again), Step::Wait { look_at: at(26 * HOUR) });
    }

    #[test]
    fn no_interval_and_no_time_leads_outside_the_calendar() {
        for interval in [0, 1, i64::MAX / 2] {
            let mut plan = plan(interval);
            plan.config.first_scan_at = Some(Timestamp::MAX);
            for now in [Timestamp::MIN, at(0), Timestamp::MAX] {
                step(now, &plan);
            }
            plan.config.first_scan_at = Some(Timestamp::MIN);
            step(Timestamp::MAX, &plan);
        }
    }
}
