//! Changes of users and access keys, tokens, remembered signatures, and the audit trail.

use keysweep::{
    model::{AccessKey, AuditEntry, Grant, Instance, Project, Role, Sealed, Token, User},
    store::{AuditPage, Created, TokenBounds},
};

use crate::conformance::fresh::{Fresh, assert_missing, assert_taken, at, id, manual, time};

on_every_engine!(
    users_are_listed_by_name_with_their_roles,
    a_change_of_a_user_ends_the_users_tokens,
    a_new_password_does_not_enable_a_disabled_user_and_disabling_keeps_the_password,
    a_removed_user_leaves_no_role_key_or_token_behind,
    a_role_is_given_changed_and_taken_away,
    a_project_with_instances_stays,
    keys_are_listed_disabled_and_removed,
    a_token_identifies_its_user_and_role_until_it_is_revoked,
    an_outdated_password_gets_no_token,
    old_tokens_are_forgotten_when_new_ones_are_kept,
    a_user_with_as_many_tokens_as_may_be_loses_the_oldest_for_a_new_one,
    a_signature_is_new_once_until_its_time_is_over,
    the_audit_trail_is_read_newest_first_page_by_page,
    the_audit_trail_is_read_by_user_and_kind_of_action,
    old_entries_of_the_audit_trail_are_removed,
    the_oldest_audit_entries_of_a_project_with_too_many_are_removed,
    a_change_and_its_audit_entry_are_committed_together_or_not_at_all,
);

/// Of ada's first password.
const HASH: &str = "$first$";

async fn ada(store: &Fresh, grants: &[Grant]) -> User {
    let password_hash = Some(HASH.into());
    let user = User { id: id("ada"), name: "ada".into(), password_hash, disabled: false, created_at: time(1) };
    store.add_user(&user, grants).await.expect("added");
    user
}

fn grant(project: &Project, role: Role) -> Grant {
    Grant { project_id: project.id.clone(), role }
}

fn key(access: &str, user: &User) -> AccessKey {
    let secret = Sealed(vec![1, 2, 3]);
    AccessKey { access: access.into(), user_id: user.id.clone(), secret, disabled: false, created_at: time(2) }
}

fn token(name: &str, user: &User, project: &Project) -> Token {
    Token {
        hash: name.into(),
        user_id: user.id.clone(),
        project_id: project.id.clone(),
        issued_at: time(10),
        expires_at: time(20),
    }
}

/// Bounds that keep tokens that expired at this time or later.
fn since(second: i64) -> TokenBounds {
    TokenBounds { forget_before: time(second), most_of_a_user: 1_000 }
}

async fn users_are_listed_by_name_with_their_roles(store: Fresh) {
    assert_eq!(store.users().await.expect("read"), []);
    let shop = store.project("shop").await;
    let bob = User { id: id("bob"), name: "bob".into(), password_hash: None, disabled: true, created_at: time(1) };
    store.add_user(&bob, &[]).await.expect("added");
    let ada = ada(&store, &[grant(&shop, Role::Operator)]).await;
    let users = store.users().await.expect("read");
    assert_eq!(users.iter().map(|found| &found.user).collect::<Vec<_>>(), [&ada, &bob]);
    assert_eq!((users[0].grants.as_slice(), users[1].grants.len()), (&[grant(&shop, Role::Operator)][..], 0));
}

async fn a_change_of_a_user_ends_the_users_tokens(store: Fresh) {
    let shop = store.project("shop").await;
    let ada = ada(&store, &[grant(&shop, Role::Reader)]).await;
    assert!(store.add_token(&token("t", &ada, &shop), HASH, since(0)).await.expect("kept"));
    store.set_password(&ada.id, Some("$new$")).await.expect("changed");
    assert!(store.token_holder(b"t").await.expect("read").is_none());
    store.set_password(&ada.id, Some(HASH)).await.expect("changed");
    assert!(store.add_token(&token("t", &ada, &shop), HASH, since(0)).await.expect("kept"));
    store.disable_user(&ada.id, false).await.expect("changed");
    assert!(store.token_holder(b"t").await.expect("read").is_none());
    assert_missing(store.set_password(&id("nobody"), None).await, "user");
    assert_missing(store.disable_user(&id("nobody"), true).await, "user");
}

