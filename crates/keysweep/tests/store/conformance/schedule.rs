//! Schedules: which plans are due, and that one of several replicas starts a run.

use std::time::Duration;

use keysweep::{
    model::{AutoScan, Gathering, Hold, Instance, NewTask, Reason, ScanType, Status, Stored, TargetShare},
    store::{Claim, ClaimLimits, Heartbeat, PageRequest, Plan, TaskResult},
    task::Tasks,
};
use keysweep_engine::{Outcome, Remaining, Report, Totals};
use tokio::task::JoinSet;

use crate::conformance::fresh::{
    Fresh, LEASE, assert_missing, at, heartbeat, id, manual, plain_instance, success, time,
};

on_every_engine!(
    settings_come_back_and_replace_what_was_set_before,
    settings_that_are_set_again_unchanged_stay_as_old_as_they_were,
    a_plan_is_due_at_its_time_and_when_its_settings_change,
    a_run_is_started_once_by_any_number_of_replicas,
    a_run_is_pending_while_a_task_is_active,
    a_plan_that_has_changed_since_it_was_read_starts_nothing,
    a_window_or_pause_between_the_check_and_the_start_applies,
    a_change_between_the_check_and_the_rescheduling_is_not_lost,
    a_changed_instance_is_due_at_once,
    a_task_that_finishes_between_the_check_and_the_start_counts_as_the_last,
    with_interval_zero_the_end_of_the_last_run_decides,
    an_endless_auto_scan_leaves_its_place_to_those_that_wait_at_the_end_of_each_pass,
    an_adaptive_auto_scan_learns_from_every_successful_scan,
    a_target_is_saved_and_refused_like_the_other_settings,
);

const HOUR: i64 = 3_600;

fn hourly(instance: &Instance) -> AutoScan {
    AutoScan {
        instance_id: instance.id.clone(),
        enabled: true,
        first_scan_at: Some(time(HOUR)),
        first_scan_text: None,
        interval: Duration::from_secs(3_600),
        timeout: Duration::from_secs(600),
        scan_keys_count: 10,
        target: None,
        gathering: None,
        updated_at: time(0),
    }
}

async fn due(store: &Fresh, seconds: i64) -> Vec<Plan> {
    let due = store.with_clock(at(seconds)).due_plans(10).await.expect("read");
    assert_eq!(due.now, time(seconds));
    due.plans
}

async fn settings_come_back_and_replace_what_was_set_before(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    assert_eq!(store.auto_scan(&instance.id).await.expect("read"), None);
    let settings = hourly(&instance);
    store.schedule(&settings).await.expect("set");
    assert_eq!(store.auto_scan(&instance.id).await.expect("read"), Some(settings.clone()));
    let off = AutoScan { enabled: false, first_scan_at: None, updated_at: time(9), ..settings };
    store.schedule(&off).await.expect("set");
    assert_eq!(store.auto_scan(&instance.id).await.expect("read"), Some(off.clone()));
    assert_missing(store.schedule(&AutoScan { instance_id: id("absent"), ..off.clone() }).await, "instance");
    let ids = [id("absent"), instance.id.clone()];
    assert_eq!(store.auto_scans(&ids).await.expect("read"), [off]);
}

async fn settings_that_are_set_again_unchanged_stay_as_old_as_they_were(store: Fresh) {
    let settings = hourly(&store.instance_of_its_own("cache").await);
    for updated_at in [time(0), time(50)] {
        store.schedule(&AutoScan { updated_at, ..settings.clone() }).await.expect("set");
        assert_eq!(store.auto_scan(&settings.instance_id).await.expect("read"), Some(settings.clone()));
    }
    let changed = AutoScan { scan_keys_count: 11, updated_at: time(60), ..settings };
    store.schedule(&changed).await.expect("set");
    assert_eq!(store.auto_scan(&changed.instance_id).await.expect("read"), Some(changed));
}

