//! Changes of users and access keys, tokens, and remembered signatures.

use keysweep::{
    model::{AccessKey, Grant, Project, Role, Sealed, Token, User},
    store::TokenBounds,
};

use crate::conformance::fresh::{Fresh, assert_missing, id, time};

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
    sessions_are_counted_apart_from_tokens_and_expired_ones_end_first,
    a_signature_is_new_once_until_its_time_is_over,
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

async fn sessions_are_counted_apart_from_tokens_and_expired_ones_end_first(store: Fresh) {
    let shop = store.project("shop").await;
    let ada = ada(&store, &[grant(&shop, Role::Operator)]).await;
    let bounds = TokenBounds { most_of_a_user: 2, ..since(0) };
    let kept = async |names: &[&str]| {
        let mut kept = Vec::new();
        for name in names {
            if store.token_holder(name.as_bytes()).await.expect("read").is_some() {
                kept.push((*name).to_owned());
            }
        }
        kept
    };
    // Hashes of sessions are longer than those of tokens.
    for (name, issued, expires) in
        [("s1", 1, 90), ("a", 2, 90), ("b", 3, 4), ("c", 5, 90), ("s2", 6, 90), ("d", 7, 90), ("s3", 8, 90)]
    {
        let new = Token { issued_at: time(issued), expires_at: time(expires), ..token(name, &ada, &shop) };
        assert!(store.add_token(&new, HASH, bounds).await.expect("kept"));
        if name == "c" {
            assert_eq!(kept(&["s1", "a", "b", "c"]).await, ["s1", "a", "c"], "the expired one, not the oldest");
        }
    }
    assert_eq!(kept(&["s1", "s2", "s3"]).await, ["s2", "s3"], "the oldest session ends for a session alone");
    assert_eq!(kept(&["a", "b", "c", "d"]).await, ["c", "d"]);
}

async fn a_signature_is_new_once_until_its_time_is_over(store: Fresh) {
    assert!(store.remember_signature(time(0), b"s", time(10)).await.expect("kept"));
    assert!(!store.remember_signature(time(10), b"s", time(20)).await.expect("answered"));
    assert!(store.remember_signature(time(10), b"other", time(20)).await.expect("kept"));
    assert!(store.remember_signature(time(11), b"s", time(20)).await.expect("kept"), "its time was over");
}
