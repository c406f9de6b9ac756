//! The inventory: a YAML file, kept in version control, that lists servers with names, labels and where their secrets are.
//!
//! The file holds no secret itself: passwords stand in files or environment variables that it names. Errors name file, line
//! and field, and repeat no value that could be a secret.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use keysweep_engine::Target;
use serde::Deserialize;
use serde_saphyr::{Error as YamlError, Location, Spanned};

use crate::{
    instances::{Connection, ListedInstance},
    model::{InvalidField, Label, Labels, check_name},
    secrets::{Secret, secret_file, secret_variable},
};

/// Longest file, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Most servers in a file.
const MAX_ENTRIES: usize = 10_000;

/// Why an inventory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The file cannot be read.
    #[error("cannot read the inventory {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// The file is not a valid inventory, or a secret that it names cannot be read.
    #[error("{}{place}: {cause}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: Place,
        /// What is wrong and what to do, without secrets.
        cause: String,
    },
}

/// A place in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1; 0: unknown.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => Ok(()),
            line => write!(f, ", line {line}"),
        }
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line() }
    }
}

/// The servers of an inventory, in the order of the file.
#[derive(Debug)]
pub struct Inventory {
    /// The servers.
    pub entries: Vec<Entry>,
}

/// One server of an inventory.
#[derive(Debug)]
pub struct Entry {
    /// Name, unique in the file.
    pub name: String,
    /// Labels by which servers are selected.
    pub labels: Labels,
    path: PathBuf,
    place: Place,
    /// Without the secrets that the entry names.
    target: Target,
    raw: RawEntry,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInventory {
    instances: Vec<Spanned<RawEntry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: String,
    url: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password_file: Option<PathBuf>,
    sentinel_password_env: Option<String>,
    sentinel_tls: Option<String>,
    address_map: Option<String>,
}

impl Inventory {
    /// Reads an inventory. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid inventory.
    pub fn read(path: &Path) -> Result<Self, InventoryError> {
        let failed = |why| InventoryError::File { path: path.to_owned(), why };
        let size = fs::metadata(path).map_err(failed)?.len();
        if size > MAX_BYTES {
            let why = format!("it has {size} bytes; at most {MAX_BYTES} are read");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        Self::parse(&fs::read_to_string(path).map_err(failed)?, path)
    }

    /// Reads the text of an inventory; `path` is the file that it is from.
    ///
    /// # Errors
    /// The text is not a valid inventory.
    pub fn parse(text: &str, path: &Path) -> Result<Self, InventoryError> {
        let invalid = |place, cause| InventoryError::Invalid { path: path.to_owned(), place, cause };
        // A snippet of the file could show a secret that stands there by mistake.
        let options = serde_saphyr::options! { with_snippet: false };
        let raw: RawInventory = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let (place, cause) = describe(&error);
            invalid(place, cause)
        })?;
        if raw.instances.len() > MAX_ENTRIES {
            return Err(invalid(Place::default(), format!("more than {MAX_ENTRIES} instances; use several files")));
        }
        let mut lines: HashMap<String, u64> = HashMap::new();
        let mut entries = Vec::with_capacity(raw.instances.len());
        for Spanned { value, referenced, .. } in raw.instances {
            let place = Place::from(referenced);
            let entry = Entry::new(value, path, place).map_err(|cause| invalid(place, cause))?;
            if let Some(line) = lines.insert(entry.name.clone(), place.line) {
                let cause = format!("invalid name {:?}: line {line} has it already; choose another one", entry.name);
                return Err(invalid(place, cause));
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// Keeps the servers that have all of these labels.
    pub fn select(&mut self, labels: &[Label]) {
        self.entries.retain(|entry| entry.labels.have(labels));
    }
}

impl Entry {
    fn new(raw: RawEntry, path: &Path, place: Place) -> Result<Self, String> {
        let words = |error: InvalidField| error.to_string();
        check_name("name", &raw.name).map_err(words)?;
        let labels = Labels::new(raw.labels.clone()).map_err(words)?;
        // Not repeated: the URL may hold a password.
        let (target, _) = Target::parse(&raw.url, raw.has_password()).map_err(|error| format!("url: {error}"))?;
        if target.credentials.password.is_some() {
            return Err("url: holds a password; an inventory holds none, name a file with password_file or a variable with password_env".into());
        }
        for (file, variable, field) in [
            (&raw.password_file, &raw.password_env, "password"),
            (&raw.sentinel_password_file, &raw.sentinel_password_env, "sentinel_password"),
        ] {
            if file.is_some() && variable.is_some() {
                return Err(format!("{field}_file and {field}_env: give one of the two"));
            }
        }
        Ok(Self { name: raw.name.clone(), labels, path: path.to_owned(), place, target, raw })
    }

    /// Returns the target, with the secrets that the entry names.
    ///
    /// # Errors
    /// A file or variable cannot be read, or a setting does not fit the URL; the message names field and place.
    pub fn target(&self) -> Result<Target, InventoryError> {
        self.read_target().map_err(|cause| self.invalid(&cause))
    }

    /// Returns the instance that the entry lists, with the secrets that it names. Checked as [`Entry::target`] is.
    ///
    /// # Errors
    /// As [`Entry::target`].
    pub fn listed_instance(&self) -> Result<ListedInstance, InventoryError> {
        self.target()?;
        let raw = &self.raw;
        let read = || -> Result<ListedInstance, String> {
            Ok(ListedInstance {
                name: self.name.clone(),
                url: raw.url.clone(),
                username: raw.username.clone(),
                password: self.secret("password", raw.password_file.as_deref(), raw.password_env.as_deref())?,
                connection: self.connection()?,
                labels: self.labels.clone(),
            })
        };
        read().map_err(|cause| self.invalid(&cause))
    }

    fn invalid(&self, cause: &str) -> InventoryError {
        let cause = format!("instance {:?}: {cause}", self.name);
        InventoryError::Invalid { path: self.path.clone(), place: self.place, cause }
    }

    fn read_target(&self) -> Result<Target, String> {
        let raw = &self.raw;
        let password = self.secret("password", raw.password_file.as_deref(), raw.password_env.as_deref())?;
        let mut target = self.target.clone();
        if let Some(username) = &raw.username {
            target.credentials.username = Some(username.clone());
        }
        target.credentials.password = password.map(Into::into);
        if target.credentials.username.is_some() && target.credentials.password.is_none() {
            return Err(
                "username: needs a password; name its file with password_file or its variable with password_env".into(),
            );
        }
        self.connection()?.check(&mut target)?;
        Ok(target)
    }

    /// Returns the connection settings, with the files that the entry names.
    ///
    /// # Errors
    /// A file or variable cannot be read; the message names the field.
    fn connection(&self) -> Result<Connection, String> {
        let raw = &self.raw;
        let file = |field: &str, path: &Option<PathBuf>| {
            let read = |path: &PathBuf| {
                let path = self.beside(path);
                fs::read_to_string(&path).map_err(|error| format!("{field} {}: {error}", path.display()))
            };
            path.as_ref().map(read).transpose()
        };
        Ok(Connection {
            sentinel_username: raw.sentinel_username.clone(),
            sentinel_password: self.secret(
                "sentinel_password",
                raw.sentinel_password_file.as_deref(),
                raw.sentinel_password_env.as_deref(),
            )?,
            ca: file("ca_file", &raw.ca_file)?,
            certificate: file("certificate_file", &raw.certificate_file)?,
            key: file("key_file", &raw.key_file)?.map(Into::into),
            server_name: raw.server_name.clone(),
            address_map: raw.address_map.clone(),
            sentinel_tls: raw.sentinel_tls.clone(),
        })
    }

    /// Reads the secret of a field from its file or its variable, if the entry names one.
    fn secret(&self, field: &str, file: Option<&Path>, variable: Option<&str>) -> Result<Option<Secret>, String> {
        let secret = match (file, variable) {
            (Some(path), _) => Some(secret_file(&format!("{field}_file"), &self.beside(path))?),
            (None, Some(name)) => {
                let value = secret_variable(name)?;
                Some(value.ok_or_else(|| format!("{field}_env: the variable {name} is not set, or empty"))?)
            }
            (None, None) => None,
        };
        match secret {
            Some(secret) if secret.is_empty() => {
                Err(format!("{field}_file: the file is empty; leave the field out if the server needs no password"))
            }
            secret => Ok(secret.map(Into::into)),
        }
    }

    fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

impl RawEntry {
    fn has_password(&self) -> bool {
        self.password_file.is_some() || self.password_env.is_some()
    }
}

/// Returns where an error is and what it says, without values of the file.
fn describe(error: &YamlError) -> (Place, String) {
    let error = error.without_snippet();
    let place = error.location().map(Place::from).unwrap_or_default();
    let cause = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            let field: String = field.chars().take(80).collect();
            format!("unknown field {field:?}; expected one of {}", expected.join(", "))
        }
        YamlError::SerdeMissingField { field, .. } => format!("missing field {field:?}"),
        YamlError::DuplicateMappingKey { .. } => "the same field twice; remove one".to_owned(),
        YamlError::SerdeInvalidType { expected, .. } => {
            format!("a value of another type than documented; expected {expected}")
        }
        YamlError::Eof { .. } => "the file is empty; expected instances".to_owned(),
        YamlError::Budget { .. } | YamlError::AliasError { .. } => {
            "too many aliases, or too deeply nested; write the values out".to_owned()
        }
        _ => "not YAML of the documented form".to_owned(),
    };
    (place, cause)
}

#[cfg(test)]
mod tests;
