//! Projects, users, their access keys and roles, and the master key's check value.

use keysweep::model::{AccessKey, Grant, Project, Role, Sealed, User};

use crate::conformance::fresh::{Fresh, assert_missing, assert_taken, id, time};

on_every_engine!(
    projects_are_listed_by_name_as_they_were_added,
    a_project_is_unique_by_id_and_by_name,
    an_access_key_identifies_its_user_and_the_users_roles,
    a_user_is_unique_by_name,
    a_role_on_a_project_that_is_not_there_leaves_no_user_behind,
    a_user_has_one_role_a_project,
    a_key_needs_a_user_and_is_unique,
    an_unknown_name_is_not_found,
    the_roles_of_a_user_are_listed_with_their_projects_by_name,
    the_first_master_key_is_kept_and_another_one_is_shown_it,
    people_outlive_the_process,
);

fn user(name: &str) -> User {
    User { id: id(name), name: name.into(), password_hash: None, disabled: false, created_at: time(1) }
}

fn key(access: &str, user: &User) -> AccessKey {
    let secret = Sealed((0..=255).collect());
    AccessKey { access: access.into(), user_id: user.id.clone(), secret, disabled: false, created_at: time(2) }
}

fn grant(project: &Project, role: Role) -> Grant {
    Grant { project_id: project.id.clone(), role }
}

async fn projects_are_listed_by_name_as_they_were_added(store: Fresh) {
    assert_eq!(store.projects().await.expect("read"), []);
    let shop = store.project("shop").await;
    let search = store.project("search").await;
    assert_eq!(store.projects().await.expect("read"), [search, shop]);
}

async fn a_project_is_unique_by_id_and_by_name(store: Fresh) {
    let shop = store.project("shop").await;
    assert_taken(store.add_project(&Project { name: "other".into(), ..shop.clone() }).await, "project", "id");
    assert_taken(store.add_project(&Project { id: id("other"), ..shop.clone() }).await, "project", "name");
    assert_eq!(store.projects().await.expect("read"), [shop]);
}

async fn an_access_key_identifies_its_user_and_the_users_roles(store: Fresh) {
    let (shop, search) = (store.project("shop").await, store.project("search").await);
    let ada = User { password_hash: Some("$argon2id$…".into()), disabled: true, ..user("ada") };
    store.add_user(&ada, &[grant(&shop, Role::Admin), grant(&search, Role::Reader)]).await.expect("added");
    let bob = user("bob");
    store.add_user(&bob, &[grant(&shop, Role::Operator)]).await.expect("added");
    let key_of_ada = AccessKey { disabled: true, ..key("KEYOFADA", &ada) };
    store.add_access_key(&key_of_ada).await.expect("added");
    store.add_access_key(&key("KEYOFBOB", &bob)).await.expect("added");

    let holder = store.key_holder("KEYOFADA").await.expect("read").expect("a holder");
    assert_eq!((holder.key, holder.user), (key_of_ada, ada.clone()));
    assert_eq!(holder.grants.len(), 2);
    assert!(
        holder.grants.contains(&grant(&shop, Role::Admin)) && holder.grants.contains(&grant(&search, Role::Reader))
    );
    let holder = store.key_holder("KEYOFBOB").await.expect("read").expect("a holder");
    assert_eq!((holder.user, holder.grants), (bob, vec![grant(&shop, Role::Operator)]));
    assert_eq!(store.user("ada").await.expect("read"), Some(ada));
}

async fn a_user_is_unique_by_name(store: Fresh) {
    store.add_user(&user("ada"), &[]).await.expect("added");
    assert_taken(store.add_user(&User { id: id("other"), ..user("ada") }, &[]).await, "user", "name");
    assert_taken(store.add_user(&User { name: "other".into(), ..user("ada") }, &[]).await, "user", "id");
}

async fn a_role_on_a_project_that_is_not_there_leaves_no_user_behind(store: Fresh) {
    let shop = store.project("shop").await;
    let absent = Grant { project_id: id("absent"), role: Role::Admin };
    assert_missing(store.add_user(&user("ada"), &[grant(&shop, Role::Reader), absent]).await, "project");
    assert_eq!(store.user("ada").await.expect("read"), None);
    store.add_user(&user("ada"), &[grant(&shop, Role::Reader)]).await.expect("the name is free");
}

async fn a_user_has_one_role_a_project(store: Fresh) {
    let shop = store.project("shop").await;
    let twice = [grant(&shop, Role::Reader), grant(&shop, Role::Admin)];
    assert_taken(store.add_user(&user("ada"), &twice).await, "role", "project");
}

async fn a_key_needs_a_user_and_is_unique(store: Fresh) {
    assert_missing(store.add_access_key(&key("KEY", &user("nobody"))).await, "user");
    let ada = user("ada");
    store.add_user(&ada, &[]).await.expect("added");
    store.add_access_key(&key("KEY", &ada)).await.expect("added");
    assert_taken(store.add_access_key(&key("KEY", &ada)).await, "access key", "access");
}

async fn the_roles_of_a_user_are_listed_with_their_projects_by_name(store: Fresh) {
    let (shop, search, bank) =
        (store.project("shop").await, store.project("search").await, store.project("bank").await);
    let (ada, bob) = (user("ada"), user("bob"));
    store.add_user(&ada, &[grant(&shop, Role::Admin), grant(&search, Role::Reader)]).await.expect("added");
    store.add_user(&bob, &[grant(&bank, Role::Operator)]).await.expect("added");
    let expected = vec![(search, Role::Reader), (shop, Role::Admin)];
    assert_eq!(store.roles(&ada.id).await.expect("read"), expected);
    assert_eq!(store.roles(&id("nobody")).await.expect("read"), []);
}

async fn an_unknown_name_is_not_found(store: Fresh) {
    assert!(store.user("nobody").await.expect("read").is_none());
    assert!(store.key_holder("NOKEY").await.expect("read").is_none());
}

async fn the_first_master_key_is_kept_and_another_one_is_shown_it(store: Fresh) {
    assert_eq!(store.key_check("first", b"one").await.expect("kept"), b"one");
    assert_eq!(store.key_check("first", b"two").await.expect("kept"), b"one", "kept once");
    assert_eq!(store.key_check("second", b"three").await.expect("kept"), b"one", "of another key");
    assert_eq!(store.key_check("second", b"three").await.expect("kept"), b"one", "and it was not kept beside it");
}

async fn people_outlive_the_process(store: Fresh) {
    let shop = store.project("shop").await;
    let ada = user("ada");
    store.add_user(&ada, &[grant(&shop, Role::Admin)]).await.expect("added");
    store.add_access_key(&key("KEY", &ada)).await.expect("added");
    store.key_check("first", b"one").await.expect("kept");

    let store = store.reopened().await;
    store.ping().await.expect("it answers");
    assert_eq!(store.projects().await.expect("read"), std::slice::from_ref(&shop));
    let holder = store.key_holder("KEY").await.expect("read").expect("a holder");
    assert_eq!((holder.key, holder.user, holder.grants), (key("KEY", &ada), ada, vec![grant(&shop, Role::Admin)]));
    assert_eq!(store.key_check("second", b"two").await.expect("kept"), b"one");
}
