//! Who we are to a server, as it is typed: options, the environment, and what stands in the URL.

use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use keysweep_engine::{REQUIRES_PASSWORD, Stop, Target, TargetError};

use super::{Exit, connection::ConnectionArgs, signals::stop_on_signals, term};

/// Ways to provide a password, for error messages.
const OPTIONS: &str = "REDISCLI_AUTH, --password-file or --password-stdin";

/// Options for user, password and connection.
#[derive(Debug, Args)]
pub struct Login {
    /// ACL user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    password: Password,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Options for a password. No option takes one directly: every user of the machine can read a command line.
#[derive(Debug, Args)]
pub struct Password {
    /// Read the password from this file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

impl Login {
    /// Returns the target of a URL, and a stop that signals raise.
    ///
    /// # Errors
    /// The exit code, after the error was printed.
    pub fn prepare(&self, url: &str) -> Result<(Target, Stop), Exit> {
        let target = self.target(url).map_err(|sentence| {
            term::error(&sentence);
            Exit::Usage
        })?;
        let stop = stop_on_signals().map_err(|error| {
            term::error(&format!("cannot install signal handlers: {error}"));
            Exit::Failed
        })?;
        Ok((target, stop))
    }

    /// Builds the target. Precedence of the password: options, URL, environment.
    fn target(&self, url: &str) -> Result<Target, String> {
        let mut target: Target = url.parse().map_err(|error: TargetError| error.to_string())?;
        if let Some(user) = &self.user {
            target.credentials.username = Some(user.clone());
        }
        if let Some(password) = self.password.read()? {
            target.credentials.password = Some(password.into());
        }
        if target.credentials.password.is_none() {
            let ambient = env::var("REDISCLI_AUTH").ok().filter(|password| !password.is_empty());
            target.credentials.password = ambient.map(Into::into);
        }
        self.connection.read()?.check(&mut target)?;
        match target.credentials.username.is_some() && target.credentials.password.is_none() {
            true => Err(format!("--user requires a password; provide it with {OPTIONS}")),
            false => Ok(target),
        }
    }
}

/// Returns the message of a failure. A missing password gets a remedy: the options that provide one.
pub fn with_options(message: &str) -> String {
    match message.ends_with(REQUIRES_PASSWORD) {
        true => format!("{message}; provide it with {OPTIONS}"),
        false => message.to_owned(),
    }
}

impl Password {
    /// Returns the password, if an option provides one.
    ///
    /// # Errors
    /// The file or standard input cannot be read, or the password is empty.
    pub fn read(&self) -> Result<Option<String>, String> {
        let password = if let Some(path) = &self.password_file {
            secret_file("--password-file", path)?
        } else if self.password_stdin {
            secret_from_stdin().map_err(|error| format!("--password-stdin: {error}"))?
        } else {
            return Ok(None);
        };
        match password.is_empty() {
            true => Err("empty password; omit the option if the server requires none".into()),
            false => Ok(Some(password)),
        }
    }
}

/// Reads a secret from the file of an option, without a trailing newline.
///
/// # Errors
/// The file cannot be read; the message names option and path.
pub fn secret_file(option: &str, path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{option} {}: {error}", path.display()))?;
    Ok(without_newline(&text))
}

/// Reads a secret from standard input, without a trailing newline.
///
/// # Errors
/// Standard input cannot be read or is not UTF-8.
pub fn secret_from_stdin() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(without_newline(&text))
}

fn without_newline(text: &str) -> String {
    text.trim_end_matches(['\r', '\n']).to_owned()
}
