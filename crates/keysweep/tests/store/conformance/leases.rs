//! Claims, takeovers, and the fence against old leases.

use std::{collections::HashSet, time::Duration};

use keysweep::{
    model::{Instance, Lease, Reason, Status},
    store::{Claim, Heartbeat, HeartbeatOutcome, MAX_ATTEMPTS, TaskResult},
};
use tokio::task::JoinSet;

use crate::conformance::fresh::{Fresh, LEASE, at, heartbeat, success, time};

on_every_engine!(
    a_claim_starts_the_oldest_waiting_task,
    without_a_task_there_is_no_claim,
    parallel_claims_never_give_a_task_twice,
    a_held_lease_excludes_other_workers_until_it_expires,
    a_heartbeat_renews_the_lease,
    an_expired_lease_is_renewed_unless_it_was_taken_over,
    a_released_lease_is_taken_over_at_once_with_exact_counts,
    taking_over_an_expired_lease_continues_from_the_last_heartbeat,
    an_orphaned_task_comes_before_a_younger_one_that_waits,
    a_verb_whose_lease_is_lost_keeps_nothing_locked,
    an_old_lease_changes_nothing,
    a_lease_is_its_owners_its_tasks_and_its_instances,
    the_epoch_grows_across_tasks,
    counts_never_go_back_and_documents_stay_until_replaced,
    an_inexact_count_stays_inexact,
    a_success_is_recorded_once_with_its_report,
    a_failed_task_keeps_its_reason_and_its_counts,
    five_takeovers_in_a_row_without_progress_crash_the_task,
    progress_resets_the_attempts,
    releasing_the_lease_resets_the_attempts,
);

const HELD: HeartbeatOutcome = HeartbeatOutcome::Held { cancel_requested: false, closed_until: None };

async fn a_claim_starts_the_oldest_waiting_task(store: Fresh) {
    // By name and by time the order would be another: the order of creation decides.
    let (first, second) = (store.instance_of_its_own("z").await, store.instance_of_its_own("a").await);
    let older = store.waiting(&first, at(10)).await;
    let younger = store.waiting(&second, at(5)).await;
    let claim = store.claimed(at(20), "w").await;
    assert_eq!(claim.task.id, older.id);
    assert_eq!((claim.task.status, claim.task.started_at), (Status::Running, Some(time(20))));
    assert_eq!(claim.lease.owner, "w");
    assert_eq!((claim.instance, claim.checkpoint), (first, None));
    assert_eq!(store.seen(&older).await, claim.task);
    assert_eq!(store.claimed(at(21), "w").await.task.id, younger.id);
}

async fn without_a_task_there_is_no_claim(store: Fresh) {
    assert!(store.with_clock(at(0)).claim("w", LEASE, 100).await.expect("no failure").is_none());
    let instance = store.instance_of_its_own("cache").await;
    store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(1), "w").await;
    store.with_clock(at(2)).finish(&claim.lease, &success(1)).await.expect("ended");
    assert!(store.with_clock(at(1_000)).claim("w", LEASE, 100).await.expect("no failure").is_none());
}

async fn parallel_claims_never_give_a_task_twice(store: Fresh) {
    let mut expected = HashSet::new();
    for number in 0..8 {
        let instance = store.instance_of_its_own(&format!("cache{number}")).await;
        expected.insert(store.waiting(&instance, at(0)).await.id);
    }
    let mut claims = JoinSet::new();
    for number in 0..24 {
        let store = store.clone();
        claims.spawn(async move {
            store.with_clock(at(1)).claim(&format!("w{number}"), LEASE, 100).await.expect("no failure")
        });
    }
    let claimed: Vec<_> = claims.join_all().await.into_iter().flatten().map(|claim| claim.task.id).collect();
    assert_eq!(claimed.len(), 8);
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), expected);
}

/// A task of this instance that "w1" has run since second 0, with this many scanned keys.
async fn running(store: &Fresh, instance: &Instance, scanned: u64) -> Claim {
    store.waiting(instance, at(0)).await;
    let claim = store.claimed(at(0), "w1").await;
    assert_eq!(
        store.with_clock(at(0)).heartbeat(&claim.lease, LEASE, &heartbeat(scanned)).await.expect("recorded"),
        HELD
    );
    claim
}

async fn is_free(store: &Fresh, second: i64) -> bool {
    store.with_clock(at(second)).claim("probe", LEASE, 100).await.expect("no failure").is_some()
}

async fn a_held_lease_excludes_other_workers_until_it_expires(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.waiting(&instance, at(0)).await;
    store.claimed(at(0), "w1").await;
    assert!(!is_free(&store, 0).await && !is_free(&store, 14).await);
    assert!(is_free(&store, 15).await);
}

