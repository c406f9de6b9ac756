//! Settings, validated before anything starts. Precedence: flags, environment variables, config file, defaults.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Deserializer, de::Error};

/// Default address of the API.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7080);

/// Options of every command that opens the store.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArgs {
    /// Database: sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/NAME [default: sqlite:keysweep.db in
    /// $XDG_DATA_HOME/keysweep]
    #[arg(long, value_name = "URL", env = "KEYSWEEP_DATABASE", hide_env_values = true, global = true)]
    pub database: Option<String>,
    /// Config file (TOML)
    #[arg(long, value_name = "FILE", env = "KEYSWEEP_CONFIG", hide_env_values = true, global = true)]
    pub config: Option<PathBuf>,
    /// Master key that encrypts stored secrets: 32 random bytes in base64 [default with SQLite: path of the database
    /// + .key; required with PostgreSQL]
    #[arg(long, value_name = "PATH", env = "KEYSWEEP_KEY_FILE", hide_env_values = true, global = true)]
    pub key_file: Option<PathBuf>,
    /// Addresses the service may connect to, as CIDR or CIDR:PORTS, comma-separated [default: private and loopback ranges]
    #[arg(
        long,
        value_name = "RANGES",
        env = "KEYSWEEP_ALLOWED_TARGETS",
        hide_env_values = true,
        value_delimiter = ',',
        global = true
    )]
    pub allowed_targets: Option<Vec<String>>,
    /// Begin with an empty SQLite database although its key file exists
    #[arg(long, global = true)]
    pub new_database: bool,
}

/// Parses an address to listen on.
///
/// # Errors
/// The expected format: the error of the standard library does not name it.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an IP address and a port, such as 127.0.0.1:7080 or [::1]:7080".to_owned())
}

fn read_address<'de, D: Deserializer<'de>>(field: D) -> Result<Option<SocketAddr>, D::Error> {
    address(&String::deserialize(field)?).map(Some).map_err(D::Error::custom)
}

/// The config file. Every field is optional; an unknown field is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// As `--database`.
    pub database: Option<String>,
    /// As `--key-file`.
    pub key_file: Option<PathBuf>,
    /// As `serve --listen`.
    #[serde(default, deserialize_with = "read_address")]
    pub listen: Option<SocketAddr>,
    /// As `--allowed-targets`.
    pub allowed_targets: Option<Vec<String>>,
    /// As `serve --tls-cert`.
    pub tls_cert: Option<PathBuf>,
    /// As `serve --tls-key`.
    pub tls_key: Option<PathBuf>,
    /// As `serve --public-url`.
    pub public_url: Option<String>,
    /// As `serve --region`.
    pub region: Option<String>,
    /// As `serve --domain`.
    pub domain: Option<String>,
    /// As `serve --trusted-proxies`.
    pub trusted_proxies: Option<Vec<String>>,
    /// As `serve --insecure-http`.
    pub insecure_http: Option<bool>,
    /// As `--metrics-listen`.
    #[serde(default, deserialize_with = "read_address")]
    pub metrics_listen: Option<SocketAddr>,
    /// As `--concurrency`.
    pub concurrency: Option<u32>,
    /// As `--host-concurrency`.
    pub host_concurrency: Option<u32>,
    /// As `--allow-clock-skew`.
    pub allow_clock_skew: Option<bool>,
    /// As `--history-retention`.
    pub history_retention: Option<u32>,
    /// As `--reply-memory`.
    pub reply_memory: Option<u32>,
}

/// Location of the database. Displayed without user and password.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// URL of a PostgreSQL database, including credentials.
    Postgres(String),
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => match url::Url::parse(url) {
                Ok(url) => {
                    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                    write!(f, "postgres://{}{port}{}", url.host_str().unwrap_or_default(), url.path())
                }
                Err(_) => f.write_str("postgres://…"),
            },
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Database {
    type Err = anyhow::Error;

    /// Parses `sqlite:PATH` or `postgres://…`. Errors do not repeat the URL: it may contain a password.
    fn from_str(url: &str) -> anyhow::Result<Self> {
        let scheme = url.split(':').next().unwrap_or_default();
        if matches!(scheme, "postgres" | "postgresql") && url.contains("://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        let Some(path) = url.strip_prefix("sqlite:") else {
            bail!("invalid --database: unknown scheme {scheme:?}, expected sqlite:PATH or postgres://…");
        };
        match path.strip_prefix("//").unwrap_or(path) {
            "" => {
                bail!(
                    "invalid --database: expected a path after sqlite:, for example sqlite:/var/lib/keysweep/keysweep.db"
                )
            }
            path => Ok(Self::Sqlite(PathBuf::from(path))),
        }
    }
}

/// Settings of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The database.
    pub database: Database,
    /// File of the master key.
    pub key_file: PathBuf,
    /// Addresses the service may connect to; `None`: private and loopback ranges.
    pub allowed_targets: Option<Vec<String>>,
    /// Whether to begin with an empty SQLite database although the key file exists.
    pub new_database: bool,
}

