//! Projects: the tenants of an installation.

use jiff::Timestamp;
use serde::Serialize;

/// A tenant, which owns instances and their tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Project {
    /// 32 hexadecimal digits, or a UUID as the caller gave it.
    pub id: String,
    /// Unique.
    pub name: String,
    /// When the project was added.
    pub created_at: Timestamp,
}