async fn a_heartbeat_renews_the_lease(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let claim = running(&store, &instance, 1).await;
    assert_eq!(store.with_clock(at(10)).heartbeat(&claim.lease, LEASE, &heartbeat(2)).await.expect("recorded"), HELD);
    assert!(!is_free(&store, 24).await);
    assert!(is_free(&store, 25).await);
}

async fn an_expired_lease_is_renewed_unless_it_was_taken_over(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let claim = running(&store, &instance, 1).await;
    assert_eq!(store.with_clock(at(100)).heartbeat(&claim.lease, LEASE, &heartbeat(2)).await.expect("recorded"), HELD);
    assert!(!is_free(&store, 114).await);
}

async fn a_released_lease_is_taken_over_at_once_with_exact_counts(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let first = running(&store, &instance, 10).await;
    assert_eq!(store.with_clock(at(5)).release_lease(&first.lease, &heartbeat(50)).await.expect("released"), HELD);
    assert_eq!(store.seen(&first.task).await.status, Status::Running, "once started it stays running");
    let second = store.claimed(at(5), "w2").await;
    assert_eq!((second.task.id.as_str(), second.task.started_at), (first.task.id.as_str(), Some(time(0))));
    assert_eq!((second.task.scanned, second.task.reclaimed, second.task.exact), (50, 5, true));
    assert_eq!((second.task.used, second.task.attempts), (Duration::from_millis(50), 0));
    assert_eq!(second.checkpoint.as_deref(), Some("{\"cursor\":50}"));
    assert_eq!(second.lease.epoch, first.lease.epoch + 1);
}

async fn taking_over_an_expired_lease_continues_from_the_last_heartbeat(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let first = running(&store, &instance, 10).await;
    let second = store.claimed(at(15), "w2").await;
    assert_eq!((second.task.id.as_str(), second.task.started_at), (first.task.id.as_str(), Some(time(0))));
    assert_eq!((second.task.scanned, second.task.reclaimed), (10, 1));
    assert_eq!(second.checkpoint.as_deref(), Some("{\"cursor\":10}"));
    assert!(!second.task.exact, "what was released after the last heartbeat is in no count");
    assert_eq!(second.lease.epoch, first.lease.epoch + 1);
    assert_eq!(store.seen(&first.task).await, second.task);
}

async fn an_orphaned_task_comes_before_a_younger_one_that_waits(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let orphaned = running(&store, &instance, 10).await;
    let other = store.instance_of_its_own("other").await;
    let waiting = store.waiting(&other, at(1)).await;
    assert_eq!(store.claimed(at(20), "w2").await.task.id, orphaned.task.id);
    assert_eq!(store.claimed(at(20), "w2").await.task.id, waiting.id);
}

/// Checks that every verb that changes a running task reports this lease as lost.
async fn assert_fenced(store: &Fresh, lease: &Lease) {
    let result = TaskResult {
        outcome: Err((Reason::Internal, "no".into())),
        heartbeat: heartbeat(9_999),
        report: Some("{}".into()),
    };
    let pulses = [
        store.with_clock(at(30)).heartbeat(lease, LEASE, &heartbeat(9_999)).await,
        store.with_clock(at(30)).release_lease(lease, &heartbeat(9_999)).await,
        store.with_clock(at(30)).finish(lease, &result).await,
    ];
    for outcome in pulses {
        assert_eq!(outcome.expect("no failure"), HeartbeatOutcome::Lost, "{lease:?}");
    }
}

/// A lock that outlives its verb for a moment hides the task from the next claim: not each time, hence the rounds.
async fn a_verb_whose_lease_is_lost_keeps_nothing_locked(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let old = running(&store, &instance, 10).await.lease;
    let mut held = store.claimed(at(20), "w2").await.lease;
    for _ in 0..40 {
        store.with_clock(at(20)).release_lease(&held, &heartbeat(11)).await.expect("released");
        assert_fenced(&store, &old).await;
        held = store.claimed(at(20), "w2").await.lease;
    }
}

async fn an_old_lease_changes_nothing(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let first = running(&store, &instance, 10).await;
    let second = store.claimed(at(20), "w2").await;
    let before = store.task(&instance.project_id, &first.task.id).await.expect("read");
    assert_fenced(&store, &first.lease).await;
    let after = store.task(&instance.project_id, &first.task.id).await.expect("read");
    assert_eq!(after, before);
    assert!(!is_free(&store, 34).await, "the new lease is neither given back nor shortened");
    assert_eq!(store.with_clock(at(34)).heartbeat(&second.lease, LEASE, &heartbeat(11)).await.expect("recorded"), HELD);

    store.with_clock(at(35)).release_lease(&second.lease, &heartbeat(12)).await.expect("released");
    assert_fenced(&store, &second.lease).await;
    let third = store.claimed(at(36), "w1").await;
    assert_fenced(&store, &first.lease).await;
    store.with_clock(at(37)).finish(&third.lease, &success(20)).await.expect("ended");
    let before = store.task(&instance.project_id, &first.task.id).await.expect("read");
    for lease in [&first.lease, &second.lease, &third.lease] {
        assert_fenced(&store, lease).await;
    }
    let after = store.task(&instance.project_id, &first.task.id).await.expect("read");
    assert_eq!(after, before);
}

