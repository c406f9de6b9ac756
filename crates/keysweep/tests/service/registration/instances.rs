//! Instances: their passwords, their schedules, and settings that cannot be read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use keysweep::{
    instances::{InstanceChange, InstanceError, NewInstance},
    model::{AutoScan, Instance, InstanceStats, Stored, is_id, now},
    secrets::VaultError,
    task::{TaskError, Tasks},
};
use secrecy::ExposeSecret;
use tokio::{runtime::Handle, task::JoinSet};

use crate::registration::installation::{Installation, holds};

#[tokio::test]
async fn a_password_is_taken_out_of_the_url_and_stored_encrypted() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let instance = opened
        .add(
            "shop",
            NewInstance {
                name: "cache",
                url: "redis://sweeper:correct%20horse@cache.example:6380/2",
                id: None,
                ..NewInstance::default()
            },
        )
        .await
        .expect("added");
    assert!(is_id(&instance.id));
    assert_eq!((instance.url.text(), instance.username.as_deref()), ("redis://cache.example:6380/2", Some("sweeper")));
    assert_eq!((instance.pace.text(), instance.paused), ("normal", false));

    let seen = opened.instances.get(&instance.project_id, &instance.id).await.expect("read").expect("an instance");
    assert_eq!(seen, instance);
    let target = opened.instances.target(&seen).expect("a target");
    assert_eq!((target.seed().to_string().as_str(), target.database), ("cache.example:6380", Some(2)));
    assert_eq!(target.credentials.username.as_deref(), Some("sweeper"));
    assert_eq!(target.credentials.password.as_ref().map(|it| it.expose_secret()), Some("correct horse"));

    let contents = installation.contents();
    assert!(holds(&contents, "cache.example"), "the instance is stored here");
    assert!(!holds(&contents, "correct horse") && !holds(&contents, "correct%20horse"));
    assert!(!format!("{seen:?}").contains("horse"));
}