async fn a_new_password_does_not_enable_a_disabled_user_and_disabling_keeps_the_password(store: Fresh) {
    let ada = ada(&store, &[]).await;
    store.disable_user(&ada.id, true).await.expect("changed");
    store.set_password(&ada.id, Some("$new$")).await.expect("changed");
    let changed = User { password_hash: Some("$new$".into()), disabled: true, ..ada };
    assert_eq!(store.user("ada").await.expect("read"), Some(changed.clone()));
    store.disable_user(&changed.id, false).await.expect("changed");
    assert_eq!(store.user("ada").await.expect("read"), Some(User { disabled: false, ..changed }));
}

async fn a_removed_user_leaves_no_role_key_or_token_behind(store: Fresh) {
    let shop = store.project("shop").await;
    let ada = ada(&store, &[grant(&shop, Role::Reader)]).await;
    store.add_access_key(&key("KEY", &ada)).await.expect("added");
    assert!(store.add_token(&token("t", &ada, &shop), HASH, since(0)).await.expect("kept"));
    store.remove_user(&ada.id).await.expect("removed");
    assert!(store.user("ada").await.expect("read").is_none());
    assert!(store.key_holder("KEY").await.expect("read").is_none());
    assert!(store.token_holder(b"t").await.expect("read").is_none());
    assert_missing(store.remove_user(&ada.id).await, "user");
}

async fn a_role_is_given_changed_and_taken_away(store: Fresh) {
    let (shop, search) = (store.project("shop").await, store.project("search").await);
    let ada = ada(&store, &[grant(&shop, Role::Reader)]).await;
    store.grant(&ada.id, &grant(&shop, Role::Admin)).await.expect("changed");
    store.grant(&ada.id, &grant(&search, Role::Operator)).await.expect("given");
    assert!(store.add_token(&token("t", &ada, &shop), HASH, since(0)).await.expect("kept"));
    assert!(store.add_token(&token("u", &ada, &search), HASH, since(0)).await.expect("kept"));
    let mut grants = store.users().await.expect("read").remove(0).grants;
    grants.sort_by_key(|grant| grant.role);
    assert_eq!(grants, [grant(&search, Role::Operator), grant(&shop, Role::Admin)]);

    store.revoke(&ada.id, &shop.id).await.expect("taken away");
    assert!(store.token_holder(b"t").await.expect("read").is_none(), "its token is ended");
    assert!(store.token_holder(b"u").await.expect("read").is_some(), "another project's is not");
    assert_missing(store.revoke(&ada.id, &shop.id).await, "role");
    let absent = Grant { project_id: id("absent"), role: Role::Admin };
    assert_missing(store.grant(&ada.id, &absent).await, "user or project");
}

async fn a_project_with_instances_stays(store: Fresh) {
    let instance = store.instance_of_its_own("shop").await;
    assert!(!store.remove_project(&instance.project_id).await.expect("answered"));
    assert!(store.remove_instance(&instance.project_id, &instance.id).await.expect("removed"));
    let project = store.projects().await.expect("read").remove(0);
    ada(&store, &[grant(&project, Role::Admin)]).await;
    assert!(store.remove_project(&project.id).await.expect("removed"));
    assert_eq!(store.users().await.expect("read").remove(0).grants, [], "roles on it are gone");
    assert_missing(store.remove_project(&project.id).await, "project");
}

async fn keys_are_listed_disabled_and_removed(store: Fresh) {
    let ada = ada(&store, &[]).await;
    store.add_access_key(&key("ONE", &ada)).await.expect("added");
    store.add_access_key(&key("TWO", &ada)).await.expect("added");
    store.disable_access_key("TWO", true).await.expect("disabled");
    let two = AccessKey { disabled: true, ..key("TWO", &ada) };
    assert_eq!(store.access_keys().await.expect("read"), [key("ONE", &ada), two]);
    store.remove_access_key("ONE").await.expect("removed");
    assert!(store.key_holder("ONE").await.expect("read").is_none());
    assert_missing(store.remove_access_key("ONE").await, "access key");
    assert_missing(store.disable_access_key("ONE", false).await, "access key");
}

