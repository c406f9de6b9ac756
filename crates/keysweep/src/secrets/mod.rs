//! Secrets: encrypted at rest with the master key, and kept out of logs while they are in use.

mod key_file;
mod rotation;
mod secret;
mod text;
mod vault;

pub use self::{
    rotation::{Rotated, RotationError, rotate},
    secret::Secret,
    text::{secret_file, secret_from_stdin, secret_variable},
    vault::{Vault, VaultError},
};

/// Names of the encrypted fields, each part of what its value is authenticated with.
pub mod field {
    /// The secret half of an access key.
    pub const ACCESS_KEY: &str = "secret";
    /// The password of an instance.
    pub const PASSWORD: &str = "password";
    /// An instance's password on its Sentinels.
    pub const SENTINEL_PASSWORD: &str = "sentinel_password";
    /// The key of an instance's client certificate.
    pub const CLIENT_KEY: &str = "client_key";
}
