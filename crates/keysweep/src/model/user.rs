//! Users and their roles.

use std::{fmt, str::FromStr};

use jiff::Timestamp;

use super::{UnknownName, named};

/// A person or a program that calls the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Unique.
    pub name: String,
    /// An argon2 hash in PHC notation; `None`: the user has access keys only.
    pub password_hash: Option<String>,
    /// Whether the user's credentials are refused.
    pub disabled: bool,
    /// When the user was added.
    pub created_at: Timestamp,
}

/// What a user may do in a project; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read everything.
    Reader,
    /// Create and cancel tasks, set auto-scans.
    Operator,
    /// Manage the project's instances and read its audit trail.
    Admin,
}
named!(Role, "role", { Reader = "reader", Operator = "operator", Admin = "admin" });

/// A role that a user holds on a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Id of the project.
    pub project_id: String,
    /// What the user may do there.
    pub role: Role,
}

/// A user with all of the user's roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRoles {
    /// The user.
    pub user: User,
    /// At most one per project.
    pub grants: Vec<Grant>,
}
