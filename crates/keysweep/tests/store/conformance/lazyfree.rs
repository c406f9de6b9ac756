//! Which tasks rely on `lazyfree-lazy-expire` in which server process.

use keysweep::model::{LazyFreeHold, Task};
use keysweep_engine::Holders;

use crate::conformance::fresh::{Fresh, at, success};

on_every_engine!(
    holders_of_a_process_are_counted,
    a_task_joins_only_a_process_with_a_holder,
    a_hold_of_a_task_that_has_ended_is_abandoned,
);

fn hold(task: &Task, run_id: &str) -> LazyFreeHold {
    LazyFreeHold { run_id: run_id.into(), task_id: task.id.clone(), address: "cache.example:6379".into() }
}

async fn holders_of_a_process_are_counted(store: Fresh) {
    let (first, second) = (store.instance_of_its_own("a").await, store.instance_of_its_own("b").await);
    let (first, second) = (store.waiting(&first, at(0)).await, store.waiting(&second, at(0)).await);
    let counted = |held_before, others| Holders { held_before, others };
    let held = |task: Task, run_id: &'static str| {
        let store = &store;
        async move { store.with_clock(at(1)).acquire_lazyfree(&hold(&task, run_id)).await.expect("held") }
    };
    assert_eq!(held(first.clone(), "run").await, counted(false, 0));
    assert_eq!(held(second.clone(), "run").await, counted(false, 1));
    assert_eq!(held(first.clone(), "run").await, counted(true, 1), "the same task again, after its worker died");
    assert_eq!(held(first.clone(), "other run").await, counted(false, 0));
    assert_eq!(store.release_lazyfree("run", &first.id).await.expect("let go"), 1);
    assert_eq!(store.release_lazyfree("run", &first.id).await.expect("nothing to let go"), 1);
    assert_eq!(store.release_lazyfree("run", &second.id).await.expect("let go"), 0);
}

async fn a_task_joins_only_a_process_with_a_holder(store: Fresh) {
    let (first, second) = (store.instance_of_its_own("a").await, store.instance_of_its_own("b").await);
    let (first, second) = (store.waiting(&first, at(0)).await, store.waiting(&second, at(0)).await);
    let joined = |held_before, others| Some(Holders { held_before, others });
    let join = |task: Task, run_id: &'static str| {
        let store = &store;
        async move { store.with_clock(at(1)).join_lazyfree(&hold(&task, run_id)).await.expect("an answer") }
    };
    assert_eq!(join(first.clone(), "run").await, None);
    assert_eq!(join(second.clone(), "run").await, None, "the first one has left no trace");
    store.with_clock(at(1)).acquire_lazyfree(&hold(&first, "run")).await.expect("held");
    assert_eq!(join(first.clone(), "run").await, joined(true, 0));
    assert_eq!(join(second.clone(), "other run").await, None);
    assert_eq!(join(second.clone(), "run").await, joined(false, 1));
    assert_eq!(store.release_lazyfree("run", &first.id).await.expect("let go"), 1, "the second is recorded");
}

async fn a_hold_of_a_task_that_has_ended_is_abandoned(store: Fresh) {
    let instance = store.instance_of_its_own("a").await;
    let task = store.waiting(&instance, at(0)).await;
    store.with_clock(at(1)).acquire_lazyfree(&hold(&task, "run")).await.expect("held");
    let claim = store.claimed(at(1), "w").await;
    assert!(store.abandoned_lazyfree().await.expect("a list").is_empty(), "its sweep may still run");
    store.with_clock(at(2)).finish(&claim.lease, &success(1)).await.expect("ended");
    assert_eq!(store.abandoned_lazyfree().await.expect("a list"), [(hold(&task, "run"), instance)]);
    store.release_lazyfree("run", &task.id).await.expect("let go");
    assert!(store.abandoned_lazyfree().await.expect("a list").is_empty());
}
