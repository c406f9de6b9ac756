//! Which tasks may run: the limit per host, fairness between projects, windows, and history retention.

use std::time::Duration;

use keysweep::{
    model::{Instance, NewTask, Project, ScanType, Status, Stored, hosts},
    store::{ClaimLimits, Created, HeartbeatOutcome, PageRequest},
};

use crate::conformance::fresh::{Fresh, LEASE, at, heartbeat, manual, plain_instance, success, time};

on_every_engine!(
    a_host_has_no_more_concurrent_scans_than_its_limit,
    a_scan_of_several_hosts_counts_on_each_of_them,
    a_dead_workers_scan_does_not_count_on_its_host,
    a_task_whose_instance_has_moved_counts_on_its_new_host,
    projects_take_turns_however_much_one_of_them_asks_for,
    the_last_place_of_a_worker_is_kept_for_a_project_that_runs_nothing,
    a_project_gets_three_quarters_of_a_workers_places_while_another_waits,
    a_task_that_waits_for_its_window_is_not_claimed_before,
    a_deferred_task_continues_when_its_window_opens,
    a_cancelled_task_does_not_wait_for_its_window,
    a_task_whose_window_has_closed_stays_as_it_is_until_it_opens,
    a_changed_window_applies_at_the_next_heartbeat_and_claim,
    a_window_that_opens_between_heartbeat_and_release_lets_the_task_continue,
    a_window_that_closes_after_the_request_binds_the_task,
    a_window_that_becomes_unreadable_stops_the_scan,
    as_many_of_the_newest_records_of_each_kind_are_kept_as_asked_for,
);

async fn a_host_has_no_more_concurrent_scans_than_its_limit(store: Fresh) {
    let project = store.project("shop").await;
    for (name, host) in [("a", "h1"), ("b", "h1"), ("c", "h1"), ("d", "h2")] {
        let instance = plain_instance(&project, name);
        store.add_instance(&instance).await.expect("added");
        let new = NewTask { hosts: vec![host.into()], ..manual(&instance) };
        store.with_clock(at(0)).create_task(&new).await.expect("created");
    }
    let claim = async |seconds: i64, per_host: u32| {
        let claim = store.with_clock(at(seconds)).claim("w", LEASE, per_host).await.expect("no failure");
        claim.map(|claim| (claim.instance.name.clone(), claim))
    };
    let (name, first) = claim(1, 1).await.expect("a task");
    assert_eq!(name, "a");
    assert_eq!(claim(2, 1).await.expect("a task").0, "d", "b's host is busy");
    assert!(claim(3, 1).await.is_none());
    assert_eq!(claim(4, 2).await.expect("a task").0, "b");
    assert!(claim(5, 2).await.is_none());
    store.with_clock(at(6)).finish(&first.lease, &success(1)).await.expect("ended");
    assert_eq!(claim(7, 2).await.expect("a task").0, "c");
}

async fn a_scan_of_several_hosts_counts_on_each_of_them(store: Fresh) {
    let project = store.project("shop").await;
    let instances = [
        ("cluster", &["h1", "h2", "h3"][..]),
        // A part of a name or of an address is another host.
        ("single", &["h"]),
        ("other cluster", &["h0", "h3"]),
        ("neighbour", &["h2"]),
        ("address", &["10.0.0.1"]),
        ("longer address", &["10.0.0.11", "2001:db8::1"]),
    ];
    for (name, hosts) in instances {
        let instance = plain_instance(&project, name);
        store.add_instance(&instance).await.expect("added");
        let hosts = hosts.iter().map(ToString::to_string).collect();
        store.with_clock(at(0)).create_task(&NewTask { hosts, ..manual(&instance) }).await.expect("created");
    }
    let claim = async || store.with_clock(at(1)).claim("w", LEASE, 1).await.expect("no failure");
    let first = claim().await.expect("a task");
    let mut names = vec![first.instance.name.clone()];
    while let Some(claim) = claim().await {
        names.push(claim.instance.name);
    }
    assert_eq!(names, ["cluster", "single", "address", "longer address"]);
    store.with_clock(at(2)).finish(&first.lease, &success(1)).await.expect("ended");
    let names = [claim().await.expect("a task").instance.name, claim().await.expect("a task").instance.name];
    assert_eq!(names, ["other cluster", "neighbour"]);
}

