//! Credentials of users: access keys and tokens, and the encrypted form in which secrets are stored.

use std::fmt;

use jiff::Timestamp;

use super::{Grant, Role, User};

/// An encrypted secret, useless without the master key (see `secrets`). Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// A user's key for signing requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The public half, 20 upper-case letters and digits.
    pub access: String,
    /// Id of the user that the key belongs to.
    pub user_id: String,
    /// The secret half, encrypted: a signature can only be verified with the secret itself.
    pub secret: Sealed,
    /// Whether the key's signatures are refused.
    pub disabled: bool,
    /// When the key was added.
    pub created_at: Timestamp,
}

/// An access key with all that decides what its signature may do.
#[derive(Debug, Clone)]
pub struct KeyHolder {
    /// The key.
    pub key: AccessKey,
    /// Its user.
    pub user: User,
    /// The user's roles.
    pub grants: Vec<Grant>,
}

/// A token as it is stored: its hash cannot be used as a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token.
    pub hash: Vec<u8>,
    /// Id of the user that the token was issued to.
    pub user_id: String,
    /// Id of the project that the token is valid for.
    pub project_id: String,
    /// When the token was issued.
    pub issued_at: Timestamp,
    /// When the token expires.
    pub expires_at: Timestamp,
}

/// A token with all that decides what it may do.
#[derive(Debug, Clone)]
pub struct TokenHolder {
    /// The token.
    pub token: Token,
    /// Its user.
    pub user: User,
    /// The user's role on the token's project; `None`: the role was revoked.
    pub role: Option<Role>,
}
