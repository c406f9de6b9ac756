//! Who and what there is: projects, people with their keys, and instances with what is needed to reach them.
//!
//! Doors, tasks and the command line ask here. The rules are here, the SQL is in the store, and every secret goes through
//! the vault in between.

pub mod rotation;
pub mod vault;

mod audit;
mod auto_scan;
mod estimate;
mod id;
mod instance;
mod key_file;
mod looks;
mod password;
mod people;
mod reach;
mod roster;
mod secret;
mod server;
mod targets;
mod token;

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use keysweep_engine::TargetError;
use tokio::sync::Semaphore;

pub use self::{
    audit::Deed,
    auto_scan::{AutoScanFault, AutoScanWish},
    estimate::{EstimateError, PATIENCE as ESTIMATE_PATIENCE},
    id::{is_id, new_id},
    instance::{InstanceChange, NewInstance},
    looks::{LOOK_EVERY, LOOKS_AT_ONCE},
    reach::Reach,
    roster::COMMAND_LINE,
    secret::Secret,
    server::{LookError, can_be_swept},
    targets::{AllowedTargets, RangeError},
    token::{IssuedToken, TOKEN_LIFE},
};
use self::{
    password::Turns,
    vault::{Vault, VaultError},
};
use crate::{
    model::WindowError,
    store::{Store, StoreError},
};

/// The fleet of one store. Clones share it.
#[derive(Clone)]
pub struct Fleet {
    store: Store,
    vault: Arc<Vault>,
    turns: Turns,
    allowed: Arc<AllowedTargets>,
    estimates: Arc<Semaphore>,
}

/// Why the fleet did not do what it was asked. Messages name the field, its value and the remedy; never a secret.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A value that may not be.
    #[error("{field} {value:?} cannot be used: {remedy}")]
    Invalid {
        /// What was given.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it should look like.
        remedy: &'static str,
    },
    /// A URL that names no server. Not repeated: there may be a password in it.
    #[error("the URL cannot be used: {0}")]
    Url(String),
    /// How its nodes are to be reached does not fit its URL, or cannot be read. Carries no secret.
    #[error("{0}")]
    Reach(String),
    /// There is no such thing.
    #[error("there is no {what} {value:?}; {remedy}")]
    Unknown {
        /// The noun.
        what: &'static str,
        /// The name or id that was given.
        value: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It was there a moment ago.
    #[error("there is no such {0} any more")]
    Gone(&'static str),
    /// A name or id that must be unique is taken.
    #[error("another {what} has the {field} {value:?} already; choose another {field}")]
    Taken {
        /// The noun.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// The value that is taken.
        value: String,
    },
    /// What is stored of an instance does not lead to a server that this version can sweep.
    #[error("instance {instance}: {source}")]
    Target {
        /// The instance's id.
        instance: String,
        /// Why.
        source: TargetError,
    },
    /// A password that is too short or too long. Not repeated.
    #[error("the password cannot be used: give 8 to 256 bytes")]
    Password,
    /// Too many passwords wait to be checked.
    #[error("too many passwords are being checked; try again")]
    Busy,
    /// A password could not be hashed.
    #[error("the password could not be hashed: {0}")]
    Hash(String),
    /// Everything is sealed with that key already.
    #[error("the new master key is the old one; give --to a file with another key, or one that does not exist")]
    SameKey,
    /// Somebody set or removed a secret while all were sealed anew.
    #[error(
        "secrets were changed meanwhile, and none was sealed anew: stop every keysweep that uses this database, and do it again"
    )]
    SecretsChanged,
    /// It cannot go while it has others.
    #[error("{what} {value:?} stays: {remedy}")]
    InUse {
        /// The noun.
        what: &'static str,
        /// Its name or id.
        value: String,
        /// What to do first.
        remedy: &'static str,
    },
    /// The master key failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fleet {
    /// The fleet of a store whose secrets are sealed with the master key in this file, which is made when it is absent
    /// and nothing has been sealed yet.
    pub async fn open(store: Store, key_file: &Path) -> Result<Self, FleetError> {
        let vault = Vault::open(key_file, true)?;
        vault.check(&store).await?;
        let estimates = Arc::new(Semaphore::new(estimate::AT_ONCE));
        Ok(Self { store, vault: Arc::new(vault), turns: Turns::new(), allowed: Arc::default(), estimates })
    }
}

impl From<WindowError> for FleetError {
    fn from(WindowError { value, remedy }: WindowError) -> Self {
        Self::Invalid { field: "off-peak window", value, remedy }
    }
}

/// The time, as exact as stores keep it: what is returned is what will be read.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// Whether a project, a user or an instance can have this name at all.
pub fn is_name(name: &str) -> bool {
    let length = name.chars().count();
    (1..=64).contains(&length) && name.trim() == name && !name.chars().any(char::is_control)
}

fn check_name(field: &'static str, name: &str) -> Result<(), FleetError> {
    match is_name(name) {
        true => Ok(()),
        false => Err(FleetError::Invalid {
            field,
            value: name.chars().take(80).collect(),
            remedy: "use 1 to 64 characters, without control characters and without spaces at either end",
        }),
    }
}

/// Gives a `Taken` of the store the value that is taken.
fn taken<'v>(value_of: impl Fn(&str) -> &'v str) -> impl Fn(StoreError) -> FleetError {
    move |error| match error {
        StoreError::Taken { what, field } => FleetError::Taken { what, field, value: value_of(field).to_owned() },
        other => gone(other),
    }
}

/// For a change of something that was there a moment ago.
fn gone(error: StoreError) -> FleetError {
    match error {
        StoreError::Missing(what) => FleetError::Gone(what),
        other => other.into(),
    }
}
