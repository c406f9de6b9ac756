//! Why a project, a user or a credential was not changed or found.

use crate::{model::InvalidField, secrets::VaultError, store::StoreError};

/// Why a project, a user or a credential was not changed or found. Messages name the field, its value and the remedy, never
/// a secret.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A value is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// A name or id is unknown.
    #[error("unknown {what} {value:?}; {remedy}")]
    Unknown {
        /// Type of the object, as the sentence has it.
        what: &'static str,
        /// The name or id.
        value: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A name or id that must be unique is taken.
    #[error("another {what} has the {field} {value:?} already; choose another {field}")]
    Taken {
        /// Type of the object, as the sentence has it.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// The project still has instances.
    #[error("project {0:?} has instances; remove them first (`keysweep admin instance list --project …`)")]
    InUse(String),
    /// The password is too short or too long. Not repeated.
    #[error("invalid password: use 8 to 256 bytes")]
    Password,
    /// Too many passwords wait to be hashed.
    #[error("too many passwords are being checked; try again")]
    Busy,
    /// A password could not be hashed.
    #[error("the password could not be hashed: {0}")]
    Hash(String),
    /// The master key failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IdentityError {
    /// Returns whether the same request may succeed a moment later, because the database was away, or it or the hashing busy.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy => true,
            Self::Store(error) => error.is_transient(),
            _ => false,
        }
    }
}

/// Adds the value to the store's `Taken`.
pub(super) fn taken<'v>(value_of: impl Fn(&str) -> &'v str) -> impl Fn(StoreError) -> IdentityError {
    move |error| match error {
        StoreError::Taken { what, field } => IdentityError::Taken { what, field, value: value_of(field).to_owned() },
        other => other.into(),
    }
}
