//! Credentials for a server: from options, from the environment, and from the URL.

use std::path::PathBuf;

use clap::Args;
use keysweep_engine::{REQUIRES_PASSWORD, Stop, Target, TargetError};

use super::{Exit, connection::ConnectionArgs, signals::stop_on_signals, term};
use crate::{
    instances::Connection,
    secrets::{secret_file, secret_from_stdin, secret_variable},
};

/// Ways to provide a password, for error messages.
const OPTIONS: &str = "REDISCLI_AUTH, --password-file or --password-stdin";

/// Options for user, password and connection.
#[derive(Debug, Args)]
pub struct Login {
    /// Unix socket of the server, instead of a URL
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
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
    /// Returns the target of a URL or of `--socket`, and a stop that signals raise.
    ///
    /// # Errors
    /// The exit code, after the error was printed.
    pub fn prepare(&self, url: Option<&str>) -> Result<(Target, Stop), Exit> {
        let (mut targets, stop) = self.prepare_all(&[url])?;
        targets.pop().map(|target| (target, stop)).ok_or(Exit::Usage)
    }

    /// Returns whether the target is a unix socket.
    pub fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// Returns the targets of several URLs with the same options, and a stop that signals raise.
    ///
    /// # Errors
    /// The exit code, after the error was printed.
    pub fn prepare_all(&self, urls: &[Option<&str>]) -> Result<(Vec<Target>, Stop), Exit> {
        let (targets, stop) = self.prepare_each(urls)?;
        let targets = targets.into_iter().collect::<Result<_, _>>().map_err(invalid)?;
        Ok((targets, stop))
    }

    /// Returns the target of each URL with the same options, or the sentence that says why an option does not fit it, and a stop
    /// that signals raise.
    ///
    /// # Errors
    /// The exit code, after the error was printed: a file of an option cannot be read, whatever the URL.
    pub fn prepare_each(&self, urls: &[Option<&str>]) -> Result<(Vec<Result<Target, String>>, Stop), Exit> {
        let connection = self.connection.read().map_err(invalid)?;
        // The password is read once: standard input holds it only once.
        let password = self.password.read().map_err(invalid)?;
        let targets = urls.iter().map(|url| self.target(*url, password.as_deref(), &connection)).collect();
        let stop = stop_on_signals().map_err(|error| {
            term::error(&format!("cannot install signal handlers: {error}"));
            Exit::Failed
        })?;
        Ok((targets, stop))
    }

    /// Builds the target. Precedence of the password: options, URL, environment.
    fn target(&self, url: Option<&str>, password: Option<&str>, connection: &Connection) -> Result<Target, String> {
        let target = match (&self.socket, url) {
            (Some(path), _) => Target::socket(path),
            (None, url) => url.unwrap_or_default().parse(),
        };
        let mut target: Target = target.map_err(|error: TargetError| error.to_string())?;
        if let Some(user) = &self.user {
            target.credentials.username = Some(user.clone());
        }
        if let Some(password) = password {
            target.credentials.password = Some(password.to_owned().into());
        }
        if target.credentials.password.is_none() {
            target.credentials.password = secret_variable("REDISCLI_AUTH")?.map(Into::into);
        }
        connection.check(&mut target)?;
        match target.credentials.username.is_some() && target.credentials.password.is_none() {
            true => Err(format!("--user requires a password; provide it with {OPTIONS}")),
            false => Ok(target),
        }
    }
}

/// Prints what is wrong with the options.
fn invalid(sentence: String) -> Exit {
    term::error(&sentence);
    Exit::Usage
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