async fn a_lease_is_its_owners_its_tasks_and_its_instances(store: Fresh) {
    let (one, other) = (store.instance_of_its_own("one").await, store.instance_of_its_own("other").await);
    let lease = running(&store, &one, 10).await.lease;
    let foreign = running(&store, &other, 10).await.lease;
    for forged in [
        Lease { owner: "w2".into(), ..lease.clone() },
        Lease { epoch: lease.epoch + 1, ..lease.clone() },
        Lease { epoch: lease.epoch - 1, ..lease.clone() },
        Lease { task_id: foreign.task_id.clone(), ..lease.clone() },
        Lease { instance_id: foreign.instance_id.clone(), ..lease.clone() },
    ] {
        assert_fenced(&store, &forged).await;
    }
    for lease in [lease, foreign] {
        assert_eq!(store.with_clock(at(1)).heartbeat(&lease, LEASE, &heartbeat(11)).await.expect("recorded"), HELD);
    }
}

async fn the_epoch_grows_across_tasks(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let mut last = 0;
    for second in 0..3 {
        store.waiting(&instance, at(second)).await;
        let claim = store.claimed(at(second), "w").await;
        assert!(claim.lease.epoch > last, "{} after {last}", claim.lease.epoch);
        last = claim.lease.epoch;
        store.with_clock(at(second)).finish(&claim.lease, &success(1)).await.expect("ended");
        assert_fenced(&store, &claim.lease).await;
    }
}

async fn counts_never_go_back_and_documents_stay_until_replaced(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let claim = running(&store, &instance, 100).await;
    let silent = Heartbeat { progress: None, checkpoint: None, ..heartbeat(40) };
    assert_eq!(store.with_clock(at(1)).heartbeat(&claim.lease, LEASE, &silent).await.expect("recorded"), HELD);
    let detail = store.task(&instance.project_id, &claim.task.id).await.expect("read").expect("it is there");
    assert_eq!((detail.task.used, detail.task.reclaimed, detail.task.scanned), (Duration::from_millis(100), 10, 100));
    assert_eq!(detail.progress.as_deref(), Some("{\"scanned\":100}"));
    assert_eq!(detail.checkpoint.as_deref(), Some("{\"cursor\":100}"));
    let half = Heartbeat { progress: None, ..heartbeat(200) };
    assert_eq!(store.with_clock(at(2)).heartbeat(&claim.lease, LEASE, &half).await.expect("recorded"), HELD);
    let detail = store.task(&instance.project_id, &claim.task.id).await.expect("read").expect("it is there");
    assert_eq!((detail.task.used, detail.task.reclaimed, detail.task.scanned), (Duration::from_millis(200), 20, 200));
    assert_eq!(detail.progress.as_deref(), Some("{\"scanned\":100}"));
    assert_eq!(detail.checkpoint.as_deref(), Some("{\"cursor\":200}"));
}

async fn an_inexact_count_stays_inexact(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let claim = running(&store, &instance, 1).await;
    assert!(store.seen(&claim.task).await.exact);
    for exact in [false, true] {
        store
            .with_clock(at(1))
            .heartbeat(&claim.lease, LEASE, &Heartbeat { exact, ..heartbeat(2) })
            .await
            .expect("recorded");
        assert!(!store.seen(&claim.task).await.exact);
    }
}

async fn a_success_is_recorded_once_with_its_report(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let claim = running(&store, &instance, 10).await;
    assert_eq!(store.with_clock(at(9)).finish(&claim.lease, &success(70)).await.expect("ended"), HELD);
    let detail = store.task(&instance.project_id, &claim.task.id).await.expect("read").expect("it is there");
    let task = &detail.task;
    assert_eq!((task.status, &task.reason, task.reason_detail.as_ref()), (Status::Success, &None, None));
    assert_eq!((task.started_at, task.finished_at), (Some(time(0)), Some(time(9))));
    assert_eq!((task.scanned, task.reclaimed, task.used), (70, 7, Duration::from_millis(70)));
    assert_eq!(detail.report.as_deref(), Some("{\"outcome\":\"done\"}"));
    assert_eq!(detail.progress.as_deref(), Some("{\"scanned\":70}"));
    assert_eq!(
        store.with_clock(at(10)).finish(&claim.lease, &success(80)).await.expect("no failure"),
        HeartbeatOutcome::Lost
    );
    assert_eq!(store.task(&instance.project_id, &claim.task.id).await.expect("read"), Some(detail));
}

