//! Why a verb failed.

/// Why a verb did nothing. Every error leaves the store as it was, but for one case: when the answer to a commit is lost,
/// the error is `Unavailable` and what the verb wrote may have been kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No answer, no space, no permission: may pass by itself.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// Too many changes wait for their turn to write. Tells nothing about the database.
    #[error("too many changes wait for the database; try again")]
    Busy,
    /// A name or id that must be unique is taken.
    #[error("another {what} has this {field} already")]
    Taken {
        /// The kind of row.
        what: &'static str,
        /// The field that must be unique.
        field: &'static str,
    },
    /// The row, or a row that it refers to, does not exist.
    #[error("there is no such {0}")]
    Missing(&'static str),
    /// Servers of the instance with this name are held, or have to be restored.
    #[error("instance {0:?} is held")]
    Held(String),
    /// A row that this version cannot read.
    #[error("the database holds something that this version cannot read: {0}")]
    Unreadable(String),
    /// keysweep and its schema disagree, for example about a forbidden value: a fault of keysweep's own.
    #[error("the database refuses what this version asks of it: {0}")]
    Internal(String),
}

impl StoreError {
    /// Returns whether the same verb may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy)
    }

    /// The error of a verb that cannot run beside a worker; it can be repeated once all scans have ended.
    pub(super) fn scanning() -> Self {
        Self::Unavailable("a scan is running; stop every keysweep that uses this database first".into())
    }
}