async fn a_dead_workers_scan_does_not_count_on_its_host(store: Fresh) {
    let project = store.project("shop").await;
    for name in ["a", "b"] {
        let instance = plain_instance(&project, name);
        store.add_instance(&instance).await.expect("added");
        store
            .with_clock(at(0))
            .create_task(&NewTask { hosts: vec!["h".into()], ..manual(&instance) })
            .await
            .expect("created");
    }
    store.with_clock(at(0)).claim("dead", LEASE, 1).await.expect("no failure").expect("a task");
    assert!(store.with_clock(at(14)).claim("w", LEASE, 1).await.expect("no failure").is_none());
    let taken = store.with_clock(at(15)).claim("w", LEASE, 1).await.expect("no failure").expect("a task");
    assert_eq!(taken.instance.name, "a", "the orphan comes first");
    assert!(store.with_clock(at(16)).claim("w", LEASE, 1).await.expect("no failure").is_none());
}

async fn a_task_whose_instance_has_moved_counts_on_its_new_host(store: Fresh) {
    let project = store.project("shop").await;
    let to = |instance: &Instance, host: &str| Instance {
        url: Stored::read(format!("redis://{host}:6379")),
        ..instance.clone()
    };
    let ask = async |project: &Project, name: &str, host: &str| {
        let instance = to(&plain_instance(project, name), host);
        store.add_instance(&instance).await.expect("added");
        let new = NewTask { hosts: hosts(&instance), ..manual(&instance) };
        store.with_clock(at(0)).create_task(&new).await.expect("created");
        instance
    };
    let claim = async |seconds: i64| store.with_clock(at(seconds)).claim("w", LEASE, 1).await.expect("no failure");
    let a = ask(&project, "a", "h1").await;
    let b = ask(&project, "b", "h1").await;
    let first = claim(1).await.expect("a task");
    assert_eq!(first.instance.name, "a");
    assert!(claim(2).await.is_none(), "its host is busy");
    // A waiting task counts on the new host only.
    store.with_clock(at(3)).update_instance(&b, &to(&b, "h2")).await.expect("moved");
    let second = claim(4).await.expect("a task");
    assert_eq!((second.instance.name.as_str(), second.instance.url.text()), ("b", "redis://h2:6379"));
    // A running task counts on both: its worker still scans the old host, and the next worker will scan the new one.
    store.with_clock(at(5)).update_instance(&a, &to(&a, "h3")).await.expect("moved");
    for (name, host) in [("c", "h1"), ("d", "h2"), ("e", "h3")] {
        ask(&project, name, host).await;
    }
    assert!(claim(6).await.is_none());
    store.with_clock(at(7)).release_lease(&first.lease, &heartbeat(10)).await.expect("released");
    let again = claim(8).await.expect("a task");
    assert_eq!((again.instance.name.as_str(), again.instance.url.text()), ("a", "redis://h3:6379"));
    assert!(claim(9).await.is_none());
    store.with_clock(at(10)).finish(&again.lease, &success(20)).await.expect("ended");
    let names = [claim(11).await.expect("a task").instance.name, claim(12).await.expect("a task").instance.name];
    assert_eq!(names, ["c", "e"]);
    assert!(claim(13).await.is_none(), "b is swept on the host of d");
}

async fn projects_take_turns_however_much_one_of_them_asks_for(store: Fresh) {
    for (name, tasks) in [("greedy", 6), ("modest", 2)] {
        let project = store.project(name).await;
        for number in 0..tasks {
            let instance = plain_instance(&project, &format!("{name}{number}"));
            store.add_instance(&instance).await.expect("added");
            store.waiting(&instance, at(0)).await;
        }
    }
    let mut order = Vec::new();
    for second in 0..8 {
        order.push(store.claimed(at(second), "w").await.instance.name);
    }
    let expected = ["greedy0", "modest0", "greedy1", "modest1", "greedy2", "greedy3", "greedy4", "greedy5"];
    assert_eq!(order, expected);
}

/// Adds a project with this many waiting tasks.
async fn waiting_project(store: &Fresh, name: &str, tasks: usize) -> Project {
    let project = store.project(name).await;
    for number in 0..tasks {
        let instance = plain_instance(&project, &format!("{name}{number}"));
        store.add_instance(&instance).await.expect("added");
        store.waiting(&instance, at(0)).await;
    }
    project
}

