//! What is asked of a database about all secrets at once: for another master key. What they are sealed with it does not know.

use async_trait::async_trait;

use super::{Now, StoreError};
use crate::model::Sealed;

/// A field that holds sealed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretField {
    /// The secret half of an access key.
    AccessKey,
    /// The password of an instance.
    Password,
    /// An instance's password on its Sentinels.
    SentinelPassword,
    /// The key of the certificate that an instance's servers are shown.
    ClientKey,
}

impl SecretField {
    /// All there are. Databases tell of a field by its place here.
    pub const ALL: [Self; 4] = [Self::AccessKey, Self::Password, Self::SentinelPassword, Self::ClientKey];
}

/// A sealed value, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretAt {
    /// The access key, or the instance's id.
    pub row: String,
    /// Which of the row's fields.
    pub field: SecretField,
    /// The value.
    pub sealed: Sealed,
}

/// A sealed value that takes the place of another.
#[derive(Debug, Clone)]
pub struct Resealed {
    /// What stands there.
    pub before: SecretAt,
    /// What is to stand there.
    pub after: Sealed,
}

/// Whether `changes` begin at just what is there `now`, in whatever order.
pub(super) fn is_complete(changes: &[Resealed], mut now: Vec<SecretAt>) -> bool {
    let key = |secret: &SecretAt| (secret.field, secret.row.clone());
    let mut before: Vec<&SecretAt> = changes.iter().map(|change| &change.before).collect();
    before.sort_by_key(|secret| key(secret));
    now.sort_by_key(key);
    before.into_iter().eq(now.iter())
}

/// The verbs for all secrets at once. Apart from those for tasks, which other rooms use.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Every sealed value, as they are at one moment; but not the one that the master key is checked with.
    async fn secrets(&self) -> Result<Vec<SecretAt>, StoreError>;
    /// Puts other values in place of all sealed ones, and `check`, which the key of this id opens, in place of what the master
    /// key was checked with: all of it or nothing. False, and nothing is done, where the changes do not begin at just what
    /// is there. `Unavailable` while a sweep runs: its worker holds the key of before.
    async fn reseal(&self, now: Now, changes: &[Resealed], key_id: &str, check: &Sealed) -> Result<bool, StoreError>;
}
