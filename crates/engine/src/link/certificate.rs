//! Errors of certificates, where the TLS library describes them only for programmers.

use rustls::CertificateError;

/// Returns the names of a certificate as they are written in it: from `DnsName("cache.example")`.
pub fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    presented.iter().map(bare).collect::<Vec<_>>().join(", ")
}

/// Whether the certificate is refused because it is a CA certificate, which `openssl req -x509` makes by default.
pub fn is_ca(error: &CertificateError) -> bool {
    // webpki has a kind for this error; rustls passes it on in a form that can only be printed.
    matches!(error, CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

/// Remedy for a CA certificate.
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
    fn names_are_displayed_as_they_are_written(#[case] presented: &[&str], #[case] displayed: &str) {
        let presented: Vec<String> = presented.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names(&presented), displayed);
    }
}
