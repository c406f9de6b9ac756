//! Settings from flags, environment, file and defaults, in this order of precedence, checked before anything starts.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;

/// Where the API listens unless told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7080);

/// Options of every command that opens the store.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArgs {
    /// The database: sqlite:PATH [default: sqlite:keysweep.db in $XDG_DATA_HOME/keysweep]
    #[arg(long, value_name = "URL", env = "KEYSWEEP_DATABASE")]
    pub database: Option<String>,
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE", env = "KEYSWEEP_CONFIG")]
    pub config: Option<PathBuf>,
    /// The master key that encrypts stored secrets: 32 random bytes in base64 [default: the database's path + .key]
    #[arg(long, value_name = "PATH", env = "KEYSWEEP_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// Addresses that instances may have, as CIDR or CIDR:PORTS, separated by commas [default: private and loopback ranges]
    #[arg(long, value_name = "RANGES", env = "KEYSWEEP_ALLOWED_TARGETS", value_delimiter = ',')]
    pub allowed_targets: Option<Vec<String>>,
}

/// The settings file. Every field can be left out; a field that does not exist is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// As `--database`.
    pub database: Option<String>,
    /// As `--key-file`.
    pub key_file: Option<PathBuf>,
    /// As `serve --listen`.
    pub listen: Option<SocketAddr>,
    /// As `--allowed-targets`.
    pub allowed_targets: Option<Vec<String>>,
    /// As `serve --insecure-http`.
    pub insecure_http: Option<bool>,
}

/// Where the store and its master key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The SQLite file.
    pub database: PathBuf,
    /// The master key.
    pub key_file: PathBuf,
    /// Where instances may be; `None`: in private and loopback ranges.
    pub allowed_targets: Option<Vec<String>>,
}

impl FileConfig {
    /// Reads the file, if there is one to read.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
        // The parser's message shows the offending line, which may be one with a password in the database's URL.
        toml::from_str(&text).map_err(|error| anyhow::anyhow!("--config {}: {}", path.display(), error.message()))
    }
}

impl StoreArgs {
    /// The settings that these options, the file and the defaults amount to.
    pub fn resolve(&self, file: &FileConfig) -> anyhow::Result<StoreSettings> {
        let database = match self.database.as_ref().or(file.database.as_ref()) {
            Some(url) => sqlite_path(url)?,
            None => data_home()?.join("keysweep").join("keysweep.db"),
        };
        let key_file = self.key_file.clone().or_else(|| file.key_file.clone()).unwrap_or_else(|| {
            let mut path = database.clone().into_os_string();
            path.push(".key");
            path.into()
        });
        let allowed_targets = self.allowed_targets.clone().or_else(|| file.allowed_targets.clone());
        Ok(StoreSettings { database, key_file, allowed_targets })
    }
}

fn sqlite_path(url: &str) -> anyhow::Result<PathBuf> {
    let Some(path) = url.strip_prefix("sqlite:") else {
        let scheme = url.split(':').next().unwrap_or_default();
        if matches!(scheme, "postgres" | "postgresql") {
            bail!("--database: this version keeps its data in SQLite; write sqlite:PATH");
        }
        bail!("--database: the scheme {scheme:?} is not known; write sqlite:PATH");
    };
    match path.strip_prefix("//").unwrap_or(path) {
        "" => bail!("--database: sqlite: needs the path of a file, for example sqlite:/var/lib/keysweep/keysweep.db"),
        path => Ok(PathBuf::from(path)),
    }
}

fn data_home() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    home.context("neither XDG_DATA_HOME nor HOME is set; say where the data goes with --database sqlite:PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_stronger_than_the_file() {
        let file: FileConfig =
            toml::from_str("database = 'sqlite:from-file.db'\nlisten = '127.0.0.1:9'").expect("a config");
        let args = StoreArgs { database: Some("sqlite:flag.db".into()), ..StoreArgs::default() };
        let settings = args.resolve(&file).expect("settings");
        assert_eq!(settings.database, Path::new("flag.db"));
        assert_eq!(settings.key_file, Path::new("flag.db.key"));
        assert_eq!(StoreArgs::default().resolve(&file).expect("settings").database, Path::new("from-file.db"));
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert!(toml::from_str::<FileConfig>("databse = 'sqlite:x'").is_err());
    }

    #[test]
    fn other_databases_are_refused_without_repeating_the_url() {
        for url in ["postgres://u:secret@h/d", "mysql://u:secret@h", "keysweep.db", "sqlite:"] {
            let error = sqlite_path(url).expect_err(url).to_string();
            assert!(error.contains("sqlite:") && !error.contains("secret"), "{error}");
        }
    }
}
