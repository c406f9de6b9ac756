//! The key file: without it, or with another one, nothing opens.

use std::fs;

use keysweep::{instances::NewInstance, secrets::VaultError};
use secrecy::ExposeSecret;

use crate::registration::installation::{Installation, read};

#[tokio::test]
async fn secrets_are_readable_after_a_restart() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    opened
        .add("shop", NewInstance { name: "cache", url: "redis://:secret@h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    drop(opened);
    let opened = installation.open().await;
    let instance = opened.list("shop").await.remove(0);
    let password = opened.instances.credentials(&instance).expect("opens").password.expect("a password");
    assert_eq!(password.expose_secret(), "secret");
}

#[tokio::test]
async fn a_wrong_key_file_is_detected_at_start() {
    let (installation, other) = (Installation::new(), Installation::new());
    drop((installation.open().await, other.open().await));
    let right = read(installation.path("store.db.key"));
    fs::write(installation.path("store.db.key"), read(other.path("store.db.key"))).expect("written");
    let error = installation.try_open().await.err().expect("the wrong key");
    assert!(matches!(error, VaultError::OtherKey { .. }), "{error}");
    let sentence = error.to_string();
    assert!(sentence.contains("store.db.key") && sentence.contains("put back the key file"), "{sentence}");
    fs::write(installation.path("store.db.key"), right).expect("written");
    installation.open().await;
}

#[tokio::test]
async fn a_lost_key_file_is_not_replaced_by_a_new_one() {
    let installation = Installation::new();
    drop(installation.open().await);
    let key_file = installation.path("store.db.key");
    fs::rename(&key_file, installation.path("kept.key")).expect("moved");
    for _ in 0..2 {
        let error = installation.try_open().await.err().expect("no key");
        assert!(matches!(error, VaultError::Lost { .. }), "{error}");
        assert!(!key_file.exists(), "no file is where the right one belongs");
    }
    fs::rename(installation.path("kept.key"), &key_file).expect("moved back");
    installation.open().await;
}
