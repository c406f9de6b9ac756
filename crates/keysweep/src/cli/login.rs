//! Who we are to a server, as it is typed: options, the environment, and what stands in the URL.

use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use keysweep_engine::{REQUIRES_PASSWORD, Stop, Target, TargetError};

use super::{Exit, reach::ReachArgs, signals::stop_on_signals, term};

/// What a password can be given with.
const OPTIONS: &str = "REDISCLI_AUTH, --password-file or --password-stdin";

/// Options for user and password.
#[derive(Debug, Args)]
pub struct Login {
    /// ACL user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    password: Password,
    #[command(flatten)]
    reach: ReachArgs,
}

/// Options for a password. The command line itself is no place for one: everybody on the machine can read it.
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
    /// What every command that meets a server begins with: the target of a URL, and a stop that signals raise. An error
    /// is on the terminal already.
    pub fn begin(&self, url: &str) -> Result<(Target, Stop), Exit> {
        let target = self.target(url).map_err(|sentence| {
            term::error(&sentence);
            Exit::Usage
        })?;
        let stop = stop_on_signals().map_err(|error| {
            term::error(&format!("signals cannot be caught: {error}"));
            Exit::Failed
        })?;
        Ok((target, stop))
    }

    /// Options are stronger than the URL, the URL is stronger than the environment: what somebody typed now stands
    /// above what a shell was once told.
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
        self.reach.read()?.try_on(&mut target)?;
        match target.credentials.username.is_some() && target.credentials.password.is_none() {
            true => Err(format!("a user needs a password; give it with {OPTIONS}")),
            false => Ok(target),
        }
    }
}

/// A failure's sentence, with the options that a missing password can be given with.
pub fn with_options(message: &str) -> String {
    match message.ends_with(REQUIRES_PASSWORD) {
        true => format!("{message}; give it with {OPTIONS}"),
        false => message.to_owned(),
    }
}

impl Password {
    /// The password, if these options give one.
    pub fn read(&self) -> Result<Option<String>, String> {
        let password = if let Some(path) = &self.password_file {
            secret_file("--password-file", path)?
        } else if self.password_stdin {
            secret_from_stdin().map_err(|error| format!("--password-stdin: {error}"))?
        } else {
            return Ok(None);
        };
        match password.is_empty() {
            true => Err("the password is empty; leave the option out where none is needed".into()),
            false => Ok(Some(password)),
        }
    }
}

/// A secret from a file that an option names; a line's end behind it is no part of it.
pub fn secret_file(option: &str, path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{option} {}: {error}", path.display()))?;
    Ok(without_line_end(&text))
}

/// A secret from standard input.
pub fn secret_from_stdin() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(without_line_end(&text))
}

fn without_line_end(text: &str) -> String {
    text.trim_end_matches(['\r', '\n']).to_owned()
}
