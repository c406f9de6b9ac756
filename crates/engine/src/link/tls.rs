//! TLS over any byte stream: one set-up for all nodes of a target, Sentinels included.

use std::{
    io::{self, ErrorKind, Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::WantsClientCert,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
};
use secrecy::ExposeSecret;

use super::{Dialer, LinkError, Tcp, Transport, certificate, is_idle};
use crate::{
    stop::{LOOK, Stop},
    target::{Address, Target, TargetError, Tls},
};

impl Target {
    /// What dials this target's nodes: plain TCP, or TLS over it.
    pub fn dialer(&self) -> Result<Box<dyn Dialer>, TargetError> {
        self.dialer_over(Tcp)
    }

    /// The same over byte streams of the caller's making.
    pub fn dialer_over(&self, inner: impl Dialer + 'static) -> Result<Box<dyn Dialer>, TargetError> {
        Ok(match &self.tls {
            Some(tls) => Box::new(TlsDialer::new(inner, tls)?),
            None => Box::new(inner),
        })
    }
}

/// Opens encrypted byte streams over those of another dialer.
pub struct TlsDialer {
    inner: Box<dyn Dialer>,
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl TlsDialer {
    /// Reads certificates and key. Errors name which of them cannot be used.
    pub fn new(inner: impl Dialer + 'static, tls: &Tls) -> Result<Self, TargetError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS set-up", error))?
            .with_root_certificates(roots(tls)?);
        let config = identify(config, tls)?;
        Ok(Self { inner: Box::new(inner), config: Arc::new(config), server_name: tls.server_name.clone() })
    }
}

impl Dialer for TlsDialer {
    fn dial(&self, address: &Address, patience: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        let deadline = Instant::now() + patience;
        let mut stream = Leashed { inner: self.inner.dial(address, patience, stop)?, until: deadline };
        let name = self.server_name.as_ref().unwrap_or(&address.host);
        let server_name = ServerName::try_from(name.clone()).map_err(|_| {
            LinkError::Tls(format!("{name:?} is no name that a certificate can carry; set one with --sni"))
        })?;
        let mut connection =
            ClientConnection::new(Arc::clone(&self.config), server_name).map_err(|error| refusal(&error))?;
        while connection.is_handshaking() {
            stream.until = Instant::now() + LOOK;
            match connection.complete_io(&mut stream) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(LinkError::Tls(
                        "the server closed the connection instead of shaking hands; it may not speak TLS on this port"
                            .into(),
                    ));
                }
                Err(error) if !is_idle(error.kind()) => return Err(LinkError::io(&error)),
                // Also when something came: it may be a byte.
                _ if stop.is_raised() => return Err(LinkError::Stopped),
                _ if Instant::now() < deadline => {}
                _ => {
                    let sentence = format!(
                        "the server did not shake hands within {} s; it may not speak TLS on this port: use the scheme without the second s",
                        patience.as_secs()
                    );
                    return Err(LinkError::Tls(sentence));
                }
            }
        }
        Ok(Box::new(Encrypted(StreamOwned::new(connection, stream))))
    }
}

/// A byte stream that lets itself be read only for so long: TLS reads on until it has a whole record, and a peer that sends a
/// byte at a time would outlast every deadline.
struct Leashed {
    inner: Box<dyn Transport>,
    until: Instant,
}

impl Leashed {
    fn pull(&self) -> io::Result<()> {
        if Instant::now() < self.until { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
    }
}

impl Read for Leashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pull()?;
        self.inner.read(buffer)
    }
}

impl Write for Leashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pull()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// An encrypted byte stream whose reads and writes come back in time.
struct Encrypted(StreamOwned<ClientConnection, Leashed>);

impl Read for Encrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.sock.until = Instant::now() + LOOK;
        self.0.read(buffer)
    }
}

impl Write for Encrypted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.sock.until = Instant::now() + LOOK;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sock.until = Instant::now() + LOOK;
        self.0.flush()
    }
}

/// The refusal in an error of the byte stream, if it is one of TLS.
pub(super) fn refusal_in(error: &io::Error) -> Option<LinkError> {
    Some(refusal(error.get_ref()?.downcast_ref::<rustls::Error>()?))
}

/// What went wrong, with its remedy.
fn refusal(error: &rustls::Error) -> LinkError {
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
            "the server's certificate was issued by nobody we trust; name the authority with --cacert".into()
        }
        InvalidCertificate(CertificateError::BadSignature) => {
            "the server's certificate was not issued by the authority given with --cacert".into()
        }
        InvalidCertificate(error) if certificate::is_of_an_authority(error) => {
            format!("the server's certificate is an authority's own; {}", certificate::ISSUE_ANOTHER)
        }
        AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            "the server wants a certificate of ours; give it with --cert and --key".into()
        }
        AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError,
        ) => "the server does not accept our certificate; it must be issued by an authority that the server trusts"
            .into(),
        AlertReceived(AlertDescription::CertificateExpired) => "our certificate has expired; renew it".into(),
        InvalidMessage(_) => "the server does not speak TLS on this port; use the scheme without the second s".into(),
        other => other.to_string(),
    })
}

fn unusable(what: &'static str, cause: impl std::fmt::Display) -> TargetError {
    TargetError::Tls { what, cause: cause.to_string() }
}

/// Whom to trust.
fn roots(tls: &Tls) -> Result<RootCertStore, TargetError> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = &tls.ca else {
        let system = rustls_native_certs::load_native_certs();
        if roots.add_parsable_certificates(system.certs).0 == 0 {
            return Err(unusable("system's list of authorities", "it is empty; name an authority with --cacert"));
        }
        return Ok(roots);
    };
    for certificate in certificates(ca, "authority's certificate")? {
        roots.add(certificate).map_err(|error| unusable("authority's certificate", error))?;
    }
    Ok(roots)
}

/// Who we are.
fn identify(
    config: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
    tls: &Tls,
) -> Result<ClientConfig, TargetError> {
    match (&tls.certificate, &tls.key) {
        (None, None) => Ok(config.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
                .map_err(|error| unusable("client key", in_words(&error)))?;
            config
                .with_client_auth_cert(certificates(certificate, "client certificate")?, key)
                .map_err(|error| unusable("client certificate", error))
        }
        (Some(_), None) => Err(unusable("client certificate", "its key is missing; give both")),
        (None, Some(_)) => Err(unusable("client key", "its certificate is missing; give both")),
    }
}

fn certificates(text: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TargetError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(unusable(what, "there is no PEM certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(what, in_words(&error))),
    }
}

/// An error of a PEM reader, without what it read: it may be a key.
fn in_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "there is nothing of the kind in it; it must be PEM, not encrypted",
        _ => "it is not well-formed PEM",
    }
}
