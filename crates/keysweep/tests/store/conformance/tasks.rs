//! Tasks as clients create, read and cancel them.

use std::{collections::HashSet, time::Duration};

use keysweep::{
    model::{Instance, NewTask, Reason, ScanType, Status, Task},
    store::{Clock, Created, HeartbeatOutcome, PageRequest},
    task::{TaskError, Tasks},
};
use tokio::task::JoinSet;

use crate::conformance::fresh::{
    Fresh, LEASE, assert_missing, assert_taken, at, heartbeat, manual, plain_instance, success, time,
};

on_every_engine!(
    a_new_task_waits_and_comes_back_as_it_was_created,
    a_scheduled_task_keeps_when_it_was_due,
    the_databases_clock_is_the_default,
    creating_while_one_is_active_answers_with_the_active_one,
    a_finished_task_allows_a_new_one,
    parallel_creates_make_exactly_one_task,
    a_task_needs_an_instance_of_its_project,
    a_pause_between_the_check_and_the_creation_applies,
    a_task_is_unique_by_id,
    a_task_is_found_in_its_own_project_only,
    pages_are_newest_first_and_make_up_the_whole,
    several_instances_and_tasks_are_read_at_once_as_they_are_one_by_one,
    the_filter_comes_before_the_counts_and_the_page_after_them,
    an_empty_list_counts_nothing,
    cancelling_a_waiting_task_ends_it_at_once,
    cancelling_a_running_task_reaches_its_next_heartbeat,
    cancelling_a_finished_task_changes_nothing,
    cancelling_an_absent_task_finds_nothing,
    a_cancel_that_races_with_a_claim_wins_or_reaches_the_worker,
    a_clock_that_steps_back_ends_nothing_before_it_began,
    tasks_outlive_the_process,
);

async fn a_new_task_waits_and_comes_back_as_it_was_created(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let new = NewTask { keys_per_second: Some(20_000), ..manual(&instance) };
    let Created::New(task) = store.with_clock(at(5)).create_task(&new).await.expect("created") else {
        panic!("not new")
    };
    let expected = Task {
        seq: task.seq,
        id: new.id.clone(),
        project_id: instance.project_id.clone(),
        instance_id: instance.id.clone(),
        status: Status::Waiting,
        reason: None,
        reason_detail: None,
        scan_type: ScanType::Manual,
        triggered_by: Some("ada".into()),
        created_at: time(5),
        started_at: None,
        finished_at: None,
        due_at: None,
        cancel_requested: false,
        timeout: Duration::from_secs(21_600),
        used: Duration::ZERO,
        attempts: 0,
        keys_per_second: Some(20_000),
        reclaimed: 0,
        scanned: 0,
        exact: true,
    };
    assert_eq!(task, expected);
    let detail = store.task(&instance.project_id, &new.id).await.expect("read").expect("it is there");
    assert_eq!(detail.task, expected, "readable as soon as it is created");
    assert_eq!((detail.progress, detail.checkpoint, detail.report), (None, None, None));
}

async fn a_scheduled_task_keeps_when_it_was_due(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let new = NewTask { scan_type: ScanType::Auto, triggered_by: None, due_at: Some(time(-60)), ..manual(&instance) };
    let Created::New(task) = store.with_clock(at(0)).create_task(&new).await.expect("created") else {
        panic!("not new")
    };
    assert_eq!((task.scan_type, task.due_at, task.triggered_by), (ScanType::Auto, Some(time(-60)), None));
}

async fn the_databases_clock_is_the_default(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let before = jiff::Timestamp::now();
    let task = store.waiting(&instance, Clock::Database).await;
    let off = task.created_at.duration_since(before).as_secs_f64();
    assert!((-1.0..60.0).contains(&off), "{off} s");
}

async fn creating_while_one_is_active_answers_with_the_active_one(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let task = store.waiting(&instance, at(0)).await;
    let Created::Active(active) = store.with_clock(at(1)).create_task(&manual(&instance)).await.expect("answered")
    else {
        panic!("a second one while the first waits")
    };
    assert_eq!(active, task);
    let claim = store.claimed(at(2), "w").await;
    let Created::Active(active) = store.with_clock(at(3)).create_task(&manual(&instance)).await.expect("answered")
    else {
        panic!("a second one while the first runs")
    };
    assert_eq!(active, claim.task);
}

