//! Which tasks rely on `lazyfree-lazy-expire` in which server process.

use keysweep::model::{LazyFreeHold, Task};
use keysweep_engine::Holders;

use crate::conformance::fresh::{Fresh, at, success};

on_every_engine!(
    holders_of_a_process_are_counted,
    servers_that_name_the_same_run_id_are_counted_apart,
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
    assert_eq!(store.release_lazyfree(&hold(&first, "run")).await.expect("released"), 1);
    assert_eq!(store.release_lazyfree(&hold(&first, "run")).await.expect("nothing to release"), 1);
    assert_eq!(store.release_lazyfree(&hold(&second, "run")).await.expect("released"), 0);
}

async fn servers_that_name_the_same_run_id_are_counted_apart(store: Fresh) {
    let (honest, liar) = (store.instance_of_its_own("a").await, store.instance_of_its_own("b").await);
    let (honest, liar) = (store.waiting(&honest, at(0)).await, store.waiting(&liar, at(0)).await);
    let elsewhere = |task| LazyFreeHold { address: "liar.example:6379".into(), ..hold(task, "run") };
    let alone = Holders { held_before: false, others: 0 };
    let store = store.with_clock(at(1));
    assert_eq!(store.acquire_lazyfree(&hold(&honest, "run")).await.expect("held"), alone);
    assert_eq!(store.join_lazyfree(&elsewhere(&liar)).await.expect("an answer"), None, "nothing was turned on there");
    assert_eq!(store.acquire_lazyfree(&elsewhere(&liar)).await.expect("held"), alone);
    assert_eq!(store.acquire_lazyfree(&elsewhere(&honest)).await.expect("held").others, 1, "two nodes of one task");
    assert_eq!(store.release_lazyfree(&elsewhere(&honest)).await.expect("released"), 1);
    assert_eq!(store.release_lazyfree(&hold(&honest, "run")).await.expect("released"), 0, "the setting is restored");
    assert_eq!(store.join_lazyfree(&elsewhere(&liar)).await.expect("an answer").expect("recorded").others, 0);
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
    assert_eq!(store.release_lazyfree(&hold(&first, "run")).await.expect("released"), 1, "the second is recorded");
}

async fn a_hold_of_a_task_that_has_ended_is_abandoned(store: Fresh) {
    let instance = store.instance_of_its_own("a").await;
    let task = store.waiting(&instance, at(0)).await;
    store.with_clock(at(1)).acquire_lazyfree(&hold(&task, "run")).await.expect("held");
    let claim = store.claimed(at(1), "w").await;
    assert!(store.abandoned_lazyfree().await.expect("a list").is_empty(), "its sweep may still run");
    store.with_clock(at(2)).finish(&claim.lease, &success(1)).await.expect("ended");
    assert_eq!(store.abandoned_lazyfree().await.expect("a list"), [(hold(&task, "run"), instance)]);
    store.release_lazyfree(&hold(&task, "run")).await.expect("released");
    assert!(store.abandoned_lazyfree().await.expect("a list").is_empty());
}