impl StoreSettings {
    /// Returns the folder of data beside the store: that of the SQLite file, else the default one, else that of the key file.
    pub fn data_folder(&self) -> PathBuf {
        let folder = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
        match &self.database {
            Database::Sqlite(path) => folder(path),
            Database::Postgres(_) => data_folder().unwrap_or_else(|_| folder(&self.key_file)),
        }
    }
}

impl FileConfig {
    /// Reads the config file; without a path, returns an empty one.
    ///
    /// # Errors
    /// The file cannot be read or parsed; the message names file and line.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
        toml::from_str(&text).map_err(|error| {
            // The Display of the parser's error quotes the line, which may hold a password in the URL of the database.
            let begin = error.span().map(|span| span.start.min(text.len()));
            let line = |begin: usize| 1 + text.as_bytes()[..begin].iter().filter(|byte| **byte == b'\n').count();
            let line = begin.map_or(String::new(), |begin| format!(", line {}", line(begin)));
            anyhow::anyhow!("--config {}{line}: {}", path.display(), error.message())
        })
    }
}

impl StoreArgs {
    /// Combines options, config file and defaults.
    ///
    /// # Errors
    /// The URL of the database is invalid, or the key file is missing.
    pub fn resolve(&self, file: &FileConfig) -> anyhow::Result<StoreSettings> {
        let database: Database = match self.database.as_ref().or(file.database.as_ref()) {
            Some(url) => url.parse()?,
            None => Database::Sqlite(data_folder()?.join("keysweep.db")),
        };
        let key_file = match (self.key_file.as_ref().or(file.key_file.as_ref()), &database) {
            (Some(path), _) => path.clone(),
            (None, Database::Sqlite(path)) => key_file_beside(path),
            (None, Database::Postgres(_)) => bail!("--key-file: {KEY_ON_POSTGRES}"),
        };
        if matches!(database, Database::Postgres(_)) && !key_file.exists() {
            bail!("--key-file {}: no such file; {KEY_ON_POSTGRES}", key_file.display());
        }
        let allowed_targets = self.allowed_targets.clone().or_else(|| file.allowed_targets.clone());
        Ok(StoreSettings { database, key_file, allowed_targets, new_database: self.new_database })
    }
}

/// Returns the path of the key file of a SQLite database for which none is given.
fn key_file_beside(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".key");
    path.into()
}

/// Why keysweep does not generate a key for PostgreSQL, and the command that does.
const KEY_ON_POSTGRES: &str = "with PostgreSQL all replicas share one key; generate it with: (umask 077; head -c 32 \
                               /dev/urandom | base64 > keysweep.key)";

/// Returns the folder of data where no option names one.
///
/// # Errors
/// Neither XDG_DATA_HOME nor HOME is set.
pub fn data_folder() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    let home = home.context(
        "neither XDG_DATA_HOME nor HOME is set; choose the location of the data with --database sqlite:PATH or --data-dir",
    )?;
    Ok(home.join("keysweep"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_overrides_the_config_file() {
        let file: FileConfig =
            toml::from_str("database = 'sqlite:from-file.db'\nlisten = '127.0.0.1:9'").expect("a config");
        let args = StoreArgs { database: Some("sqlite:flag.db".into()), ..StoreArgs::default() };
        let settings = args.resolve(&file).expect("settings");
        assert_eq!(settings.database, Database::Sqlite("flag.db".into()));
        assert_eq!(settings.key_file, Path::new("flag.db.key"));
        let settings = StoreArgs::default().resolve(&file).expect("settings");
        assert_eq!(settings.database, Database::Sqlite("from-file.db".into()));
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert!(toml::from_str::<FileConfig>("databse = 'sqlite:x'").is_err());
    }

    #[test]
    fn a_host_name_as_address_is_rejected_with_an_example() {
        let error = toml::from_str::<FileConfig>("listen = 'localhost:7080'").expect_err("a name").to_string();
        assert!(error.contains("127.0.0.1:7080"), "{error}");
        assert!(toml::from_str::<FileConfig>("metrics_listen = '[::1]:7081'").expect("a config").listen.is_none());
    }

    #[test]
    fn other_databases_are_rejected_without_repeating_the_url() {
        for url in ["mysql://u:secret@h", "keysweep.db", "sqlite:", "postgres:secret"] {
            let error = url.parse::<Database>().expect_err(url).to_string();
            assert!(error.contains("sqlite:") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_database_is_displayed_without_user_and_password() {
        let database: Database = "postgres://u:secret@db.example:5433/keysweep?sslmode=disable".parse().expect("a URL");
        assert_eq!(database.to_string(), "postgres://db.example:5433/keysweep");
        assert_eq!(format!("{database:?}"), database.to_string());
    }

    #[test]
    fn with_postgres_the_key_file_must_be_given_and_exist() {
        let args = |key_file: Option<&str>| StoreArgs {
            database: Some("postgres://u:secret@h/d".into()),
            key_file: key_file.map(Into::into),
            ..StoreArgs::default()
        };
        for key_file in [None, Some("/absent/keysweep.key")] {
            let error = args(key_file).resolve(&FileConfig::default()).expect_err("no key").to_string();
            assert!(error.contains("--key-file") && error.contains("urandom") && !error.contains("secret"), "{error}");
        }
    }
}