async fn a_finished_task_allows_a_new_one(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let first = store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(1), "w").await;
    store.with_clock(at(2)).finish(&claim.lease, &success(10)).await.expect("ended");
    let second = store.waiting(&instance, at(3)).await;
    store.with_clock(at(4)).request_cancel(&second.project_id, &second.id).await.expect("cancelled");
    let third = store.waiting(&instance, at(5)).await;
    assert!(first.seq < second.seq && second.seq < third.seq, "{first:?} {second:?} {third:?}");
}

async fn parallel_creates_make_exactly_one_task(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let mut creates = JoinSet::new();
    for _ in 0..32 {
        let (store, new) = (store.clone(), manual(&instance));
        creates.spawn(async move { store.with_clock(at(0)).create_task(&new).await.expect("answered") });
    }
    let (mut new, mut ids) = (0, HashSet::new());
    while let Some(created) = creates.join_next().await {
        match created.expect("no panic") {
            Created::New(task) => {
                new += 1;
                ids.insert(task.id);
            }
            Created::Active(task) => drop(ids.insert(task.id)),
            Created::Paused => panic!("the instance is not paused"),
        }
    }
    assert_eq!((new, ids.len()), (1, 1));
    let page = store.tasks(&instance.id, &PageRequest { status: None, offset: 0, limit: 10 }).await.expect("read");
    assert_eq!(page.count, 1);
}

async fn a_task_needs_an_instance_of_its_project(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let other = store.project("other").await;
    let absent = plain_instance(&other, "absent");
    assert_missing(store.with_clock(at(0)).create_task(&manual(&absent)).await, "instance");
    let foreign = NewTask { project_id: other.id.clone(), ..manual(&instance) };
    assert_missing(store.with_clock(at(0)).create_task(&foreign).await, "instance");
    store.waiting(&instance, at(0)).await;
    assert_missing(store.with_clock(at(0)).create_task(&foreign).await, "instance");
}

async fn a_pause_between_the_check_and_the_creation_applies(store: Fresh) {
    let seen = store.instance_of_its_own("cache").await;
    let paused = store.paused(&seen, true).await;
    let tasks = Tasks::new(store.clone());
    let refused = tasks.submit(&seen, None).await;
    assert!(matches!(refused, Err(TaskError::Paused)), "{refused:?}");
    let all = PageRequest { status: None, offset: 0, limit: 10 };
    assert_eq!(store.tasks(&seen.id, &all).await.expect("read").count, 0);
    store.paused(&paused, false).await;
    let accepted = tasks.submit(&paused, None).await.expect("it was resumed in between");
    // A pause lets the active task finish.
    store.paused(&seen, true).await;
    assert_eq!(store.claimed(at(0), "w").await.task.id, accepted.id);
}

async fn a_task_is_unique_by_id(store: Fresh) {
    let (one, other) = (store.instance_of_its_own("one").await, store.instance_of_its_own("other").await);
    let task = store.waiting(&one, at(0)).await;
    assert_taken(store.with_clock(at(0)).create_task(&NewTask { id: task.id, ..manual(&other) }).await, "task", "id");
}

async fn a_task_is_found_in_its_own_project_only(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let task = store.waiting(&instance, at(0)).await;
    let other = store.project("other").await;
    assert_eq!(store.task(&other.id, &task.id).await.expect("read"), None);
}

/// Ten tasks: those with an even number succeed and reclaim that many keys, the others are cancelled before they start.
pub async fn history(store: &Fresh, instance: &Instance) -> Vec<Task> {
    let mut tasks = Vec::new();
    for number in 0..10 {
        let task = store.waiting(instance, at(number * 10)).await;
        if number % 2 == 0 {
            let claim = store.claimed(at(number * 10 + 1), "w").await;
            let result = success(number as u64 * 10);
            store.with_clock(at(number * 10 + 2)).finish(&claim.lease, &result).await.expect("ended");
        } else {
            store.with_clock(at(number * 10 + 1)).request_cancel(&task.project_id, &task.id).await.expect("cancelled");
        }
        tasks.insert(0, store.seen(&task).await);
    }
    tasks
}

async fn pages_are_newest_first_and_make_up_the_whole(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    // Tasks of another instance lie in between and appear in no page.
    let other = store.instance_of_its_own("other").await;
    let tasks = history(&store, &instance).await;
    store.waiting(&other, at(0)).await;
    let mut seen = Vec::new();
    for offset in (0..12).step_by(3) {
        let page = store.tasks(&instance.id, &PageRequest { status: None, offset, limit: 3 }).await.expect("read");
        assert_eq!((page.count, page.reclaimed), (10, 2 + 4 + 6 + 8), "of all pages");
        seen.extend(page.tasks);
    }
    assert_eq!(seen, tasks);
    let beyond = PageRequest { status: None, offset: u64::MAX, limit: u64::MAX };
    let page = store.tasks(&instance.id, &beyond).await.expect("read");
    assert_eq!((page.tasks, page.count), (vec![], 10), "beyond the end");
    let none = store.tasks(&instance.id, &PageRequest { status: None, offset: 0, limit: 0 }).await.expect("read");
    assert_eq!((none.tasks, none.count), (vec![], 10));
}