async fn a_plan_is_due_at_its_time_and_when_its_settings_change(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let settings = hourly(&instance);
    store.schedule(&settings).await.expect("set");
    let config = settings.clone();
    let expected = Plan { config, instance, handled: None, active: false, last_end: None, last_scan: None };
    let plans = due(&store, 10).await;
    assert_eq!(plans, std::slice::from_ref(&expected), "a new one is looked at at once");
    store.reschedule(&plans[0], None, time(HOUR)).await.expect("noted");
    assert_eq!(due(&store, HOUR - 1).await, []);
    assert_eq!(due(&store, HOUR).await, [expected]);

    let later = AutoScan { first_scan_at: Some(time(2 * HOUR)), updated_at: time(20), ..settings.clone() };
    store.schedule(&later).await.expect("set");
    let plans = due(&store, 30).await;
    assert_eq!(plans.len(), 1, "changed settings are looked at at once");
    store.reschedule(&plans[0], Some(time(25)), time(2 * HOUR)).await.expect("noted");
    assert_eq!(due(&store, HOUR).await, []);
    assert_eq!(due(&store, 2 * HOUR).await[0].handled, Some(time(25)));
    store.schedule(&AutoScan { enabled: false, updated_at: time(40), ..settings }).await.expect("set");
    assert_eq!(due(&store, 3 * HOUR).await, []);
}

async fn a_run_is_started_once_by_any_number_of_replicas(store: Fresh) {
    let project = store.project("shop").await;
    let mut instances = Vec::new();
    for number in 0..8 {
        let instance = plain_instance(&project, &format!("i{number}"));
        store.add_instance(&instance).await.expect("added");
        store.schedule(&hourly(&instance)).await.expect("set");
        instances.push(instance);
    }
    let mut keepers = JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        keepers.spawn(async move { Tasks::new(store.with_clock(at(HOUR))).keep_schedule().await.expect("kept") });
    }
    assert_eq!(keepers.join_all().await.into_iter().sum::<usize>(), 8);
    for instance in &instances {
        let all = PageRequest { status: None, offset: 0, limit: 10 };
        let page = store.tasks(&instance.id, &all).await.expect("read");
        let [task] = page.tasks.as_slice() else { panic!("{page:?}") };
        assert_eq!((task.scan_type, task.due_at, task.created_at), (ScanType::Auto, Some(time(HOUR)), time(HOUR)));
        assert_eq!((task.timeout, task.keys_per_second), (Duration::from_secs(600), Some(2_000)));
    }
    // The tasks finish at once: the same due time leads to no second run.
    for _ in 0..8 {
        let claim = store.claimed(at(HOUR + 1), "w").await;
        store.with_clock(at(HOUR + 2)).finish(&claim.lease, &success(1)).await.expect("ended");
    }
    assert_eq!(Tasks::new(store.with_clock(at(HOUR + 3))).keep_schedule().await.expect("kept"), 0);
    assert_eq!(Tasks::new(store.with_clock(at(2 * HOUR))).keep_schedule().await.expect("kept"), 8);
}

async fn a_run_is_pending_while_a_task_is_active(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.schedule(&hourly(&instance)).await.expect("set");
    store.waiting(&instance, at(HOUR - 10)).await;
    let claim = store.claimed(at(HOUR - 9), "w").await;
    assert_eq!(Tasks::new(store.with_clock(at(HOUR))).keep_schedule().await.expect("kept"), 0);
    store.with_clock(at(HOUR + 200)).finish(&claim.lease, &success(1)).await.expect("ended");
    assert_eq!(Tasks::new(store.with_clock(at(HOUR + 201))).keep_schedule().await.expect("kept"), 1);
    let claim = store.claimed(at(HOUR + 202), "w").await;
    assert_eq!((claim.task.scan_type, claim.task.due_at), (ScanType::Auto, Some(time(HOUR))));
}

async fn a_plan_that_has_changed_since_it_was_read_starts_nothing(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let settings = hourly(&instance);
    store.schedule(&settings).await.expect("set");
    let plan = due(&store, HOUR).await.remove(0);
    let run = NewTask { scan_type: ScanType::Auto, due_at: Some(time(HOUR)), ..manual(&instance) };
    store.schedule(&AutoScan { enabled: false, updated_at: time(HOUR), ..settings }).await.expect("set");
    let started = store.with_clock(at(HOUR)).start_run(&plan, &run, time(2 * HOUR)).await.expect("answered");
    assert_eq!(started, None, "it was disabled in between");
    let waiting = PageRequest { status: Some(Status::Waiting), offset: 0, limit: 10 };
    assert_eq!(store.tasks(&instance.id, &waiting).await.expect("read").count, 0);
}

