//! Why a database cannot be opened, and what a failed upgrade of its schema means, on either engine.

use std::{io, path::PathBuf};

use sqlx::migrate::{MigrateError, Migrator};

use super::error;
use crate::store::error::StoreError;

/// Why a database cannot be the store. No message repeats a URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The SQLite file, or its folder, cannot be created.
    #[error(
        "cannot create {path}: {why}; let this user write there, or choose another place with --database sqlite:PATH",
        path = path.display()
    )]
    Create {
        /// What could not be created.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A backup cannot be written under this name.
    #[error("cannot write {path}: {why}; choose a new name, in a folder that this user may write to", path = path.display())]
    Copy {
        /// Where the backup should be.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// The URL names no PostgreSQL database.
    #[error("the database's URL cannot be used; write postgres://user:password@host:5432/name: {0}")]
    Url(String),
    /// The PostgreSQL server is too old.
    #[error("PostgreSQL {0} is too old; version 15 or later is needed")]
    Old(String),
    /// A newer keysweep has changed the schema.
    #[error(
        "{place} was written by a newer keysweep (schema {found}, this version knows {known}); install that version, or \
         put back the backup from before its upgrade"
    )]
    Newer {
        /// The SQLite file, or "the database".
        place: String,
        /// The newest migration in the database that this version does not know.
        found: i64,
        /// The newest migration that this version knows.
        known: i64,
    },
    /// The schema differs from that of any release.
    #[error("{place} has a schema that no release of keysweep has made: {detail}")]
    Foreign {
        /// The SQLite file, or "the database".
        place: String,
        /// What differs.
        detail: String,
    },
    /// The SQLite file cannot be opened or read.
    #[error("{path}: {why}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: StoreError,
    },
    /// The PostgreSQL server does not answer or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a schema could not be brought up to date.
pub(super) enum UpgradeError {
    /// A statement failed.
    Store(StoreError),
    /// The database has a migration that this version does not know.
    Newer { found: i64, known: i64 },
    /// A migration in the database differs from this version's.
    Foreign(String),
}

impl UpgradeError {
    /// Returns the meaning of a migration's error.
    pub fn new(error: MigrateError, migrations: &Migrator) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                Self::Store(error::meaning(error))
            }
            MigrateError::VersionMissing(found) => {
                let known = migrations.iter().map(|migration| migration.version).max().unwrap_or_default();
                Self::Newer { found, known }
            }
            other => Self::Foreign(other.to_string()),
        }
    }

    /// Names the database that was to be opened.
    pub fn at(self, place: String, store: impl FnOnce(StoreError) -> OpenError) -> OpenError {
        match self {
            Self::Store(error) => store(error),
            Self::Newer { found, known } => OpenError::Newer { place, found, known },
            Self::Foreign(detail) => OpenError::Foreign { place, detail },
        }
    }
}

impl From<sqlx::Error> for UpgradeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error::meaning(error))
    }
}