async fn several_instances_and_tasks_are_read_at_once_as_they_are_one_by_one(store: Fresh) {
    let project = store.project("shop").await;
    let mut instances = Vec::new();
    for name in ["never", "ended", "again"] {
        let instance = plain_instance(&project, name);
        store.add_instance(&instance).await.expect("added");
        instances.push(instance);
    }
    let mut tasks = Vec::new();
    for instance in &instances[1..] {
        tasks.push(store.waiting(instance, at(0)).await);
        let claim = store.claimed(at(1), "w").await;
        store.with_clock(at(2)).finish(&claim.lease, &success(10)).await.expect("ended");
    }
    tasks.push(store.waiting(&instances[2], at(3)).await);
    let other = store.instance_of_its_own("elsewhere").await;
    let foreign = store.waiting(&other, at(3)).await;

    let ids: Vec<String> = instances.iter().map(|instance| instance.id.clone()).collect();
    let mut newest = store.newest_tasks(&ids).await.expect("read");
    newest.sort_by_key(|task| task.seq);
    assert_eq!(newest, [store.seen(&tasks[0]).await, store.seen(&tasks[2]).await]);
    assert_eq!(store.newest_tasks(&[]).await.expect("read"), []);

    let ids: Vec<String> = tasks.iter().chain([&foreign]).map(|task| task.id.clone()).collect();
    let mut expected = Vec::new();
    for task in tasks.iter().rev() {
        expected.push(store.task(&project.id, &task.id).await.expect("read").expect("it is there"));
    }
    assert!(expected[0].report.is_none() && expected[1].report.is_some());
    assert_eq!(
        store.details(&project.id, &ids).await.expect("read"),
        expected,
        "newest first, and none of another project"
    );
}

async fn the_filter_comes_before_the_counts_and_the_page_after_them(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let tasks = history(&store, &instance).await;
    let waiting = store.waiting(&instance, at(1_000)).await;
    let expected = [(Status::Success, 5, 20), (Status::Failed, 5, 0), (Status::Waiting, 1, 0), (Status::Running, 0, 0)];
    for (status, count, released) in expected {
        let request = PageRequest { status: Some(status), offset: 1, limit: 2 };
        let page = store.tasks(&instance.id, &request).await.expect("read");
        assert_eq!((page.count, page.reclaimed), (count, released), "{status}");
        let all = [std::slice::from_ref(&waiting), &tasks].concat();
        let wanted: Vec<_> = all.into_iter().filter(|task| task.status == status).skip(1).take(2).collect();
        assert_eq!(page.tasks, wanted, "{status}");
    }
}

async fn an_empty_list_counts_nothing(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let page = store.tasks(&instance.id, &PageRequest { status: None, offset: 0, limit: 10 }).await.expect("read");
    assert_eq!((page.tasks, page.count, page.reclaimed), (vec![], 0, 0));
}

async fn cancelling_a_waiting_task_ends_it_at_once(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let task = store.waiting(&instance, at(0)).await;
    let cancelled =
        store.with_clock(at(7)).request_cancel(&task.project_id, &task.id).await.expect("done").expect("a task");
    assert_eq!((cancelled.status, cancelled.reason.clone()), (Status::Failed, Some(Reason::Cancelled)));
    assert!(cancelled.reason_detail.as_ref().is_some_and(|sentence| !sentence.is_empty()));
    assert_eq!((cancelled.started_at, cancelled.finished_at), (None, Some(time(7))));
    assert_eq!(store.seen(&task).await, cancelled);
    assert!(store.with_clock(at(8)).claim("w", LEASE, 100).await.expect("no failure").is_none(), "no worker claims it");
    let again = store.with_clock(at(9)).request_cancel(&task.project_id, &task.id).await.expect("done");
    assert_eq!(again, Some(cancelled), "once");
}

