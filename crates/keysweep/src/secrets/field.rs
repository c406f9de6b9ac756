//! Names of the encrypted fields, each part of what its value is authenticated with.

/// The secret half of an access key.
pub const ACCESS_KEY: &str = "secret";
/// The password of an instance.
pub const PASSWORD: &str = "password";
/// An instance's password on its Sentinels.
pub const SENTINEL_PASSWORD: &str = "sentinel_password";
/// The key of an instance's client certificate.
pub const CLIENT_KEY: &str = "client_key";
