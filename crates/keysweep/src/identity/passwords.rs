//! Passwords: stored as argon2 hashes, hashed one at a time.

use std::sync::{Arc, OnceLock};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use super::{Identity, IdentityError};
use crate::{model::User, random::new_id, secrets::Secret};

/// Most passwords that wait to be hashed. Hashing takes memory and time by design, so more are refused.
const MAX_WAITING: usize = 16;
/// Shortest password that can be set, bytes.
const MIN_LENGTH: usize = 8;
/// Longest password that can be set, bytes.
const MAX_LENGTH: usize = 256;

/// A queue of passwords to hash, one at a time.
#[derive(Clone)]
pub(super) struct HashQueue {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl HashQueue {
    pub(super) fn new() -> Self {
        Self { running: Arc::new(Semaphore::new(1)), waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Runs the work in a thread of its own when its turn comes. `Busy`: too many wait already.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, IdentityError> {
        let waiting = self.waiting.try_acquire().map_err(|_| IdentityError::Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| IdentityError::Busy)?;
        drop(waiting);
        // The permit moves with the work: a caller that disconnects does not make room for a second one beside it.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|_| IdentityError::Busy)
    }
}

fn hash(password: &Secret) -> Result<String, IdentityError> {
    let hash = Argon2::default().hash_password(password.expose().as_bytes());
    Ok(hash.map_err(|error| IdentityError::Hash(error.to_string()))?.to_string())
}

fn matches(password: &Secret, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok())
}

/// Returns the hash of a random password. Verified for users without a password, so that the answer takes as long.
fn decoy() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| hash(&Secret::from(new_id())).unwrap_or_default())
}

impl Identity {
    /// Returns the hash of a new password, if there is one.
    pub(super) async fn hash(&self, password: Option<Secret>) -> Result<Option<String>, IdentityError> {
        let Some(password) = password else { return Ok(None) };
        if !(MIN_LENGTH..=MAX_LENGTH).contains(&password.expose().len()) {
            return Err(IdentityError::Password);
        }
        self.hashing.run(move || hash(&password)).await?.map(Some)
    }

    /// Returns the user of this name, if this is the password. Takes as long for an unknown name.
    pub async fn check_password(&self, name: &str, password: Secret) -> Result<Option<User>, IdentityError> {
        let user = self.store.user(name).await?;
        let stored = user.as_ref().and_then(|user| user.password_hash.clone());
        let matching = self.hashing.run(move || {
            let decoy = decoy();
            matches(&password, stored.as_deref().unwrap_or(decoy)) && stored.is_some()
        });
        let matching = matching.await?;
        Ok(user.filter(|user| matching && !user.disabled))
    }
}