async fn a_token_identifies_its_user_and_role_until_it_is_revoked(store: Fresh) {
    let shop = store.project("shop").await;
    let ada = ada(&store, &[grant(&shop, Role::Operator)]).await;
    assert!(store.add_token(&token("t", &ada, &shop), HASH, since(0)).await.expect("kept"));
    let holder = store.token_holder(b"t").await.expect("read").expect("a holder");
    assert_eq!((holder.token, holder.user, holder.role), (token("t", &ada, &shop), ada.clone(), Some(Role::Operator)));
    assert!(store.token_holder(b"other").await.expect("read").is_none());
    assert!(store.revoke_token(b"t").await.expect("revoked"));
    assert!(!store.revoke_token(b"t").await.expect("answered"), "it is gone");
    let absent = Project { id: id("absent"), ..shop };
    assert_missing(store.add_token(&token("t", &ada, &absent), HASH, since(0)).await, "project");
}

async fn an_outdated_password_gets_no_token(store: Fresh) {
    let shop = store.project("shop").await;
    let ada = ada(&store, &[grant(&shop, Role::Operator)]).await;
    let add = |name: &'static str, hash: &'static str| {
        let token = token(name, &ada, &shop);
        let store = &store;
        async move { store.add_token(&token, hash, since(0)).await.expect("answered") }
    };
    store.set_password(&ada.id, Some("$new$")).await.expect("changed");
    assert!(!add("old", HASH).await && store.token_holder(b"old").await.expect("read").is_none());
    assert!(add("new", "$new$").await);
    store.disable_user(&ada.id, true).await.expect("changed");
    assert!(!add("disabled", "$new$").await);
    store.disable_user(&ada.id, false).await.expect("changed");
    store.set_password(&ada.id, None).await.expect("changed");
    assert!(!add("none", "$new$").await);
    // At the same time: the token is not added, or the change revokes it.
    for _ in 0..20 {
        store.set_password(&ada.id, Some(HASH)).await.expect("changed");
        let (_, changed) = tokio::join!(add("race", HASH), store.set_password(&ada.id, Some("$new$")));
        changed.expect("changed");
        assert!(store.token_holder(b"race").await.expect("read").is_none());
    }
    store.remove_user(&ada.id).await.expect("removed");
    assert!(!add("gone", "$new$").await);
}

async fn old_tokens_are_forgotten_when_new_ones_are_kept(store: Fresh) {
    let shop = store.project("shop").await;
    let ada = ada(&store, &[grant(&shop, Role::Operator)]).await;
    assert!(store.add_token(&token("old", &ada, &shop), HASH, since(0)).await.expect("kept"));
    assert!(store.add_token(&token("new", &ada, &shop), HASH, since(20)).await.expect("kept"));
    assert!(store.token_holder(b"old").await.expect("read").is_some(), "it ended at that time, not before");
    assert!(store.add_token(&token("newer", &ada, &shop), HASH, since(21)).await.expect("kept"));
    assert!(store.token_holder(b"old").await.expect("read").is_none());
}

async fn a_user_with_as_many_tokens_as_may_be_loses_the_oldest_for_a_new_one(store: Fresh) {
    let shop = store.project("shop").await;
    let ada = ada(&store, &[grant(&shop, Role::Operator)]).await;
    let bob = User { id: id("bob"), name: "bob".into(), ..ada.clone() };
    store.add_user(&bob, &[grant(&shop, Role::Operator)]).await.expect("added");
    let bounds = TokenBounds { most_of_a_user: 3, ..since(0) };
    let issued = |name: &str, user: &User, second| Token { issued_at: time(second), ..token(name, user, &shop) };
    assert!(store.add_token(&issued("other", &bob, 1), HASH, bounds).await.expect("kept"));
    for (second, name) in (2..).zip(["a", "b", "c", "d", "e"]) {
        assert!(store.add_token(&issued(name, &ada, second), HASH, bounds).await.expect("kept"));
    }
    let mut kept = Vec::new();
    for name in ["other", "a", "b", "c", "d", "e"] {
        if store.token_holder(name.as_bytes()).await.expect("read").is_some() {
            kept.push(name);
        }
    }
    assert_eq!(kept, ["other", "c", "d", "e"], "the tokens of another user stay");
}

