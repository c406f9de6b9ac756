//! Signing in without a service around it: lockouts and their memory.

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use keysweep::{
    auth::{Authenticator, SignIn, SignInError, TokenScope, UserRef},
    identity::Identity,
    instances::{AllowedTargets, Instances},
    model::Role,
    secrets::Vault,
    store::Store,
};

const PASSWORD: &str = "correct horse battery";
/// How long a sign-in waits whose user is being guessed elsewhere.
const SLOWDOWN: Duration = Duration::from_secs(1);
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
async fn guesses_from_many_addresses_slow_their_user_down_and_lock_no_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let auth = open(folder.path()).await;
    for number in 0..GUESSES {
        let guessed = sign_in(&auth, "ada", "a wrong guess", address(number)).await;
        assert!(matches!(guessed, Err(SignInError::Wrong)), "guess {number}: {guessed:?}");
    }
    let began = Instant::now();
    sign_in(&auth, "ada", PASSWORD, address(GUESSES)).await.expect("no address of ada's is locked");
    assert!(began.elapsed() >= SLOWDOWN, "{:?}", began.elapsed());
    sign_in(&auth, "bob", PASSWORD, address(0)).await.expect("neither bob nor the address is locked");
}

#[tokio::test]
async fn guesses_from_one_address_lock_their_user_there_and_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let auth = open(folder.path()).await;
    for _ in 0..GUESSES {
        sign_in(&auth, "ada", "a wrong guess", address(1)).await.expect_err("a guess");
    }
    for name in ["ada", "bob"] {
        let locked = sign_in(&auth, name, PASSWORD, address(1)).await;
        assert!(matches!(locked, Err(SignInError::TooMany(left)) if !left.is_zero()), "{name}: {locked:?}");
        sign_in(&auth, name, PASSWORD, address(2)).await.expect("another address is not locked");
    }
}

#[tokio::test]
async fn a_user_who_signed_in_at_an_address_lately_is_not_locked_out_there_by_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let auth = open(folder.path()).await;
    sign_in(&auth, "ada", PASSWORD, address(1)).await.expect("right");
    // Guesses of another client behind the same address. No user has this name, so that no password is hashed for it.
    for _ in 0..GUESSES {
        sign_in(&auth, "", "a wrong guess", address(1)).await.expect_err("a guess");
    }
    let locked = sign_in(&auth, "bob", PASSWORD, address(1)).await;
    assert!(matches!(locked, Err(SignInError::TooMany(_))), "bob never signed in there: {locked:?}");
    sign_in(&auth, "ada", PASSWORD, address(1)).await.expect("ada did");
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