async fn a_window_or_pause_between_the_check_and_the_start_applies(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.schedule(&hourly(&instance)).await.expect("set");
    let run = NewTask { scan_type: ScanType::Auto, due_at: Some(time(HOUR)), ..manual(&instance) };
    let paused = Instance { paused: true, ..instance.clone() };
    let closed = Instance { window: Some(Stored::read("02:00-05:00 UTC")), ..instance.clone() };
    for changed in [paused, closed] {
        let plan = due(&store, HOUR).await.remove(0);
        store.update_instance(&instance, &changed).await.expect("changed");
        assert_eq!(store.with_clock(at(HOUR)).start_run(&plan, &run, time(2 * HOUR)).await.expect("answered"), None);
        store.update_instance(&changed, &instance).await.expect("changed back");
    }
    // None of it was saved: the plan is due again, and the run starts.
    assert_eq!(Tasks::new(store.with_clock(at(HOUR))).keep_schedule().await.expect("kept"), 1);
}

async fn a_change_between_the_check_and_the_rescheduling_is_not_lost(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let settings = hourly(&instance);
    store.schedule(&settings).await.expect("set");
    let closed = Instance { window: Some(Stored::read("02:00-05:00 UTC")), ..instance.clone() };
    store.update_instance(&instance, &closed).await.expect("changed");
    let plan = due(&store, HOUR).await.remove(0);
    store.update_instance(&closed, &instance).await.expect("changed back");
    // A replica that read the closed window skips the run, or reschedules it until the window opens.
    store.reschedule(&plan, Some(time(HOUR)), time(2 * HOUR)).await.expect("answered");
    store.reschedule(&plan, None, time(2 * HOUR)).await.expect("answered");
    assert_eq!(Tasks::new(store.with_clock(at(HOUR + 1))).keep_schedule().await.expect("kept"), 1);
}

async fn a_changed_instance_is_due_at_once(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let daily = AutoScan { interval: Duration::from_secs(86_400), ..hourly(&instance) };
    store.schedule(&daily).await.expect("set");
    let night = store.with_window(&instance, Some("02:00-05:00 UTC")).await;
    assert_eq!(Tasks::new(store.with_clock(at(HOUR))).keep_schedule().await.expect("kept"), 0);
    store.with_window(&night, Some("01:10-05:00 UTC")).await;
    assert_eq!(Tasks::new(store.with_clock(at(HOUR + 300))).keep_schedule().await.expect("kept"), 0);
    assert_eq!(
        Tasks::new(store.with_clock(at(HOUR + 600))).keep_schedule().await.expect("kept"),
        1,
        "it begins when the new window opens"
    );
}

async fn a_task_that_finishes_between_the_check_and_the_start_counts_as_the_last(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let again = AutoScan { interval: Duration::ZERO, ..hourly(&instance) };
    store.schedule(&again).await.expect("set");
    let plan = due(&store, HOUR).await.remove(0);
    store.waiting(&instance, at(HOUR)).await;
    let claim = store.claimed(at(HOUR), "w").await;
    store.with_clock(at(HOUR + 1)).finish(&claim.lease, &success(1)).await.expect("ended");
    let run = NewTask { scan_type: ScanType::Auto, due_at: Some(time(HOUR)), ..manual(&instance) };
    assert_eq!(store.with_clock(at(HOUR + 1)).start_run(&plan, &run, time(HOUR + 2)).await.expect("answered"), None);
    assert_eq!(Tasks::new(store.with_clock(at(HOUR + 60))).keep_schedule().await.expect("kept"), 0);
    assert_eq!(
        Tasks::new(store.with_clock(at(HOUR + 61))).keep_schedule().await.expect("kept"),
        1,
        "a minute after that end"
    );
}

