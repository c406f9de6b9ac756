//! Options for the connection to an instance beside its URL: TLS files, Sentinel credentials, address map.

use std::{fs, path::PathBuf};

use clap::Args;

use crate::{instances::Connection, secrets::secret_file};

/// Options for TLS, Sentinels and announced addresses.
#[derive(Debug, Args)]
pub struct ConnectionArgs {
    /// CA bundle to verify the server, instead of the system's CA certificates (PEM file)
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Client certificate (mTLS, PEM file)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM file)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Name to verify in server certificates, instead of the host in the URL
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// ACL user on the Sentinels; --user is for the data nodes
    #[arg(long, value_name = "NAME")]
    sentinel_user: Option<String>,
    /// Read the password for the Sentinels from this file
    #[arg(long, value_name = "FILE")]
    sentinel_password_file: Option<PathBuf>,
    /// Whether to encrypt connections to the Sentinels: on, off, or same as those to the data nodes [default: same, or
    /// as ?sentinel_tls= in the URL says]
    #[arg(long, value_name = "WHETHER", value_parser = ["on", "off", "same"])]
    sentinel_tls: Option<String>,
    /// Connect to a node that announces address FROM under address TO: host:port=host:port or host=host, IPv6 as [fd00::1]
    #[arg(long, value_name = "FROM=TO", value_delimiter = ',')]
    address_map: Vec<String>,
}

impl ConnectionArgs {
    /// Reads the files that the options name.
    ///
    /// # Errors
    /// A file cannot be read; the message names option and path.
    pub fn read(&self) -> Result<Connection, String> {
        let file = |option: &str, path: &Option<PathBuf>| {
            let read = |path: &PathBuf| {
                fs::read_to_string(path).map_err(|error| format!("{option} {}: {error}", path.display()))
            };
            path.as_ref().map(read).transpose()
        };
        let password = self.sentinel_password_file.as_deref();
        let password = password.map(|path| secret_file("--sentinel-password-file", path)).transpose()?;
        Ok(Connection {
            sentinel_username: self.sentinel_user.clone(),
            sentinel_password: password.map(Into::into),
            ca: file("--cacert", &self.cacert)?,
            certificate: file("--cert", &self.cert)?,
            key: file("--key", &self.key)?.map(Into::into),
            server_name: self.sni.clone(),
            address_map: (!self.address_map.is_empty()).then(|| self.address_map.join(",")),
            sentinel_tls: self.sentinel_tls.clone(),
        })
    }
}
