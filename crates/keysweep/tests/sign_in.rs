//! Signing in without a service around it: lockouts and their memory.

use std::{net::IpAddr, path::Path, sync::Arc};

use keysweep::{
    auth::{Authenticator, SignIn, SignInError, TokenScope, UserRef},
    identity::Identity,
    instances::{AllowedTargets, Instances},
    model::Role,
    secrets::Vault,
    store::Store,
};

const PASSWORD: &str = "correct horse battery";
/// One failure more than are allowed.
const GUESSES: u8 = 11;

/// An authenticator for two users who have the same password and a role on one project.
async fn open(folder: &Path) -> Authenticator {
    let store = Store::open_sqlite(&folder.join("keysweep.db")).await.expect("a store");
    let vault = Vault::of_store(&store, &folder.join("keysweep.db.key")).await.expect("a vault");
    let vault = Arc::new(vault);
    let instances = Instances::new(store.clone(), Arc::clone(&vault), AllowedTargets::default());
    let identity = Identity::new(store, vault);
    identity.add_project("shop", None).await.expect("added");
    for name in ["ada", "bob"] {
        identity.add_user(name, "shop", Role::Reader, Some(PASSWORD.to_owned().into())).await.expect("added");
    }
    Authenticator::required(identity, instances)
}

fn address(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

async fn sign_in(auth: &Authenticator, name: &str, password: &str, from: IpAddr) -> Result<(), SignInError> {
    let user = UserRef::Name(name.to_owned());
    let wanted = SignIn { user, password: password.to_owned().into(), scope: TokenScope::Default };
    auth.sign_in(wanted, from).await.map(drop)
}

#[tokio::test]
async fn guesses_from_many_addresses_lock_their_user_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let auth = open(folder.path()).await;
    for number in 0..GUESSES {
        let guessed = sign_in(&auth, "ada", "a wrong guess", address(number)).await;
        assert!(matches!(guessed, Err(SignInError::Wrong)), "guess {number}: {guessed:?}");
    }
    let locked = sign_in(&auth, "ada", PASSWORD, address(GUESSES)).await;
    assert!(matches!(locked, Err(SignInError::TooMany(left)) if !left.is_zero()), "{locked:?}");
    sign_in(&auth, "bob", PASSWORD, address(0)).await.expect("neither bob nor the address is locked");
}

#[tokio::test]
async fn an_impossible_name_is_counted_by_its_address_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let auth = open(folder.path()).await;
    let long = "a".repeat(1 << 20);
    for name in [long.as_str(), "a\0da", ""] {
        for number in 0..=GUESSES {
            let guessed = sign_in(&auth, name, PASSWORD, address(number)).await;
            assert!(matches!(guessed, Err(SignInError::Wrong)), "guess {number}: {guessed:?}");
        }
    }
    for _ in 0..GUESSES {
        sign_in(&auth, &long, PASSWORD, address(100)).await.expect_err("the name is impossible");
    }
    let locked = sign_in(&auth, "ada", PASSWORD, address(100)).await;
    assert!(matches!(locked, Err(SignInError::TooMany(left)) if !left.is_zero()), "{locked:?}");
}
