//! Errors of servers' certificates: what is wrong with the certificate, and how to issue one that can be verified.

use rustls::CertificateError;

/// Describes the error of a server's certificate, with its remedy.
pub fn sentence(error: &CertificateError) -> String {
    use CertificateError::{
        BadEncoding, BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext,
        NotValidForNameContext, NotValidYet, NotValidYetContext, Other, UnhandledCriticalExtension, UnknownIssuer,
    };
    match error {
        Expired | ExpiredContext { .. } => "the server's certificate has expired; renew it".into(),
        NotValidYet | NotValidYetContext { .. } => "the server's certificate is not valid yet; check the clocks".into(),
        NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {}, {}; dial it by such a name, or set it with --sni",
            expected.to_str(),
            match presented.as_slice() {
                [] => "it carries no name (subject alternative name) at all".into(),
                presented => format!("but for {}", names(presented)),
            }
        ),
        UnknownIssuer => {
            "the server's certificate is signed by an unknown authority; name its CA certificate with --cacert".into()
        }
        BadSignature => "the server's certificate is not signed by the CA given with --cacert".into(),
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "the server's certificate is not one for servers; issue another with extendedKeyUsage=serverAuth".into()
        }
        error if is_ca(error) => format!("the server's certificate is a CA certificate; {ISSUE_ANOTHER}"),
        Other(other) if is(other, "UnsupportedCertVersion") => {
            "the server's certificate is one of X.509 version 1, which names no host; issue one of version 3 with `openssl x509 -req -extfile` and subjectAltName=DNS:…"
                .into()
        }
        BadEncoding | UnhandledCriticalExtension | Other(_) => {
            format!("the server's certificate has parts that cannot be read ({}); issue another", kind(error))
        }
        error if kind(error).starts_with("UnsupportedSignatureAlgorithm") => {
            "the server's certificate is signed with an algorithm that is not accepted; issue another with SHA-256 and an RSA key of 2048 to 8192 bits, or an elliptic curve"
                .into()
        }
        error => format!("the server's certificate cannot be verified ({})", kind(error)),
    }
}

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
    matches!(error, CertificateError::Other(other) if is(other, "CaUsedAsEndEntity"))
}

/// Whether the error is this one of webpki's, which rustls passes on in a form that can only be printed.
fn is(error: &rustls::OtherError, kind: &str) -> bool {
    format!("{error:?}").contains(kind)
}

/// Returns the error's name in the TLS library, without the values that belong to it.
fn kind(error: &CertificateError) -> String {
    let printed = match error {
        CertificateError::Other(other) => format!("{other:?}"),
        error => format!("{error:?}"),
    };
    let inner = printed.strip_prefix("OtherError(").unwrap_or(&printed);
    inner.chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// Remedy for a CA certificate.
pub const ISSUE_ANOTHER: &str = "let it issue another for the server, or make this one with `-addext \
     basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:…`";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use rustls::OtherError;

    use super::*;

    #[rstest]
    #[case(&[r#"DnsName("cache.example")"#, "IpAddress(127.0.0.1)"], "cache.example, 127.0.0.1")]
    #[case(&["DirectoryName", "Unsupported(0x01)"], "DirectoryName, 0x01")]
    #[case(&[], "")]
    fn names_are_displayed_as_they_are_written(#[case] presented: &[&str], #[case] displayed: &str) {
        let presented: Vec<String> = presented.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names(&presented), displayed);
    }

    /// An error as webpki names it.
    #[derive(Debug)]
    struct NameConstraintViolation;

    impl std::fmt::Display for NameConstraintViolation {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("NameConstraintViolation")
        }
    }

    impl std::error::Error for NameConstraintViolation {}

    #[test]
    fn an_error_without_a_sentence_of_its_own_is_named_without_debug_text() {
        let other = CertificateError::Other(OtherError(Arc::new(NameConstraintViolation)));
        for (error, name) in [(other, "NameConstraintViolation"), (CertificateError::Revoked, "Revoked")] {
            let sentence = sentence(&error);
            assert!(sentence.contains(&format!("({name})")), "{sentence}");
            assert!(!sentence.contains("Other"), "{sentence}");
        }
    }
}