async fn with_interval_zero_the_end_of_the_last_run_decides(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let again = AutoScan { interval: Duration::ZERO, ..hourly(&instance) };
    store.schedule(&again).await.expect("set");
    assert_eq!(Tasks::new(store.with_clock(at(HOUR))).keep_schedule().await.expect("kept"), 1);
    let claim = store.claimed(at(HOUR), "w").await;
    store.with_clock(at(HOUR + 100)).finish(&claim.lease, &success(1)).await.expect("ended");
    assert_eq!(due(&store, HOUR + 101).await[0].last_end, Some(time(HOUR + 100)));
    assert_eq!(Tasks::new(store.with_clock(at(HOUR + 159))).keep_schedule().await.expect("kept"), 0);
    assert_eq!(Tasks::new(store.with_clock(at(HOUR + 160))).keep_schedule().await.expect("kept"), 1);
}

async fn an_endless_auto_scan_leaves_its_place_to_those_that_wait_at_the_end_of_each_pass(store: Fresh) {
    let endless = store.instance_of_its_own("endless").await;
    store.schedule(&AutoScan { interval: Duration::ZERO, ..hourly(&endless) }).await.expect("set");
    let keep = async |seconds| Tasks::new(store.with_clock(at(seconds))).keep_schedule().await.expect("kept");
    // A worker with one place claims when the scan before has ended.
    let claim = async |seconds| {
        let limits = ClaimLimits { per_host: 100, places: 1 };
        let claim = store.with_clock(at(seconds)).claim("w", LEASE, limits).await.expect("no failure");
        claim.expect("a task to claim")
    };
    let end = async |seconds, claim: Claim| {
        store.with_clock(at(seconds)).finish(&claim.lease, &success(1)).await.expect("ended");
        claim.instance.name
    };
    assert_eq!(keep(HOUR).await, 1);
    let pass = claim(HOUR).await;
    let other = store.project("other").await;
    for name in ["a", "b", "c"] {
        let instance = plain_instance(&other, name);
        store.add_instance(&instance).await.expect("added");
        store.waiting(&instance, at(HOUR + 10)).await;
    }
    assert_eq!(end(HOUR + 100, pass).await, "endless");
    // The pass was a task of its own. The next one is created a minute later, behind those that wait by then.
    let next = claim(HOUR + 100).await;
    assert_eq!((keep(HOUR + 159).await, keep(HOUR + 160).await), (0, 1));
    let mut order = vec![end(HOUR + 170, next).await];
    for seconds in [180, 190, 200] {
        order.push(end(HOUR + seconds + 5, claim(HOUR + seconds).await).await);
    }
    assert_eq!(order, ["a", "b", "c", "endless"]);
}

/// Returns settings that keep a mean stale share of 5 %.
fn adaptive(instance: &Instance) -> AutoScan {
    AutoScan { target: TargetShare::new(0.05), ..hourly(instance) }
}

/// Returns the result of a scan of one second that left a thousand keys.
pub fn scanned(reclaimed: u64, expired_per_second: f64) -> TaskResult {
    let remaining = Remaining { keys: 1_000, expired_per_second: Some(expired_per_second), ..Remaining::default() };
    let report = Report {
        target: String::new(),
        outcome: Outcome::Done,
        reason: None,
        message: None,
        pace: "normal".into(),
        totals: Totals { remaining: Some(remaining), ..Totals::default() },
        warnings: Vec::new(),
        shards: Vec::new(),
    };
    let scanned = 1_000 + reclaimed;
    let heartbeat = Heartbeat { used: Duration::from_secs(1), reclaimed, ..heartbeat(scanned) };
    TaskResult { heartbeat, report: Some(serde_json::to_string(&report).expect("JSON")), ..success(scanned) }
}

