//! Secrets as they are read: from a file, an environment variable or standard input, in UTF-8.

use std::{
    env::{self, VarError},
    fs,
    io::Read,
    path::Path,
};

/// Why bytes are refused that are no text, and what to do.
const NOT_UTF8: &str = "is not UTF-8, the only encoding in which keysweep sends passwords; convert it (iconv -t UTF-8), or \
                        set a password in UTF-8 on the server";
/// Mark with which some editors begin a UTF-8 text. No part of the password in it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a secret from the file that an option or a field names, without byte order mark and trailing newline.
///
/// # Errors
/// The file cannot be read or is not UTF-8; the message names option and path.
pub fn secret_file(option: &str, path: &Path) -> Result<String, String> {
    let failed = |cause: String| format!("{option} {}: {cause}", path.display());
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    secret(bytes).map_err(|cause| failed(format!("the file {cause}")))
}

/// Reads a secret from an environment variable; `None`: it is not set, or empty.
///
/// # Errors
/// The value is not UTF-8; the message names the variable.
pub fn secret_variable(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Err(VarError::NotUnicode(_)) => Err(format!("{name} {NOT_UTF8}")),
        value => Ok(value.ok().filter(|value| !value.is_empty())),
    }
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
