//! How to reach a target's nodes beside its URL, as it is typed.

use std::{fs, path::PathBuf};

use clap::Args;

use super::login::secret_file;
use crate::fleet::Reach;

/// Options for TLS, Sentinels and announced addresses.
#[derive(Debug, Args)]
pub struct ReachArgs {
    /// Trust these authorities instead of the system's (PEM file)
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Show this certificate (PEM file)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of that certificate (PEM file)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The name that the servers' certificates must carry, where it is not the host's
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// User on the Sentinels; --user is the data nodes'
    #[arg(long, value_name = "NAME")]
    sentinel_user: Option<String>,
    /// Read the Sentinels' password from this file
    #[arg(long, value_name = "FILE")]
    sentinel_password_file: Option<PathBuf>,
    /// Reach a node that announces one address under another: host:port=host:port or host=host
    #[arg(long, value_name = "FROM=TO", value_delimiter = ',')]
    address_map: Vec<String>,
}

impl ReachArgs {
    /// Reads the files.
    pub fn read(&self) -> Result<Reach, String> {
        let file = |option: &str, path: &Option<PathBuf>| {
            let read = |path: &PathBuf| {
                fs::read_to_string(path).map_err(|error| format!("{option} {}: {error}", path.display()))
            };
            path.as_ref().map(read).transpose()
        };
        let password = self.sentinel_password_file.as_deref();
        let password = password.map(|path| secret_file("--sentinel-password-file", path)).transpose()?;
        Ok(Reach {
            sentinel_username: self.sentinel_user.clone(),
            sentinel_password: password.map(Into::into),
            ca: file("--cacert", &self.cacert)?,
            certificate: file("--cert", &self.cert)?,
            key: file("--key", &self.key)?.map(Into::into),
            server_name: self.sni.clone(),
            address_map: (!self.address_map.is_empty()).then(|| self.address_map.join(",")),
        })
    }
}
