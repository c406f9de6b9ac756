//! The audit trail: pages of it, its retention, and its entries beside the changes that they record.

use keysweep::{
    model::{AuditEntry, Instance, Project},
    store::{AuditPage, Created},
};

use crate::conformance::fresh::{Fresh, assert_taken, at, id, manual, time};

on_every_engine!(
    the_audit_trail_is_read_newest_first_page_by_page,
    the_audit_trail_is_read_by_user_and_kind_of_action,
    old_entries_of_the_audit_trail_are_removed,
    the_oldest_audit_entries_of_a_project_with_too_many_are_removed,
    a_change_and_its_audit_entry_are_committed_together_or_not_at_all,
);

fn page(before: Option<i64>, limit: u64) -> AuditPage {
    AuditPage { before, limit, ..AuditPage::default() }
}

/// Returns an entry of a project at this second.
fn entry(project_id: &str, second: i64) -> AuditEntry {
    AuditEntry {
        seq: 0,
        happened_at: time(second),
        project_id: Some(project_id.to_owned()),
        actor: None,
        action: "project.add".into(),
        subject: project_id.to_owned(),
        detail: None,
    }
}

/// Adds an entry with the change that it is about, a project with a name of its own.
async fn add(store: &Fresh, entry: AuditEntry) {
    let name = entry.happened_at.as_second().to_string();
    let made = Project { id: id(&name), name, created_at: time(0) };
    store.with_audit(vec![entry]).add_project(&made).await.expect("kept");
}

async fn the_audit_trail_is_read_newest_first_page_by_page(store: Fresh) {
    let entry = |second: i64, project: &str| AuditEntry {
        seq: 0,
        happened_at: time(second),
        project_id: Some(id(project)),
        actor: (second > 1).then(|| "ada".into()),
        action: "task.create".into(),
        subject: id("task"),
        detail: (second > 1).then(|| "{\"a\":1}".into()),
    };
    for (second, project) in [(1, "shop"), (2, "search"), (3, "shop"), (4, "shop")] {
        add(&store, entry(second, project)).await;
    }
    let first = store.audit(&id("shop"), page(None, 2)).await.expect("read");
    let seconds = |page: &[AuditEntry]| page.iter().map(|entry| entry.happened_at).collect::<Vec<_>>();
    assert_eq!(seconds(&first), [time(4), time(3)]);
    assert_eq!(AuditEntry { seq: 0, ..first[1].clone() }, entry(3, "shop"));
    let rest = store.audit(&id("shop"), page(Some(first[1].seq), 2)).await.expect("read");
    assert_eq!(seconds(&rest), [time(1)]);
    assert_eq!(store.audit(&id("other"), page(None, 2)).await.expect("read"), []);
    // As an earlier version stored it.
    let long = AuditEntry { detail: Some(format!("{{\"url\":\"{}\"}}", "x".repeat(100_000))), ..entry(5, "shop") };
    add(&store, long).await;
    let last = store.audit(&id("shop"), page(None, 1)).await.expect("read");
    assert_eq!((seconds(&last), last[0].detail.as_deref()), (vec![time(5)], Some("{\"cut\":true}")));
}

async fn the_audit_trail_is_read_by_user_and_kind_of_action(store: Fresh) {
    for (second, actor, action) in [
        (1, Some("ada"), "task.create"),
        (2, Some("bob"), "task.cancel"),
        (3, None, "tasks.other"),
        (4, Some("ada"), "user.add"),
    ] {
        let (actor, action, subject) = (actor.map(str::to_owned), action.into(), id("task"));
        add(&store, AuditEntry { actor, action, subject, ..entry(&id("shop"), second) }).await;
    }
    let actions = async |actor: Option<&str>, kind: Option<&str>| {
        let page = AuditPage { actor: actor.map(str::to_owned), kind: kind.map(str::to_owned), ..page(None, 9) };
        let entries = store.audit(&id("shop"), page).await.expect("read");
        entries.into_iter().map(|entry| entry.action).collect::<Vec<_>>()
    };
    assert_eq!(actions(Some("ada"), None).await, ["user.add", "task.create"]);
    assert_eq!(actions(None, Some("task")).await, ["task.cancel", "task.create"]);
    assert_eq!(actions(Some("bob"), Some("task")).await, ["task.cancel"]);
    assert_eq!(actions(Some("bob"), Some("%")).await, Vec::<String>::new());
    let recent = AuditPage { since: Some(time(3)), ..page(None, 9) };
    let recent = store.audit(&id("shop"), recent).await.expect("read");
    assert_eq!(recent.iter().map(|entry| entry.happened_at).collect::<Vec<_>>(), [time(4), time(3)]);
}