async fn an_adaptive_auto_scan_learns_from_every_successful_scan(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.schedule(&adaptive(&instance)).await.expect("set");
    let tick = |seconds| {
        let tasks = Tasks::new(store.with_clock(at(seconds)));
        async move { tasks.keep_schedule().await.expect("kept") }
    };
    assert_eq!(tick(HOUR).await, 1, "the first run is due at its time");
    let claim = store.claimed(at(HOUR), "w").await;
    // Half of the keys were stale, and 1 % of those that are left expire a second.
    store.with_clock(at(HOUR + 1)).finish(&claim.lease, &scanned(1_000, 10.0)).await.expect("ended");
    assert_eq!(tick(HOUR + 2).await, 0);
    let saved = store.auto_scan(&instance.id).await.expect("read").expect("settings");
    let measured = saved.gathering.clone().expect("measured");
    assert_eq!((measured.task_id, measured.started_at, measured.keys), (claim.task.id, time(HOUR), 1_000));
    assert_eq!((measured.expiry_rate, measured.growth, measured.share), (Some(10.0), None, 0.5));
    let found = saved.adaptive().expect("adaptive");
    assert_eq!((found.hold, found.interval), (Hold::Holding, Duration::from_secs(10)), "T = 2xN/λ");
    assert_eq!(tick(HOUR + 9).await, 0);
    assert_eq!(tick(HOUR + 10).await, 1);

    // A scan that a user starts measures as well, and delays the next one.
    let claim = store.claimed(at(HOUR + 10), "w").await;
    store.with_clock(at(HOUR + 11)).finish(&claim.lease, &scanned(53, 5.0)).await.expect("ended");
    store.waiting(&instance, at(HOUR + 15)).await;
    let claim = store.claimed(at(HOUR + 15), "w").await;
    store.with_clock(at(HOUR + 16)).finish(&claim.lease, &scanned(26, 5.0)).await.expect("ended");
    assert_eq!(tick(HOUR + 17).await, 0);
    let saved = store.auto_scan(&instance.id).await.expect("read").expect("settings");
    assert_eq!(saved.gathering.expect("measured").task_id, claim.task.id);
    let seen = store.with_clock(at(HOUR + 17)).overview().await.expect("read");
    let mean = seen.instances[0].mean_share.expect("two scans");
    assert!((mean - 26.0 / 1_026.0 / 2.0).abs() < 1e-9, "half of what the last scan found: {mean}");

    // A failed one does not.
    store.waiting(&instance, at(HOUR + 18)).await;
    let claim = store.claimed(at(HOUR + 18), "w").await;
    let failed = TaskResult { outcome: Err((Reason::Unreachable, "gone".into())), ..success(9) };
    store.with_clock(at(HOUR + 19)).finish(&claim.lease, &failed).await.expect("ended");
    let before = due(&store, HOUR + 80).await.remove(0);
    assert_eq!(before.last_end, Some(time(HOUR + 19)));
    assert!(
        before.last_scan.is_some_and(|last| Some(last) == before.config.gathering.map(|measured| measured.task_id))
    );
}

async fn a_target_is_saved_and_refused_like_the_other_settings(store: Fresh) {
    let settings = adaptive(&store.instance_of_its_own("cache").await);
    store.schedule(&settings).await.expect("set");
    assert_eq!(store.auto_scan(&settings.instance_id).await.expect("read"), Some(settings.clone()));
    let again = AutoScan { updated_at: time(9), ..settings.clone() };
    assert_eq!(store.set_auto_scan(Some(&settings), &again).await.expect("kept"), Some(settings.clone()));
    let other = AutoScan { target: TargetShare::new(0.1), updated_at: time(10), ..settings.clone() };
    assert_eq!(store.set_auto_scan(Some(&settings), &other).await.expect("kept"), Some(other.clone()));
    let fixed = AutoScan { target: None, updated_at: time(11), ..settings.clone() };
    assert_eq!(store.set_auto_scan(Some(&settings), &fixed).await.expect("answered"), None, "it has changed since");
    assert_eq!(store.set_auto_scan(Some(&other), &fixed).await.expect("kept"), Some(fixed.clone()));
    // What scans have measured stays, whatever becomes of the settings.
    let measured = Gathering {
        task_id: id("scan"),
        started_at: time(0),
        finished_at: time(1),
        scan_seconds: 0.5,
        keys: 7,
        share: 0.25,
        expiry_rate: Some(0.5),
        growth: None,
        target: settings.target.expect("a target"),
    };
    store.record_gathering(&settings.instance_id, &measured).await.expect("kept");
    let saved = store.schedule(&AutoScan { updated_at: time(12), ..settings }).await.expect("kept");
    assert_eq!(saved.gathering, Some(measured));
    assert_missing(store.schedule(&AutoScan { instance_id: id("gone"), ..saved }).await, "instance");
}
