//! Documents and reasons that another version of keysweep wrote: they make no task unreadable.

use keysweep::{
    model::Reason,
    store::{Heartbeat, TaskResult},
};

use crate::conformance::fresh::{Fresh, at, heartbeat, plain_instance, success};

on_every_engine!(
    documents_of_another_version_are_left_out_of_the_list,
    a_checkpoint_of_another_version_starts_the_scan_again,
    a_reason_of_a_later_version_comes_back_as_it_stands,
);

async fn documents_of_another_version_are_left_out_of_the_list(store: Fresh) {
    let project = store.project("shop").await;
    let mut ids = Vec::new();
    for name in ["old", "new"] {
        let instance = plain_instance(&project, name);
        store.add_instance(&instance).await.expect("added");
        ids.push(store.waiting(&instance, at(0)).await.id);
        let claim = store.claimed(at(1), "w").await;
        store.with_clock(at(2)).finish(&claim.lease, &success(10)).await.expect("ended");
        if name == "old" {
            store.change_document_versions().await;
        }
    }
    let details = store.details(&project.id, &ids).await.expect("both are read");
    let [new, old] = &details[..] else { panic!("not two: {details:?}") };
    assert!(new.report.is_some() && new.documents_error.is_none(), "{new:?}");
    assert_eq!((&old.progress, &old.checkpoint, &old.report), (&None, &None, &None));
    assert!(old.documents_error.as_ref().is_some_and(|error| error.contains("version 9")), "{old:?}");
    assert_eq!((old.task.scanned, old.task.reclaimed), (10, 1), "the counts of the task itself are readable");
}

async fn a_checkpoint_of_another_version_starts_the_scan_again(store: Fresh) {
    let (first, second) = (store.instance_of_its_own("first").await, store.instance_of_its_own("second").await);
    store.waiting(&first, at(0)).await;
    let old = store.claimed(at(0), "w1").await;
    store.with_clock(at(1)).release_lease(&old.lease, &heartbeat(100)).await.expect("released");
    store.change_document_versions().await;
    let waiting = store.waiting(&second, at(2)).await;

    let again = store.claimed(at(3), "w2").await;
    assert_eq!((&again.task.id, &again.checkpoint), (&old.task.id, &None));
    assert!(!again.task.exact, "the keys that the first worker reclaimed are missing in the count of the second");
    assert_eq!(store.claimed(at(4), "w3").await.task.id, waiting.id, "other tasks are claimed as well");

    // What this version writes replaces the documents; a checkpoint of the other version does not come back.
    let bare = Heartbeat { checkpoint: None, ..heartbeat(110) };
    store.with_clock(at(5)).release_lease(&again.lease, &bare).await.expect("released");
    let next = store.claimed(at(6), "w4").await;
    assert_eq!((next.task.id, next.checkpoint), (old.task.id, None));
}

async fn a_reason_of_a_later_version_comes_back_as_it_stands(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let task = store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(1), "w").await;
    let later = Reason::Other("preempted".into());
    let failed = TaskResult { outcome: Err((later.clone(), "a larger task came".into())), ..success(10) };
    store.with_clock(at(2)).finish(&claim.lease, &failed).await.expect("ended");
    let ended = store.seen(&task).await;
    assert_eq!((ended.reason, ended.reason_detail.as_deref()), (Some(later), Some("a larger task came")));
}
