//! I/O and TLS errors as link errors, those of TLS with a remedy.

use std::io;

use rustls::{AlertDescription, CertificateError};

use super::{certificate, error::LinkError};

/// Reads an I/O error of a byte stream.
pub(super) fn from_io(error: &io::Error) -> LinkError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => LinkError::Closed,
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => from_tls(error),
            None => LinkError::Io(error.to_string()),
        },
    }
}

/// Describes a TLS error, with its remedy.
pub(super) fn from_tls(error: &rustls::Error) -> LinkError {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    LinkError::Tls(match error {
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the server's certificate has expired; renew it".into()
        }
        InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the server's certificate is not valid yet; check the clocks".into()
        }
        InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => format!(
            "the server's certificate is not for {}, {}; dial it by such a name, or set it with --sni",
            expected.to_str(),
            match presented.as_slice() {
                [] => "it carries no name (subject alternative name) at all".into(),
                presented => format!("but for {}", certificate::names(presented)),
            }
        ),
        InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is signed by an unknown authority; name its CA certificate with --cacert".into()
        }
        InvalidCertificate(CertificateError::BadSignature) => {
            "the server's certificate is not signed by the CA given with --cacert".into()
        }
        InvalidCertificate(error) if certificate::is_ca(error) => {
            format!("the server's certificate is a CA certificate; {}", certificate::ISSUE_ANOTHER)
        }
        AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            "the server requires a client certificate; give it with --cert and --key".into()
        }
        AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError,
        ) => "the server rejects the client certificate; it must be signed by a CA that the server trusts".into(),
        AlertReceived(AlertDescription::CertificateExpired) => "the client certificate has expired; renew it".into(),
        InvalidMessage(_) => "the server does not speak TLS on this port; use the scheme without the second s".into(),
        other => other.to_string(),
    })
}