async fn cancelling_a_running_task_reaches_its_next_heartbeat(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(1), "w").await;
    let outcome = store.with_clock(at(2)).heartbeat(&claim.lease, LEASE, &heartbeat(10)).await.expect("recorded");
    assert_eq!(outcome, HeartbeatOutcome::Held { cancel_requested: false, closed_until: None });
    let task = store
        .with_clock(at(3))
        .request_cancel(&claim.task.project_id, &claim.task.id)
        .await
        .expect("done")
        .expect("a task");
    assert_eq!((task.status, task.cancel_requested, task.finished_at), (Status::Running, true, None));
    let outcome = store.with_clock(at(4)).heartbeat(&claim.lease, LEASE, &heartbeat(20)).await.expect("recorded");
    assert_eq!(outcome, HeartbeatOutcome::Held { cancel_requested: true, closed_until: None });
    // A worker that takes the task over receives the request as well.
    store.with_clock(at(5)).release_lease(&claim.lease, &heartbeat(30)).await.expect("released");
    assert!(store.claimed(at(6), "w2").await.task.cancel_requested);
}

async fn cancelling_a_finished_task_changes_nothing(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let task = store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(1), "w").await;
    store.with_clock(at(2)).finish(&claim.lease, &success(10)).await.expect("ended");
    let ended = store.seen(&task).await;
    let answer = store.with_clock(at(3)).request_cancel(&task.project_id, &task.id).await.expect("done");
    assert_eq!(answer, Some(ended.clone()));
    assert_eq!(store.seen(&task).await, ended);
}

async fn cancelling_an_absent_task_finds_nothing(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let task = store.waiting(&instance, at(0)).await;
    let other = store.project("other").await;
    assert_eq!(store.with_clock(at(1)).request_cancel(&other.id, &task.id).await.expect("done"), None);
    assert_eq!(store.with_clock(at(1)).request_cancel(&task.project_id, "absent").await.expect("done"), None);
    assert_eq!(store.seen(&task).await, task);
}

async fn a_cancel_that_races_with_a_claim_wins_or_reaches_the_worker(store: Fresh) {
    for round in 0..16 {
        let instance = store.instance_of_its_own(&format!("cache{round}")).await;
        let task = store.waiting(&instance, at(0)).await;
        let then = store.with_clock(at(1));
        let (cancelled, claimed) =
            tokio::join!(then.request_cancel(&task.project_id, &task.id), then.claim("w", LEASE, 100));
        let cancelled = cancelled.expect("done").expect("a task");
        match claimed.expect("no failure") {
            None => assert_eq!((cancelled.status, cancelled.started_at), (Status::Failed, None)),
            Some(claim) => {
                assert_eq!(cancelled.status, Status::Running);
                let outcome =
                    store.with_clock(at(2)).heartbeat(&claim.lease, LEASE, &heartbeat(1)).await.expect("recorded");
                assert_eq!(outcome, HeartbeatOutcome::Held { cancel_requested: true, closed_until: None });
                store.with_clock(at(3)).finish(&claim.lease, &success(1)).await.expect("ended");
            }
        }
    }
}

async fn a_clock_that_steps_back_ends_nothing_before_it_began(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let task = store.waiting(&instance, at(100)).await;
    let cancelled =
        store.with_clock(at(50)).request_cancel(&task.project_id, &task.id).await.expect("done").expect("a task");
    assert_eq!(cancelled.finished_at, Some(time(100)));
    store.waiting(&instance, at(100)).await;
    let claim = store.claimed(at(50), "w").await;
    assert_eq!(claim.task.started_at, Some(time(100)));
    store.with_clock(at(20)).finish(&claim.lease, &success(1)).await.expect("ended");
    assert_eq!(store.seen(&claim.task).await.finished_at, Some(time(100)));
}

async fn tasks_outlive_the_process(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let tasks = history(&store, &instance).await;
    store.waiting(&instance, at(1_000)).await;
    let claim = store.claimed(at(1_001), "w").await;
    store.with_clock(at(1_002)).heartbeat(&claim.lease, LEASE, &heartbeat(77)).await.expect("recorded");
    let detail = store.task(&claim.task.project_id, &claim.task.id).await.expect("read").expect("it is there");

    let store = store.reopened().await;
    let seen = store.task(&claim.task.project_id, &claim.task.id).await.expect("read").expect("it is there");
    assert_eq!(seen, detail);
    let page = store.tasks(&instance.id, &PageRequest { status: None, offset: 1, limit: 100 }).await.expect("read");
    assert_eq!(page.tasks, tasks);
    let outcome = store.with_clock(at(1_003)).heartbeat(&claim.lease, LEASE, &heartbeat(78)).await.expect("recorded");
    assert_eq!(
        outcome,
        HeartbeatOutcome::Held { cancel_requested: false, closed_until: None },
        "a lease outlives the process, too"
    );
    assert!(store.seen(&claim.task).await.seq > tasks[0].seq);
}
