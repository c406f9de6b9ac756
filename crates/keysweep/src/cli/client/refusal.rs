//! Why a service did not do what it was asked for, in a sentence with its remedy: the one place of the command line that
//! knows status codes.

use std::io;

use keysweep_engine::link::certificate;
use serde_json::Value;
use tokio_rustls::rustls;

use super::{Client, args::no_key};
use crate::{
    auth::signature::{CLOCK_WINDOW, SignatureError},
    cli::{Exit, term},
};

/// Something that could not be done.
#[derive(Debug)]
pub struct Refusal {
    /// How the command ends.
    pub exit: Exit,
    /// The sentence.
    pub sentence: String,
    /// The service's code for it, for example DCS.4819; empty where it said none.
    pub code: String,
    /// Whether the same may work in a moment.
    pub may_pass: bool,
}

impl Refusal {
    fn new(exit: Exit, sentence: String) -> Self {
        Self { exit, sentence, code: String::new(), may_pass: false }
    }

    /// Something that was typed, or that the environment holds, is wrong.
    pub fn usage(sentence: String) -> Self {
        Self::new(Exit::Usage, sentence)
    }

    /// What was named is not there.
    pub fn absent(sentence: String) -> Self {
        Self::new(Exit::Failed, sentence)
    }

    /// The service was not reached, or its answer broke off.
    pub(super) fn away(origin: &str, error: &ureq::Error) -> Self {
        let inner = match error {
            ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
            ureq::Error::Rustls(error) => Some(error),
            _ => None,
        };
        if let Some(error) = inner {
            return Self::new(Exit::CannotConnect, format!("no encrypted connection to {origin}: {}", of_tls(error)));
        }
        let cause = match error {
            ureq::Error::HostNotFound => "the host name is not known; check the endpoint".to_owned(),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "connection refused; check host and port, and that the service runs".to_owned()
            }
            ureq::Error::Timeout(_) => "it did not answer in time; check host, port and firewall".to_owned(),
            ureq::Error::Protocol(_) if origin.starts_with("http://") => {
                "what answers there does not speak HTTP; perhaps https:// is meant".to_owned()
            }
            other => format!("{other}; check the endpoint, and whether it speaks http or https"),
        };
        Self { may_pass: true, ..Self::new(Exit::CannotConnect, format!("cannot reach {origin}: {cause}")) }
    }

    /// Says so on the terminal.
    pub fn tell(&self) -> Exit {
        term::error(&self.sentence);
        self.exit
    }
}

fn of_tls(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error::InvalidCertificate};
    match error {
        InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate was issued by nobody we trust; name the authority that issued it with --ca-file".into()
        }
        InvalidCertificate(CertificateError::BadSignature) => {
            "its certificate was not issued by the authority in --ca-file".into()
        }
        InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => format!(
            "its certificate is not for {} but for {}; use such a name in the endpoint",
            expected.to_str(),
            certificate::names(presented)
        ),
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired; the service's operator must renew it".into()
        }
        InvalidCertificate(error) if certificate::is_ca(error) => {
            format!("its certificate is an authority's own; {}", certificate::ISSUE_ANOTHER)
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS on this port; use http:// there".into(),
        other => other.to_string(),
    }
}

/// What an answer that is not a good one means. `clock`: seconds that our clock is ahead of the service's.
pub(super) fn read(client: &Client, status: u16, said: &Value, clock: Option<i64>) -> Refusal {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let code = text(&said["error_code"]).or_else(|| text(&said["error"]["code"])).unwrap_or_default();
    let message = text(&said["error_msg"]).or_else(|| text(&said["error"]["message"])).unwrap_or_default();
    let message = message.trim_end_matches('.');
    if message.is_empty() && matches!(status, 502..=504) {
        let sentence = format!(
            "{} answers with status {status}: what stands before the service does not reach it; try again in a moment",
            client.origin()
        );
        return Refusal { may_pass: true, ..Refusal::new(Exit::CannotConnect, sentence) };
    }
    if message.is_empty() {
        return Refusal::new(
            Exit::Failed,
            format!("{} answers with status {status}, and not as keysweep does; check the endpoint", client.origin()),
        );
    }
    let (exit, sentence) = match status {
        401 => return unauthorized(client, message, code, clock),
        403 => (
            Exit::Denied,
            format!("the service refuses: {message}; an admin of the project can grant the role that it takes"),
        ),
        404 => (Exit::Failed, format!("the service finds nothing: {message}")),
        400 | 413 => (Exit::Usage, format!("the service refuses: {message}")),
        500.. => (Exit::Failed, format!("the service failed: {message}; try again, its log says more")),
        _ => (Exit::Failed, format!("the service refuses: {message}")),
    };
    Refusal { code, may_pass: status >= 500, ..Refusal::new(exit, sentence) }
}

fn unauthorized(client: &Client, message: &str, code: String, clock: Option<i64>) -> Refusal {
    let Some(signer) = &client.signer else { return no_key() };
    let is_of_another_project = code == "DCS.1004" || message.contains("not for this project");
    let denied = |sentence| Refusal { code, ..Refusal::new(Exit::Denied, sentence) };
    let skew = clock.filter(|seconds| seconds.unsigned_abs() > CLOCK_WINDOW.as_secs());
    if let Some(seconds) = skew.filter(|_| message.contains(&SignatureError::Expired.to_string())) {
        let way = if seconds > 0 { "ahead of" } else { "behind" };
        let minutes = seconds.unsigned_abs() / 60;
        return denied(format!(
            "this machine's clock is {minutes} minutes {way} the service's, and signatures are good for 15; set the clock that is wrong (NTP does)"
        ));
    }
    if message.contains(&SignatureError::Mismatch.to_string()) {
        return denied(format!(
            "the service does not take the access key {} with this secret; check both, and that neither the key nor its user is disabled or removed",
            signer.access
        ));
    }
    if is_of_another_project {
        return denied(format!("the access key {} is not good for this project; check --project", signer.access));
    }
    denied(format!("the service refuses the access key: {message}"))
}
