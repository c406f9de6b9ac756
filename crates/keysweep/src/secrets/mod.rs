//! Secrets: encrypted at rest with the master key, and kept out of logs while they are in use.

pub mod field;

mod error;
mod key_file;
mod rotation;
mod secret;
mod text;
mod vault;

pub use self::{
    error::VaultError,
    rotation::{Rotated, RotationError, rotate},
    secret::Secret,
    text::{secret_file, secret_from_stdin, secret_variable},
    vault::Vault,
};
