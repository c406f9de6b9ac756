//! Who we are to a server, as it is typed: options, the environment, and what stands in the URL.

use std::{
    env::{self, VarError},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use keysweep_engine::{REQUIRES_PASSWORD, Stop, Target, TargetError};

use super::{Exit, connection::ConnectionArgs, signals::stop_on_signals, term};

/// Ways to provide a password, for error messages.
const OPTIONS: &str = "REDISCLI_AUTH, --password-file or --password-stdin";

/// Why bytes are refused that are no text, and what to do.
const NOT_UTF8: &str = "is not UTF-8, the only encoding in which keysweep sends passwords; convert it (iconv -t UTF-8), or \
                        set a password in UTF-8 on the server";
/// Mark with which some editors begin a UTF-8 text. No part of the password in it.
const BYTE_ORDER_MARK: char = '\u{feff}';

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

    /// Returns the targets of several URLs with the same options, and a stop that signals raise.
    ///
    /// # Errors
    /// The exit code, after the error was printed.
    pub fn prepare_all(&self, urls: &[Option<&str>]) -> Result<(Vec<Target>, Stop), Exit> {
        // The password is read once: standard input holds it only once.
        let targets = self.password.read().and_then(|password| {
            urls.iter().map(|url| self.target(*url, password.as_deref())).collect::<Result<Vec<Target>, String>>()
        });
        let targets = targets.map_err(|sentence| {
            term::error(&sentence);
            Exit::Usage
        })?;
        let stop = stop_on_signals().map_err(|error| {
            term::error(&format!("cannot install signal handlers: {error}"));
            Exit::Failed
        })?;
        Ok((targets, stop))
    }

    /// Builds the target. Precedence of the password: options, URL, environment.
    fn target(&self, url: Option<&str>, password: Option<&str>) -> Result<Target, String> {
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
            let ambient = match env::var("REDISCLI_AUTH") {
                Err(VarError::NotUnicode(_)) => return Err(format!("REDISCLI_AUTH {NOT_UTF8}")),
                password => password.ok().filter(|password| !password.is_empty()),
            };
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

/// Reads a secret from the file of an option, without byte order mark and trailing newline.
///
/// # Errors
/// The file cannot be read or is not UTF-8; the message names option and path.
pub fn secret_file(option: &str, path: &Path) -> Result<String, String> {
    let failed = |cause: String| format!("{option} {}: {cause}", path.display());
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    secret(bytes).map_err(|cause| failed(format!("the file {cause}")))
}

/// Reads a secret from standard input, without byte order mark and trailing newline.
///
/// # Errors
/// Standard input cannot be read or is not UTF-8.
pub fn secret_from_stdin() -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    secret(bytes).map_err(|cause| std::io::Error::other(format!("the input {cause}")))
}

/// Returns the text of a secret. The error is the end of a sentence, and repeats nothing of the secret.
fn secret(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("is UTF-16, which PowerShell's > writes; save it as UTF-8".into());
    }
    let text = String::from_utf8(bytes).map_err(|_| NOT_UTF8.to_owned())?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain(b"p\xc3\xa4ss\r\n", Ok("p\u{e4}ss"))]
    #[case::with_a_byte_order_mark(b"\xef\xbb\xbfpass\n", Ok("pass"))]
    #[case::utf_16(b"\xff\xfep\0a\0", Err("UTF-16"))]
    #[case::latin_1(b"hunter2\xe4", Err("not UTF-8"))]
    fn a_secret_is_read_as_text(#[case] bytes: &[u8], #[case] expected: Result<&str, &str>) {
        match (secret(bytes.to_vec()), expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected),
            (Err(cause), Err(word)) => assert!(cause.contains(word) && !cause.contains("hunter2"), "{cause}"),
            other => panic!("{other:?}"),
        }
    }
}