async fn the_last_place_of_a_worker_is_kept_for_a_project_that_runs_nothing(store: Fresh) {
    let claim = async |owner: &str, places: u32| {
        let limits = ClaimLimits { per_host: 100, places };
        let claim = store.with_clock(at(1)).claim(owner, LEASE, limits).await.expect("no failure");
        claim.map(|claim| claim.instance.name)
    };
    waiting_project(&store, "greedy", 9).await;
    for number in 0..4 {
        assert_eq!(claim("w", 4).await, Some(format!("greedy{number}")), "it is the only project");
    }
    let modest = store.project("modest").await;
    assert_eq!(claim("w", 5).await, Some("greedy4".into()), "the other project has no instance");
    let instance = plain_instance(&modest, "modest0");
    store.add_instance(&instance).await.expect("added");
    assert_eq!(claim("w", 6).await, None, "the sixth place is kept");
    assert_eq!(claim("other", 2).await, Some("greedy5".into()), "each worker keeps one of its own");
    assert_eq!(claim("other", 2).await, None);
    assert_eq!(claim("small", 1).await, Some("greedy6".into()), "a worker with one place keeps none");
    store.waiting(&instance, at(0)).await;
    assert_eq!(claim("w", 6).await, Some("modest0".into()));
    assert_eq!(claim("other", 2).await, Some("greedy7".into()), "every project runs something");
}

async fn a_project_gets_three_quarters_of_a_workers_places_while_another_waits(store: Fresh) {
    let claim = async |owner: &str| {
        let limits = ClaimLimits { per_host: 100, places: 4 };
        store.with_clock(at(1)).claim(owner, LEASE, limits).await.expect("no failure").expect("a task").instance.name
    };
    // Another worker runs so many scans of the busy project that the greedy one would come first again and again.
    waiting_project(&store, "busy", 6).await;
    for _ in 0..4 {
        claim("elsewhere").await;
    }
    waiting_project(&store, "greedy", 5).await;
    let claims = [claim("w").await, claim("w").await, claim("w").await, claim("w").await];
    assert_eq!(claims, ["greedy0", "greedy1", "greedy2", "busy4"]);
    let claims = [claim("third").await, claim("third").await];
    assert_eq!(claims, ["greedy3", "greedy4"], "its places of each worker are counted");
}

async fn a_task_that_waits_for_its_window_is_not_claimed_before(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let instance = store.with_window(&instance, Some(NIGHT)).await;
    store.waiting(&instance, at(0)).await;
    assert!(store.with_clock(at(2 * HOUR - 1)).claim("w", LEASE, 1).await.expect("no failure").is_none());
    assert_eq!(store.claimed(at(2 * HOUR), "w").await.task.started_at, Some(time(2 * HOUR)));
}

async fn a_deferred_task_continues_when_its_window_opens(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(1), "w").await;
    store.with_window(&instance, Some(NIGHT)).await;
    let outcome = store.with_clock(at(2)).release_lease(&claim.lease, &heartbeat(50)).await.expect("released");
    assert_eq!(outcome, HeartbeatOutcome::Held { cancel_requested: false, closed_until: Some(time(2 * HOUR)) });
    assert_eq!(
        store.with_clock(at(2)).release_lease(&claim.lease, &heartbeat(60)).await.expect("answered"),
        HeartbeatOutcome::Lost
    );
    assert!(store.with_clock(at(2 * HOUR - 1)).claim("w", LEASE, 1).await.expect("no failure").is_none());
    let again = store.claimed(at(2 * HOUR), "w2").await;
    assert_eq!((again.task.started_at, again.task.scanned, again.task.exact), (Some(time(1)), 50, true));
    assert_eq!(again.checkpoint.as_deref(), Some("{\"cursor\":50}"));
    // Its wait is over: released in an orderly way, it is claimed at once.
    store.with_clock(at(2 * HOUR + 1)).release_lease(&again.lease, &heartbeat(70)).await.expect("released");
    store.claimed(at(2 * HOUR + 2), "w").await;
}