async fn a_failed_task_keeps_its_reason_and_its_counts(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    for reason in Reason::ALL {
        store.waiting(&instance, at(0)).await;
        let claim = store.claimed(at(0), "w").await;
        let result =
            TaskResult { outcome: Err((reason.clone(), "a sentence".into())), heartbeat: heartbeat(30), report: None };
        assert_eq!(store.with_clock(at(1)).finish(&claim.lease, &result).await.expect("ended"), HELD);
        let detail = store.task(&instance.project_id, &claim.task.id).await.expect("read").expect("it is there");
        assert_eq!((detail.task.status, detail.task.reason), (Status::Failed, Some(reason.clone())));
        assert_eq!(detail.task.reason_detail.as_deref(), Some("a sentence"));
        assert_eq!((detail.task.reclaimed, detail.report), (3, None));
    }
}

async fn five_takeovers_in_a_row_without_progress_crash_the_task(store: Fresh) {
    let (cursed, healthy) = (store.instance_of_its_own("cursed").await, store.instance_of_its_own("healthy").await);
    let task = store.waiting(&cursed, at(0)).await;
    let mut lease = store.claimed(at(0), "w0").await.lease;
    let next = store.waiting(&healthy, at(0)).await;
    for attempt in 1..MAX_ATTEMPTS {
        let claim = store.claimed(at(i64::from(attempt) * 20), &format!("w{attempt}")).await;
        assert_eq!((&claim.task.id, claim.task.attempts), (&task.id, attempt));
        lease = claim.lease;
    }
    let claim = store.claimed(at(100), "w5").await;
    assert_eq!(claim.task.id, next.id, "the next one is looked for");
    let crashed = store.seen(&task).await;
    assert_eq!(
        (crashed.status, crashed.reason.clone(), crashed.attempts),
        (Status::Failed, Some(Reason::Crashed), MAX_ATTEMPTS)
    );
    assert!(crashed.reason_detail.as_ref().is_some_and(|sentence| sentence.contains("without getting any further")));
    assert_eq!((crashed.started_at, crashed.finished_at, crashed.exact), (Some(time(0)), Some(time(100)), false));
    assert_fenced(&store, &lease).await;
    assert_eq!(store.seen(&task).await, crashed);
    let fresh = store.waiting(&cursed, at(101)).await;
    assert_eq!(store.claimed(at(101), "w6").await.task.id, fresh.id, "its instance is free again");
}

async fn progress_resets_the_attempts(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.waiting(&instance, at(0)).await;
    store.claimed(at(0), "w0").await;
    for attempt in 1..MAX_ATTEMPTS {
        assert_eq!(store.claimed(at(i64::from(attempt) * 20), "w").await.task.attempts, attempt);
    }
    let lease = store.with_clock(at(80)).claim("w", LEASE, 100).await.expect("no failure");
    assert!(lease.is_none(), "still held");
    // The last worker scanned one more key before it died.
    let last = Lease {
        instance_id: instance.id.clone(),
        task_id: active(&store, &instance).await,
        owner: "w".into(),
        epoch: 5,
    };
    assert_eq!(store.with_clock(at(81)).heartbeat(&last, LEASE, &heartbeat(1)).await.expect("recorded"), HELD);
    assert_eq!(store.claimed(at(100), "w").await.task.attempts, 0);
    // Progress counts from the last claim, not from the start of the task.
    assert_eq!(store.claimed(at(120), "w").await.task.attempts, 1);
}

async fn active(store: &Fresh, instance: &Instance) -> String {
    let answer =
        store.with_clock(at(0)).create_task(&crate::conformance::fresh::manual(instance)).await.expect("answered");
    match answer {
        keysweep::store::Created::Active(task) => task.id,
        other => panic!("{other:?}"),
    }
}

async fn releasing_the_lease_resets_the_attempts(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.waiting(&instance, at(0)).await;
    store.claimed(at(0), "w0").await;
    let claim = store.claimed(at(20), "w1").await;
    assert_eq!(claim.task.attempts, 1);
    // A graceful shutdown before any progress is no crash.
    store
        .with_clock(at(21))
        .release_lease(&claim.lease, &Heartbeat { exact: true, ..Heartbeat::default() })
        .await
        .expect("released");
    assert_eq!(store.claimed(at(22), "w2").await.task.attempts, 0);
}
