//! Those who call, what they may do where, and what they did.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::Serialize;

use super::{Sealed, UnknownName, named};

/// A tenant: owns instances and their tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Project {
    /// 32 hexadecimal digits, or a UUID as the caller gave it.
    pub id: String,
    /// Unique.
    pub name: String,
    /// When it was added.
    pub created_at: Timestamp,
}

/// Somebody, or some program, that calls the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Unique.
    pub name: String,
    /// An argon2 hash in PHC notation; `None`: this user has access keys only.
    pub password_hash: Option<String>,
    /// A disabled user's credentials are refused.
    pub disabled: bool,
    /// When the user was added.
    pub created_at: Timestamp,
}

/// What a user may do in a project; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Every GET.
    Reader,
    /// Create and cancel tasks, set auto-scan.
    Operator,
    /// Instances, users, keys and the audit trail of that project.
    Admin,
}
named!(Role, "role", { Reader = "reader", Operator = "operator", Admin = "admin" });

/// A role that a user holds on a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The project.
    pub project_id: String,
    /// What the user may do there.
    pub role: Role,
}

/// A user's key for signing requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The public half, 20 upper-case letters and digits.
    pub access: String,
    /// Whose key it is.
    pub user_id: String,
    /// The secret half, encrypted: a signature can only be verified with the secret itself.
    pub secret: Sealed,
    /// A disabled key's signatures are refused.
    pub disabled: bool,
    /// When it was added.
    pub created_at: Timestamp,
}

/// An access key with all that is needed to decide what its signature may do.
#[derive(Debug, Clone)]
pub struct KeyHolder {
    /// The key itself.
    pub key: AccessKey,
    /// Its user.
    pub user: User,
    /// The user's roles.
    pub grants: Vec<Grant>,
}

/// A user with the roles that the user holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRoles {
    /// The user.
    pub user: User,
    /// At most one a project.
    pub grants: Vec<Grant>,
}

/// A token, as it is kept: whoever reads the store cannot use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token.
    pub hash: Vec<u8>,
    /// Whose it is.
    pub user_id: String,
    /// The project that it is good for.
    pub project_id: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A token with all that is needed to decide what it may do.
#[derive(Debug, Clone)]
pub struct TokenHolder {
    /// The token itself.
    pub token: Token,
    /// Its user.
    pub user: User,
    /// The user's role on the token's project; `None`: it was taken away.
    pub role: Option<Role>,
}

/// One line of the audit trail: who did what to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Grows with each entry.
    pub seq: i64,
    /// When.
    pub happened_at: Timestamp,
    /// Where; `None`: in no project.
    pub project_id: Option<String>,
    /// Name of the user; `None`: no authentication, or the schedule.
    pub actor: Option<String>,
    /// What, for example `task.create`.
    pub action: String,
    /// Id of what it was done to.
    pub subject: String,
    /// JSON, without secrets.
    pub detail: Option<String>,
}
