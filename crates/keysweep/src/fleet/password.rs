//! Passwords: kept as argon2 hashes, checked one at a time.

use std::sync::{Arc, OnceLock};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use super::{Fleet, FleetError, Secret, new_id};
use crate::model::User;

/// Checks that may wait for their turn; more are turned away, because a check takes memory and time by intent.
const MOST_WAITING: usize = 16;
/// Shorter passwords are refused when they are set.
const SHORTEST: usize = 8;
/// Longer ones as well: hashing a megabyte helps nobody.
const LONGEST: usize = 256;

/// Takes turns at hashing.
#[derive(Clone)]
pub(super) struct Turns {
    one: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { one: Arc::new(Semaphore::new(1)), waiting: Arc::new(Semaphore::new(MOST_WAITING)) }
    }

    /// Does it in a thread of its own when its turn comes.
    async fn take<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, FleetError> {
        let waiting = self.waiting.try_acquire().map_err(|_| FleetError::Busy)?;
        let turn = Arc::clone(&self.one).acquire_owned().await.map_err(|_| FleetError::Busy)?;
        drop(waiting);
        // The turn goes with the work: a caller who hangs up does not make room for a second one beside it.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|_| FleetError::Busy)
    }
}

fn hash(password: &Secret) -> Result<String, FleetError> {
    let hash = Argon2::default().hash_password(password.expose().as_bytes());
    Ok(hash.map_err(|error| FleetError::Hash(error.to_string()))?.to_string())
}

fn matches(password: &Secret, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok())
}

/// The hash of a password that nobody has: checked where a user has none, so that it takes as long.
fn nobodys() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| hash(&Secret::from(new_id())).unwrap_or_default())
}

impl Fleet {
    /// The hash of a new password, as it is kept.
    pub(super) async fn hash_password(&self, password: Secret) -> Result<String, FleetError> {
        let length = password.expose().len();
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Err(FleetError::Password);
        }
        self.turns.take(move || hash(&password)).await?
    }

    /// The user of this name, if this is the password. It takes as long for a name that nobody has.
    pub async fn check_password(&self, name: &str, password: Secret) -> Result<Option<User>, FleetError> {
        let user = self.store.user(name).await?;
        let kept = user.as_ref().and_then(|user| user.password_hash.clone());
        let good = self.turns.take(move || {
            let nobodys = nobodys();
            matches(&password, kept.as_deref().unwrap_or(nobodys)) && kept.is_some()
        });
        let good = good.await?;
        Ok(user.filter(|user| good && !user.disabled))
    }
}