async fn a_signature_is_new_once_until_its_time_is_over(store: Fresh) {
    assert!(store.remember_signature(time(0), b"s", time(10)).await.expect("kept"));
    assert!(!store.remember_signature(time(10), b"s", time(20)).await.expect("answered"));
    assert!(store.remember_signature(time(10), b"other", time(20)).await.expect("kept"));
    assert!(store.remember_signature(time(11), b"s", time(20)).await.expect("kept"), "its time was over");
}

fn page(before: Option<i64>, limit: u64) -> AuditPage {
    AuditPage { before, limit, ..AuditPage::default() }
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
        let made = Project { id: id(&second.to_string()), name: second.to_string(), created_at: time(0) };
        store.with_audit(vec![entry(second, project)]).add_project(&made).await.expect("kept");
    }
    let first = store.audit(&id("shop"), page(None, 2)).await.expect("read");
    let seconds = |page: &[AuditEntry]| page.iter().map(|entry| entry.happened_at).collect::<Vec<_>>();
    assert_eq!(seconds(&first), [time(4), time(3)]);
    assert_eq!(AuditEntry { seq: 0, ..first[1].clone() }, entry(3, "shop"));
    let rest = store.audit(&id("shop"), page(Some(first[1].seq), 2)).await.expect("read");
    assert_eq!(seconds(&rest), [time(1)]);
    assert_eq!(store.audit(&id("other"), page(None, 2)).await.expect("read"), []);
}

async fn the_audit_trail_is_read_by_user_and_kind_of_action(store: Fresh) {
    for (second, actor, action) in [
        (1, Some("ada"), "task.create"),
        (2, Some("bob"), "task.cancel"),
        (3, None, "tasks.other"),
        (4, Some("ada"), "user.add"),
    ] {
        let entry = AuditEntry {
            seq: 0,
            happened_at: time(second),
            project_id: Some(id("shop")),
            actor: actor.map(str::to_owned),
            action: action.into(),
            subject: id("task"),
            detail: None,
        };
        let made = Project { id: id(&second.to_string()), name: second.to_string(), created_at: time(0) };
        store.with_audit(vec![entry]).add_project(&made).await.expect("kept");
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
        let entry = AuditEntry {
            seq: 0,
            happened_at: time(second),
            project_id: Some(shop.id.clone()),
            actor: None,
            action: "project.add".into(),
            subject: shop.id.clone(),
            detail: None,
        };
        let name = second.to_string();
        let made = Project { id: id(&name), name, created_at: time(0) };
        store.with_audit(vec![entry]).add_project(&made).await.expect("kept");
    }
    let removed = [store.prune_audit(time(3)).await.expect("removed"), store.prune_audit(time(3)).await.expect("none")];
    assert_eq!(removed, [2, 0]);
    let left = store.audit(&shop.id, page(None, 9)).await.expect("read");
    assert_eq!(left.iter().map(|entry| entry.happened_at).collect::<Vec<_>>(), [time(4), time(3)]);
}

async fn the_oldest_audit_entries_of_a_project_with_too_many_are_removed(store: Fresh) {
    let (shop, other) = (store.project("shop").await, store.project("other").await);
    for (second, project) in [&shop, &shop, &shop, &other, &shop, &shop].into_iter().enumerate() {
        let entry = AuditEntry {
            seq: 0,
            happened_at: time(second as i64),
            project_id: Some(project.id.clone()),
            actor: None,
            action: "project.add".into(),
            subject: project.id.clone(),
            detail: None,
        };
        let name = second.to_string();
        let made = Project { id: id(&name), name, created_at: time(0) };
        store.with_audit(vec![entry]).add_project(&made).await.expect("kept");
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