async fn a_cancelled_task_does_not_wait_for_its_window(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let task = store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(1), "w").await;
    store.with_window(&instance, Some(NIGHT)).await;
    store.with_clock(at(1)).release_lease(&claim.lease, &heartbeat(50)).await.expect("released");
    store.with_clock(at(2)).request_cancel(&task.project_id, &task.id).await.expect("asked");
    assert!(store.claimed(at(3), "w").await.task.cancel_requested);
}

/// The tests begin at midnight, UTC.
const HOUR: i64 = 3_600;
const NIGHT: &str = "02:00-05:00 UTC";

async fn a_task_whose_window_has_closed_stays_as_it_is_until_it_opens(store: Fresh) {
    let project = store.project("shop").await;
    let scan = |instance: &Instance, scan_type| NewTask { scan_type, ..manual(instance) };
    let mut tasks = Vec::new();
    // More than one batch of candidates, so that the task that may run is found behind them.
    for number in 0..50 {
        let mut bound = plain_instance(&project, &format!("bound{number:02}"));
        bound.window = Some(Stored::read(NIGHT));
        store.add_instance(&bound).await.expect("added");
        match store.with_clock(at(4 * HOUR)).create_task(&scan(&bound, ScanType::Auto)).await.expect("created") {
            Created::New(task) => tasks.push(task),
            other => panic!("{other:?}"),
        }
    }
    let free = Instance { window: Some(Stored::read(NIGHT)), ..plain_instance(&project, "free") };
    store.add_instance(&free).await.expect("added");
    store.waiting(&free, at(4 * HOUR)).await;
    let claim = store.claimed(at(5 * HOUR), "w").await;
    assert_eq!(claim.instance.name, "free", "its window does not bind manual scans");
    store.with_clock(at(5 * HOUR + 1)).finish(&claim.lease, &success(1)).await.expect("ended");
    assert!(store.with_clock(at(26 * HOUR - 1)).claim("w", LEASE, 1).await.expect("no failure").is_none());
    for task in &tasks {
        let seen = store.seen(task).await;
        assert_eq!((seen.status, seen.started_at), (Status::Waiting, None));
    }
    assert_eq!(store.claimed(at(26 * HOUR), "w").await.task.started_at, Some(time(26 * HOUR)));
    // A task that is to be cancelled ends outside the window as well.
    let second = store.claimed(at(26 * HOUR), "w").await;
    store.with_clock(at(28 * HOUR)).request_cancel(&project.id, &second.task.id).await.expect("asked");
    store.with_clock(at(28 * HOUR)).release_lease(&second.lease, &heartbeat(1)).await.expect("released");
    assert!(store.claimed(at(30 * HOUR), "w").await.task.cancel_requested);
}

async fn a_changed_window_applies_at_the_next_heartbeat_and_claim(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let new = NewTask { scan_type: ScanType::Auto, ..manual(&instance) };
    store.with_clock(at(0)).create_task(&new).await.expect("created");
    let claim = store.claimed(at(0), "w").await;
    let open = HeartbeatOutcome::Held { cancel_requested: false, closed_until: None };
    assert_eq!(store.with_clock(at(1)).heartbeat(&claim.lease, LEASE, &heartbeat(1)).await.expect("recorded"), open);
    let bound = Instance { window: Some(Stored::read(NIGHT)), ..instance.clone() };
    store.update_instance(&instance, &bound).await.expect("changed");
    let closed = HeartbeatOutcome::Held { cancel_requested: false, closed_until: Some(time(2 * HOUR)) };
    assert_eq!(store.with_clock(at(2)).heartbeat(&claim.lease, LEASE, &heartbeat(2)).await.expect("recorded"), closed);
    store.with_clock(at(3)).release_lease(&claim.lease, &heartbeat(3)).await.expect("released");
    assert!(store.with_clock(at(3)).claim("w", LEASE, 1).await.expect("no failure").is_none());
    store.update_instance(&bound, &instance).await.expect("changed back");
    let again = store.claimed(at(4), "w").await;
    assert_eq!((again.task.started_at, again.task.scanned), (Some(time(0)), 3));
    // The death of a worker does not let a task run outside its window.
    store.update_instance(&instance, &bound).await.expect("changed");
    assert!(store.with_clock(at(60)).claim("w", LEASE, 1).await.expect("no failure").is_none());
    let orphan = store.claimed(at(2 * HOUR), "w").await;
    assert!(orphan.task.started_at == Some(time(0)) && !orphan.task.exact);
}