#[tokio::test]
async fn a_password_moved_to_another_instance_is_not_decrypted() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let one = opened
        .add("shop", NewInstance { name: "one", url: "redis://:secret@h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let other = opened
        .add("shop", NewInstance { name: "other", url: "redis://h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let moved = Instance { password: one.password, ..other };
    let error = opened.instances.target(&moved).expect_err("moved");
    assert!(matches!(error, InstanceError::Vault(VaultError::Changed { .. })), "{error}");
}

#[tokio::test]
async fn an_instance_without_credentials_has_none() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let instance = opened
        .add("shop", NewInstance { name: "cache", url: "valkey://cache.example", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let credentials = opened.instances.credentials(&instance).expect("credentials");
    assert!(credentials.username.is_none() && credentials.password.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_of_an_auto_scan_are_merged() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let new = NewInstance { name: "cache", url: "redis://h:1", ..NewInstance::default() };
    let instance = opened.add("shop", new).await.expect("added");
    let hourly = |before| Ok::<_, InstanceError>(AutoScan { interval: Duration::from_secs(3_600), ..before });
    let calls = AtomicU32::new(0);
    // Changes of one process take turns.
    let replica = installation.open().await;
    // Between the read and the write of this change, another one sets the interval.
    let kept = opened.instances.set_auto_scan(&instance, None, |before| {
        if calls.fetch_add(1, Ordering::Relaxed) == 0 {
            let other = replica.instances.set_auto_scan(&instance, None, hourly);
            tokio::task::block_in_place(|| Handle::current().block_on(other))?;
        }
        Ok::<_, InstanceError>(AutoScan { scan_keys_count: 20, ..before })
    });
    let kept = kept.await.expect("kept");
    assert_eq!((kept.interval, kept.scan_keys_count), (Duration::from_secs(3_600), 20));
    assert_eq!(calls.into_inner(), 2, "it was called again with the other change");
    assert_eq!(opened.instances.auto_scan(&instance).await.expect("read"), Some(kept));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_auto_scan_do_not_overtake_each_other() {
    const CHANGES: u32 = 20;
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let new = NewInstance { name: "cache", url: "redis://h:1", ..NewInstance::default() };
    let instance = opened.add("shop", new).await.expect("added");
    let calls = Arc::new(AtomicU32::new(0));
    let mut changes = JoinSet::new();
    for number in 0..CHANGES {
        let (instances, instance, calls) = (opened.instances.clone(), instance.clone(), Arc::clone(&calls));
        changes.spawn(async move {
            let change = instances.set_auto_scan(&instance, None, |before| {
                calls.fetch_add(1, Ordering::Relaxed);
                Ok::<_, InstanceError>(AutoScan { scan_keys_count: 20 + number, ..before })
            });
            change.await.map(drop)
        });
    }
    for changed in changes.join_all().await {
        changed.expect("kept");
    }
    assert_eq!(calls.load(Ordering::Relaxed), CHANGES, "each is computed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_on_an_instance_that_was_removed_meanwhile_says_so() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let new = NewInstance { name: "cache", url: "redis://h:1", ..NewInstance::default() };
    let instance = opened.add("shop", new).await.expect("added");
    assert!(opened.store.remove_instance(&instance.project_id, &instance.id).await.expect("removed"));
    let set = opened.instances.set_auto_scan(&instance, None, Ok::<_, InstanceError>).await;
    assert!(matches!(set, Err(InstanceError::Gone("instance"))), "{set:?}");
    let created = Tasks::new(opened.store.clone()).submit(&instance, None).await;
    assert!(matches!(created, Err(TaskError::NoInstance)), "{created:?}");
}

#[tokio::test]
async fn a_server_that_cannot_be_scanned_gets_neither_a_task_nor_an_auto_scan() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let new = NewInstance { name: "cache", url: "redis://h:1", ..NewInstance::default() };
    let instance = opened.add("shop", new).await.expect("added");
    opened.store.record_stats(&instance, &InstanceStats::of_other_engine(now())).await.expect("recorded");
    let [instance] = opened.list("shop").await.try_into().expect("an instance");

    let error = Tasks::new(opened.store.clone()).submit(&instance, None).await.expect_err("unsupported");
    assert!(matches!(error, TaskError::Unsupported { .. }), "{error}");
    let set = async |enabled| {
        let update = |before| Ok::<_, InstanceError>(AutoScan { enabled, first_scan_at: Some(now()), ..before });
        opened.instances.set_auto_scan(&instance, None, update).await
    };
    let error = set(true).await.expect_err("unsupported");
    assert!(matches!(error, InstanceError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("cache"), "{error}");
    assert!(!set(false).await.expect("disabling is possible").enabled);
}

#[tokio::test]
async fn an_unreadable_setting_is_named_and_ends_no_list() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    for name in ["bad", "good"] {
        let new = NewInstance { name, url: "redis://h:1", ..NewInstance::default() };
        opened.add("shop", new).await.expect("added");
    }
    let [bad, good] = opened.list("shop").await.try_into().expect("two instances");
    // As a row that was changed by hand, or by a later version.
    let changed = Instance {
        url: Stored::read("h:1"),
        pace: Stored::read("gentel"),
        window: Some(Stored::read("02:00-05:00 Mars/Olympus")),
        ..bad.clone()
    };
    opened.store.update_instance(&bad, &changed).await.expect("changed");
    let [bad, still_good] = opened.list("shop").await.try_into().expect("two instances");
    assert_eq!(still_good, good);
    let problems = bad.problems();
    for (problem, parts) in problems.iter().zip([["url", "scheme"], ["pace", "gentel"], ["window", "Mars/Olympus"]]) {
        assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
    }
    assert_eq!(problems.len(), 3);
    let error = opened.instances.target(&bad).expect_err("unreadable");
    assert!(matches!(error, InstanceError::Unreadable { .. }) && error.to_string().contains("\"bad\""), "{error}");
    // A change of another setting keeps the unreadable ones as they are.
    let change = InstanceChange { name: Some("worse".into()), ..Default::default() };
    let renamed = opened.instances.change(&bad, change, None).await.expect("changed");
    assert_eq!(renamed.problems(), problems);
}