async fn old_entries_of_the_audit_trail_are_removed(store: Fresh) {
    let shop = store.project("shop").await;
    for second in 1..=4 {
        add(&store, entry(&shop.id, second)).await;
    }
    let removed = [store.prune_audit(time(3)).await.expect("removed"), store.prune_audit(time(3)).await.expect("none")];
    assert_eq!(removed, [2, 0]);
    let left = store.audit(&shop.id, page(None, 9)).await.expect("read");
    assert_eq!(left.iter().map(|entry| entry.happened_at).collect::<Vec<_>>(), [time(4), time(3)]);
}

async fn the_oldest_audit_entries_of_a_project_with_too_many_are_removed(store: Fresh) {
    let (shop, other) = (store.project("shop").await, store.project("other").await);
    for (second, project) in [&shop, &shop, &shop, &other, &shop, &shop].into_iter().enumerate() {
        add(&store, entry(&project.id, second as i64)).await;
    }
    assert_eq!(store.audit_excess(5).await.expect("read"), []);
    assert_eq!(store.audit_excess(3).await.expect("read"), [(shop.id.clone(), 2)]);
    assert_eq!(store.remove_oldest_audit(&shop.id, 2).await.expect("removed"), 2);
    let left = store.audit(&shop.id, page(None, 9)).await.expect("read");
    assert_eq!(left.iter().map(|entry| entry.happened_at).collect::<Vec<_>>(), [time(5), time(4), time(2)]);
    assert_eq!(store.audit(&other.id, page(None, 9)).await.expect("read").len(), 1);
}

async fn a_change_and_its_audit_entry_are_committed_together_or_not_at_all(store: Fresh) {
    let instance = store.instance_of_its_own("shop").await;
    let audited = |action: &str| {
        let entry = AuditEntry {
            seq: 0,
            happened_at: time(1),
            project_id: Some(instance.project_id.clone()),
            actor: Some("ada".into()),
            action: action.into(),
            subject: instance.id.clone(),
            detail: None,
        };
        store.with_audit(vec![entry])
    };
    let trail = || async {
        let entries = store.audit(&instance.project_id, page(None, 10)).await.expect("read");
        entries.into_iter().map(|entry| entry.action).collect::<Vec<_>>()
    };
    let paused = Instance { paused: true, ..instance.clone() };
    let task = match audited("create").with_clock(at(1)).create_task(&manual(&instance)).await.expect("created") {
        Created::New(task) => task,
        other => panic!("{other:?}"),
    };
    // A verb that has nothing to do, or fails, leaves no audit entry.
    audited("again").with_clock(at(2)).create_task(&manual(&instance)).await.expect("the active one");
    assert!(!audited("remove").remove_instance(&instance.project_id, &instance.id).await.expect("answered"));
    assert_taken(audited("add").add_instance(&instance).await, "instance", "id");
    assert_eq!(trail().await, ["create"]);

    store.lose_audit().await;
    audited("pause").update_instance(&instance, &paused).await.expect_err("its audit entry fails");
    audited("cancel")
        .with_clock(at(3))
        .request_cancel(&task.project_id, &task.id)
        .await
        .expect_err("its audit entry fails");
    assert_eq!(store.instance(&instance.project_id, &instance.id).await.expect("read"), Some(instance.clone()));
    let kept = store.task(&task.project_id, &task.id).await.expect("read").expect("a task");
    assert!(!kept.task.cancel_requested);
    store.find_audit().await;

    audited("cancel").with_clock(at(4)).request_cancel(&task.project_id, &task.id).await.expect("cancelled");
    audited("cancel again").with_clock(at(5)).request_cancel(&task.project_id, &task.id).await.expect("as it is");
    audited("pause").update_instance(&instance, &paused).await.expect("changed");
    assert_eq!(trail().await, ["pause", "cancel", "create"]);
}
