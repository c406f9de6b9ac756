//! What is wrong with a certificate, where the TLS library has only a programmer's words for it.

use rustls::CertificateError;

/// The names that a certificate carries, as they are written in it: from `DnsName("cache.example")`.
pub fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    presented.iter().map(bare).collect::<Vec<_>>().join(", ")
}

/// Whether it is refused for being an authority's own: `openssl req -x509` makes such ones unless told otherwise.
pub fn is_of_an_authority(error: &CertificateError) -> bool {
    // The library below has a kind for it, which the one above hands on as something that can only be printed.
    matches!(error, CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

/// What to do about that.
pub const ISSUE_ANOTHER: &str = "let it issue another for the server, or make this one with `-addext \
     basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:…`";

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[r#"DnsName("cache.example")"#, "IpAddress(127.0.0.1)"], "cache.example, 127.0.0.1")]
    #[case(&["DirectoryName", "Unsupported(0x01)"], "DirectoryName, 0x01")]
    #[case(&[], "")]
    fn names_are_told_as_they_are_written(#[case] presented: &[&str], #[case] told: &str) {
        let presented: Vec<String> = presented.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names(&presented), told);
    }
}
