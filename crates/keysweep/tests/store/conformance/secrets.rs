//! All encrypted values at once, for a new master key.

use keysweep::{
    model::{AccessKey, AuditEntry, Instance, Sealed, User},
    store::{Resealed, SecretField, StoreError},
};

use crate::conformance::fresh::{Fresh, at, id, plain_instance, time};

on_every_engine!(
    all_secrets_and_the_check_value_are_replaced_together,
    nothing_is_replaced_where_a_secret_is_another_one_or_was_added_or_removed,
    nothing_is_replaced_where_the_transaction_breaks_off_at_its_end,
    nothing_is_replaced_while_a_scan_runs,
);

/// An access key and two instances with four secrets, and a check value.
async fn secrets(store: &Fresh) -> [Instance; 2] {
    let shop = store.project("shop").await;
    let user = User { id: id("ada"), name: "ada".into(), password_hash: None, disabled: false, created_at: time(1) };
    store.add_user(&user, &[]).await.expect("added");
    let secret = Sealed(vec![1]);
    let key = AccessKey { access: "AK".into(), user_id: user.id, secret, disabled: false, created_at: time(2) };
    store.add_access_key(&key).await.expect("added");
    let full = Instance {
        password: Some(Sealed(vec![2])),
        sentinel_password: Some(Sealed(vec![3])),
        client_key: Some(Sealed(vec![4])),
        ..plain_instance(&shop, "full")
    };
    let plain = plain_instance(&shop, "plain");
    for instance in [&full, &plain] {
        store.add_instance(instance).await.expect("added");
    }
    store.key_check("old", b"old check").await.expect("kept");
    [full, plain]
}

/// Each value with ten added to its byte.
async fn changes(store: &Fresh) -> Vec<Resealed> {
    let secrets = store.secrets().await.expect("read");
    let changed = secrets.into_iter().map(|before| {
        let after = Sealed(before.sealed.0.iter().map(|byte| byte + 10).collect());
        Resealed { before, after }
    });
    changed.collect()
}

/// The value of each field, with its row.
async fn kept(store: &Fresh) -> Vec<(SecretField, String, u8)> {
    let secrets = store.secrets().await.expect("read");
    let mut kept: Vec<_> = secrets.into_iter().map(|secret| (secret.field, secret.row, secret.sealed.0[0])).collect();
    kept.sort();
    kept
}

fn check() -> Sealed {
    Sealed(b"new check".to_vec())
}

async fn all_secrets_and_the_check_value_are_replaced_together(store: Fresh) {
    let [full, plain] = secrets(&store).await;
    let values = |add: u8| {
        let id = || full.id.clone();
        let [key, password] = [(SecretField::AccessKey, "AK".into(), 1 + add), (SecretField::Password, id(), 2 + add)];
        vec![key, password, (SecretField::SentinelPassword, id(), 3 + add), (SecretField::ClientKey, id(), 4 + add)]
    };
    assert_eq!(kept(&store).await, values(0));
    assert!(store.with_clock(at(10)).reseal(&changes(&store).await, "new", &check()).await.expect("done"));
    assert_eq!(kept(&store).await, values(10));
    let seen = store.instance(&full.project_id, &full.id).await.expect("read").expect("an instance");
    let expected = Instance {
        password: Some(Sealed(vec![12])),
        sentinel_password: Some(Sealed(vec![13])),
        client_key: Some(Sealed(vec![14])),
        ..full
    };
    assert_eq!(seen, expected, "nothing else has changed");
    let plain_now = store.instance(&plain.project_id, &plain.id).await.expect("read");
    assert_eq!(plain_now, Some(plain), "one without secrets has none");
    let holder = store.key_holder("AK").await.expect("read").expect("a key");
    assert_eq!(holder.key.secret, Sealed(vec![11]));
    assert_eq!(store.key_check("old", b"another").await.expect("read"), b"new check", "the old key opens nothing");
    assert_eq!(store.key_check("new", b"another").await.expect("read"), b"new check");
}

async fn nothing_is_replaced_where_a_secret_is_another_one_or_was_added_or_removed(store: Fresh) {
    let [full, plain] = secrets(&store).await;
    let seen = changes(&store).await;
    let moved = Instance { password: Some(Sealed(vec![9])), ..full.clone() };
    let more = Instance { password: Some(Sealed(vec![9])), ..plain.clone() };
    let less = Instance { password: None, ..full.clone() };
    for (before, after) in [(&full, &moved), (&plain, &more), (&full, &less)] {
        store.with_clock(at(5)).update_instance(before, after).await.expect("changed");
        let there = kept(&store).await;
        assert!(!store.with_clock(at(10)).reseal(&seen, "new", &check()).await.expect("done"));
        assert_eq!(kept(&store).await, there);
        store.with_clock(at(6)).update_instance(after, before).await.expect("changed back");
    }
    assert_eq!(store.key_check("old", b"another").await.expect("read"), b"old check");
    assert!(store.with_clock(at(10)).reseal(&seen, "new", &check()).await.expect("done"), "now it is as it was seen");
}

async fn nothing_is_replaced_where_the_transaction_breaks_off_at_its_end(store: Fresh) {
    secrets(&store).await;
    let before = kept(&store).await;
    let entry = AuditEntry {
        seq: 0,
        happened_at: time(10),
        project_id: None,
        actor: None,
        action: "master_key.rotate".into(),
        subject: "new".into(),
        detail: None,
    };
    store.lose_audit().await;
    store
        .with_audit(vec![entry])
        .with_clock(at(10))
        .reseal(&changes(&store).await, "new", &check())
        .await
        .expect_err("no audit entry");
    assert_eq!(kept(&store).await, before);
    assert_eq!(store.key_check("old", b"another").await.expect("read"), b"old check");
}

async fn nothing_is_replaced_while_a_scan_runs(store: Fresh) {
    let [full, _] = secrets(&store).await;
    store.waiting(&full, at(0)).await;
    let claim = store.claimed(at(1), "w").await;
    let before = kept(&store).await;
    let refused = store.with_clock(at(2)).reseal(&changes(&store).await, "new", &check()).await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("stop every keysweep")),
        "{refused:?}"
    );
    assert_eq!(kept(&store).await, before);
    store
        .with_clock(at(3))
        .release_lease(&claim.lease, &keysweep::store::Heartbeat::default())
        .await
        .expect("released");
    assert!(store.with_clock(at(4)).reseal(&changes(&store).await, "new", &check()).await.expect("done"));
}