async fn a_window_that_opens_between_heartbeat_and_release_lets_the_task_continue(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(0), "w").await;
    let closed = store.with_window(&instance, Some(NIGHT)).await;
    let outcome = store.with_clock(at(1)).heartbeat(&claim.lease, LEASE, &heartbeat(1)).await.expect("recorded");
    assert_eq!(outcome, HeartbeatOutcome::Held { cancel_requested: false, closed_until: Some(time(2 * HOUR)) });
    // The worker stops its scan now.
    store.with_window(&closed, None).await;
    let outcome = store.with_clock(at(2)).release_lease(&claim.lease, &heartbeat(2)).await.expect("released");
    assert_eq!(outcome, HeartbeatOutcome::Held { cancel_requested: false, closed_until: None });
    assert_eq!(store.claimed(at(3), "w").await.task.scanned, 2);
}

async fn a_window_that_closes_after_the_request_binds_the_task(store: Fresh) {
    let seen = store.instance_of_its_own("cache").await;
    store.with_window(&seen, Some(NIGHT)).await;
    // The creation uses the instance as it was read before.
    store.waiting(&seen, at(0)).await;
    assert!(store.with_clock(at(1)).claim("w", LEASE, 1).await.expect("no failure").is_none());
    assert_eq!(
        store.with_clock(at(HOUR)).overview().await.expect("read").longest_wait,
        Duration::ZERO,
        "it does not wait in vain"
    );
    store.claimed(at(2 * HOUR), "w").await;
}

async fn as_many_of_the_newest_records_of_each_kind_are_kept_as_asked_for(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let auto = NewTask { scan_type: ScanType::Auto, ..manual(&instance) };
    store.with_clock(at(0)).create_task(&auto).await.expect("created");
    let claim = store.claimed(at(0), "w").await;
    store.with_clock(at(0)).finish(&claim.lease, &success(1)).await.expect("ended");
    let mut ids = Vec::new();
    let active = store.waiting(&instance, at(1)).await;
    for second in 2..=9 {
        // An active task is never removed, however few are kept.
        let again = NewTask { history_retention: 1, ..manual(&instance) };
        assert!(
            matches!(store.with_clock(at(second)).create_task(&again).await, Ok(Created::Active(task)) if task.id == active.id)
        );
    }
    store.with_clock(at(10)).request_cancel(&active.project_id, &active.id).await.expect("cancelled");
    for second in 11..=30 {
        let new = NewTask { history_retention: 7, ..manual(&instance) };
        let Ok(Created::New(task)) = store.with_clock(at(second)).create_task(&new).await else {
            panic!("none was active")
        };
        store.with_clock(at(second)).request_cancel(&task.project_id, &task.id).await.expect("cancelled");
        ids.insert(0, task.id);
    }
    let page = store.tasks(&instance.id, &PageRequest { status: None, offset: 0, limit: 100 }).await.expect("read");
    let kept: Vec<_> = page.tasks.iter().map(|task| task.id.clone()).collect();
    assert_eq!(kept[..7], ids[..7], "the newest");
    assert_eq!(kept[7..], [claim.task.id], "the other kind is not pushed out");
}

async fn a_window_that_becomes_unreadable_stops_the_scan(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(1), "w").await;
    store.with_window(&instance, Some("02:00-05:00 Mars/Olympus")).await;
    let outcome = store.with_clock(at(2)).heartbeat(&claim.lease, LEASE, &heartbeat(10)).await.expect("recorded");
    assert_eq!(outcome, HeartbeatOutcome::Held { cancel_requested: false, closed_until: Some(time(2)) });
    let outcome = store.with_clock(at(2)).release_lease(&claim.lease, &heartbeat(10)).await.expect("released");
    assert_eq!(outcome, HeartbeatOutcome::Held { cancel_requested: false, closed_until: None });
    let next = store.claimed(at(2), "w2").await;
    let blocking = next.instance.blocking_field(next.task.scan_type).expect("a reason to fail");
    assert_eq!((next.task.id, blocking.field), (claim.task.id, "window"));
}
