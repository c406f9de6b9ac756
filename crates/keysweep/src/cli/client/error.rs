//! Errors of the client commands, each with a remedy. The one file of the command line that knows status codes.

use std::io;

use keysweep_engine::link::certificate;
use serde_json::Value;
use tokio_rustls::rustls;

use super::Client;
use crate::{
    auth::signature::{CLOCK_WINDOW, SignatureError},
    cli::{Exit, term},
};

/// The variable of the access key.
pub(super) const ACCESS: &str = "KEYSWEEP_ACCESS_KEY";
/// The variable of its secret.
pub(super) const SECRET: &str = "KEYSWEEP_SECRET_KEY";

/// A failed command: a message for the terminal and an exit code.
#[derive(Debug)]
pub struct ClientError {
    /// Exit code of the command.
    pub exit: Exit,
    /// Message with cause and remedy.
    pub message: String,
    /// Error code from the service, for example DCS.4819; empty if it sent none.
    pub code: String,
    /// Whether a retry may succeed.
    pub transient: bool,
}

impl ClientError {
    fn new(exit: Exit, message: String) -> Self {
        Self { exit, message, code: String::new(), transient: false }
    }

    /// Returns an error about an invalid option or variable, or an unknown name.
    pub fn usage(message: String) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Returns a failure without an exit code of its own.
    pub fn failed(message: String) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Returns the error of a request that got no complete response.
    pub(super) fn unreachable(origin: &str, error: &ureq::Error) -> Self {
        let inner = match error {
            ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
            ureq::Error::Rustls(error) => Some(error),
            _ => None,
        };
        if let Some(error) = inner {
            return Self::new(Exit::CannotConnect, format!("TLS connection to {origin} failed: {}", tls_cause(error)));
        }
        let cause = match error {
            ureq::Error::HostNotFound => "unknown host name; check the endpoint".to_owned(),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "connection refused; check host and port, and that the service is running".to_owned()
            }
            ureq::Error::Timeout(_) => "timed out; check host, port and firewall".to_owned(),
            ureq::Error::Protocol(_) if origin.starts_with("http://") => {
                "the server does not speak HTTP; try https://".to_owned()
            }
            other => format!("{other}; check the endpoint and its scheme, http or https"),
        };
        Self { transient: true, ..Self::new(Exit::CannotConnect, format!("cannot reach {origin}: {cause}")) }
    }

    /// Prints the message and returns the exit code.
    pub fn report(&self) -> Exit {
        term::error(&self.message);
        self.exit
    }
}

fn tls_cause(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error::InvalidCertificate};
    match error {
        InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is signed by an unknown authority; provide the CA certificate with --ca-file".into()
        }
        InvalidCertificate(CertificateError::BadSignature) => {
            "its certificate is not signed by the CA in --ca-file".into()
        }
        InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => format!(
            "its certificate is valid for {1}, not for {0}; use a name of the certificate in the endpoint",
            expected.to_str(),
            certificate::names(presented)
        ),
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired; the operator of the service must renew it".into()
        }
        InvalidCertificate(error) if certificate::is_ca(error) => {
            format!("its certificate is a CA certificate; {}", certificate::ISSUE_ANOTHER)
        }
        InvalidCertificate(error) => certificate::sentence(error),
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS on this port; use http://".into(),
        other => other.to_string(),
    }
}

/// Returns the error of an unsuccessful response. `clock_skew`: how far the local clock is ahead of the service, seconds.
pub(super) fn read(client: &Client, status: u16, body: &Value, clock_skew: Option<i64>) -> ClientError {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let code = text(&body["error_code"]).or_else(|| text(&body["error"]["code"])).unwrap_or_default();
    let message = text(&body["error_msg"]).or_else(|| text(&body["error"]["message"])).unwrap_or_default();
    let message = message.trim_end_matches('.');
    if message.is_empty() && matches!(status, 502..=504) {
        let message = format!(
            "{} answered {status}: bad gateway, the proxy cannot reach keysweep; try again later",
            client.origin()
        );
        return ClientError { transient: true, ..ClientError::new(Exit::CannotConnect, message) };
    }
    if message.is_empty() {
        return ClientError::new(
            Exit::Failed,
            format!("{} answered {status}, and not as keysweep does; check the endpoint", client.origin()),
        );
    }
    let (exit, message) = match status {
        401 => return unauthorized(client, message, code, clock_skew),
        403 => {
            (Exit::Denied, format!("permission denied: {message}; an admin of the project can grant the required role"))
        }
        404 => (Exit::Usage, format!("not found: {message}")),
        400 | 413 => (Exit::Usage, format!("the service rejected the request: {message}")),
        500.. => (Exit::Failed, format!("the service failed: {message}; try again, and check its log")),
        _ => (Exit::Failed, format!("the service rejected the request: {message}")),
    };
    ClientError { code, transient: status >= 500, ..ClientError::new(exit, message) }
}

/// Returns the error of missing credentials.
pub(super) fn no_key() -> ClientError {
    ClientError::usage(format!(
        "no access key; set {ACCESS} and {SECRET}, or use --credentials FILE (the operator of the service creates a key with `keysweep admin access-key add`)"
    ))
}

/// Returns the error of an access key that does not fit into a header.
pub(super) fn unusable_key() -> ClientError {
    ClientError::usage(format!("invalid access key in {ACCESS} or --credentials: contains invalid characters"))
}

fn unauthorized(client: &Client, message: &str, code: String, clock_skew: Option<i64>) -> ClientError {
    let Some(signer) = &client.signer else { return no_key() };
    let is_of_another_project = code == "DCS.1004" || message.contains("not for this project");
    let denied = |message| ClientError { code, ..ClientError::new(Exit::Denied, message) };
    let skew = clock_skew.filter(|seconds| seconds.unsigned_abs() > CLOCK_WINDOW.as_secs());
    if let Some(seconds) = skew.filter(|_| message.contains(&SignatureError::Expired.to_string())) {
        let direction = if seconds > 0 { "ahead of" } else { "behind" };
        let minutes = seconds.unsigned_abs() / 60;
        return denied(format!(
            "the local clock is {minutes} minutes {direction} the clock of the service, and signatures are valid for 15 minutes; synchronize the clocks (NTP)"
        ));
    }
    if message.contains(&SignatureError::Mismatch.to_string()) {
        return denied(format!(
            "invalid access key {} or secret; check both, and that neither the key nor its user is disabled or removed",
            signer.access
        ));
    }
    if is_of_another_project {
        return denied(format!("the access key {} has no role on this project; check --project", signer.access));
    }
    denied(format!("the service rejected the access key: {message}"))
}
