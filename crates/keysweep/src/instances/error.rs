//! Why an instance was not changed, found or connected to.

use crate::{
    model::{InvalidField, UnreadableField, WindowError},
    secrets::VaultError,
    store::StoreError,
};

/// Why an instance was not changed, found or connected to. Messages name the field, its value and the remedy, never a
/// secret.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A value is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The URL names no server. Not repeated, because it may hold a password.
    #[error("{0}")]
    Url(String),
    /// The connection settings do not fit the URL, or cannot be read. Carries no secret.
    #[error("{0}")]
    Connection(String),
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
    /// The row was removed meanwhile.
    #[error("the {0} no longer exists")]
    Gone(&'static str),
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
    /// A task of the instance is active.
    #[error("instance {0:?} has an active task; cancel it, or wait until it has finished")]
    InUse(String),
    /// Servers of the instance are held, or have to be restored: it can be neither removed nor moved.
    #[error(
        "instance {0:?} is held; restore it first with POST …/hold/restore or `keysweep admin instance restore`, and repeat this once its servers have their own settings"
    )]
    Held(String),
    /// The server cannot be scanned, so that no auto-scan can be enabled.
    #[error("instance {name:?} cannot be scanned: {cause}")]
    Unsupported {
        /// Name of the instance.
        name: String,
        /// Why, a sentence.
        cause: String,
    },
    /// A stored setting cannot be read.
    #[error("instance {name:?}: {field}")]
    Unreadable {
        /// Name of the instance.
        name: String,
        /// The setting.
        field: UnreadableField,
    },
    /// Lists of instances take all memory that there is for them.
    #[error(
        "lists of instances take too much memory at the moment; try again, or shorten the longest URLs and address maps of the project"
    )]
    NoMemory,
    /// The master key failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl InstanceError {
    /// Returns whether the same request may succeed a moment later, because the database was away or busy, or memory was.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NoMemory) || matches!(self, Self::Store(error) if error.is_transient())
    }
}

impl From<WindowError> for InstanceError {
    fn from(WindowError { value, remedy }: WindowError) -> Self {
        Self::Invalid(InvalidField { field: "maintenance window", value, remedy })
    }
}

/// Adds the value to the store's `Taken`.
pub(super) fn taken<'v>(value_of: impl Fn(&str) -> &'v str) -> impl Fn(StoreError) -> InstanceError {
    move |error| match error {
        StoreError::Taken { what, field } => InstanceError::Taken { what, field, value: value_of(field).to_owned() },
        other => gone(other),
    }
}

/// For a change of a row that was read before.
pub fn gone(error: StoreError) -> InstanceError {
    match error {
        StoreError::Missing(what) => InstanceError::Gone(what),
        StoreError::Held(name) => InstanceError::Held(name),
        other => other.into(),
    }
}
