//! I/O and TLS errors as link errors, those of TLS with a remedy.

use std::io;

use rustls::{AlertDescription, PeerIncompatible};

use super::{certificate, error::LinkError};

/// What a server with TLS needs so that keysweep can talk to it.
const MODERN_TLS: &str = "keysweep speaks TLS 1.3, and TLS 1.2 with ECDHE and AES-GCM or ChaCha20";

/// Sentence about a server that asks for a client certificate where there is none.
pub(super) const CERTIFICATE_REQUIRED: &str = "the server requires a client certificate; give it with --cert and --key";

/// Reads an I/O error of a byte stream.
pub(super) fn from_io(error: &io::Error) -> LinkError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => LinkError::Closed,
        _ => match tls_error(error) {
            Some(error) => from_tls(error, true),
            None => LinkError::Io(error.to_string()),
        },
    }
}

/// Returns the TLS error inside of an I/O error.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Describes a TLS error, with its remedy. `has_suite`: whether the peers had agreed on a cipher suite before.
pub(super) fn from_tls(error: &rustls::Error, has_suite: bool) -> LinkError {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage, PeerIncompatible as Incompatible};
    LinkError::Tls(match error {
        InvalidCertificate(error) => certificate::sentence(error),
        // Before TLS 1.3 a server that misses a certificate sends the same alert as one that shares no cipher suite.
        AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity) if !has_suite => {
            no_suite()
        }
        Incompatible(PeerIncompatible::NoCipherSuitesInCommon) => no_suite(),
        AlertReceived(AlertDescription::ProtocolVersion)
        | Incompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => {
            format!(
                "the server speaks only old versions of TLS; {MODERN_TLS}: add \"TLSv1.2 TLSv1.3\" to its tls-protocols"
            )
        }
        AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            CERTIFICATE_REQUIRED.into()
        }
        AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError,
        ) => "the server rejects the client certificate; it must be signed by a CA that the server trusts".into(),
        AlertReceived(AlertDescription::CertificateExpired) => "the client certificate has expired; renew it".into(),
        AlertReceived(AlertDescription::CertificateRevoked) => "the client certificate is revoked; use another".into(),
        AlertReceived(AlertDescription::UnrecognisedName) => {
            "the server does not know the host name that it is dialled by; set one that it knows with --sni".into()
        }
        InvalidMessage(_) => return LinkError::PlainPort,
        // An alert of another kind, or bytes that cannot be decrypted: the next connection may fare better.
        other => return LinkError::Handshake(other.to_string()),
    })
}

fn no_suite() -> String {
    format!(
        "the server shares no cipher suite with keysweep; {MODERN_TLS}: allow one of these in its tls-ciphers or tls-ciphersuites"
    )
}
