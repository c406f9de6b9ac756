//! TLS over any byte stream: one configuration for all nodes of a target, Sentinels included.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::WantsClientCert,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
};
use secrecy::ExposeSecret;

use super::{
    cause,
    dial::Tcp,
    error::LinkError,
    transport::{Dialer, Transport, is_idle},
};
use crate::{
    stop::{STOP_POLL, Stop},
    target::{Address, Target, TargetError, Tls},
};

impl Target {
    /// Returns the dialer of this target's nodes: plain TCP, or TLS over it.
    pub fn dialer(&self) -> Result<Box<dyn Dialer>, TargetError> {
        self.dialer_over(Tcp)
    }

    /// Returns the same over the byte streams of another dialer.
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
    /// Parses certificates and key. Errors name the one that cannot be used.
    pub fn new(inner: impl Dialer + 'static, tls: &Tls) -> Result<Self, TargetError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS configuration", error))?
            .with_root_certificates(roots(tls)?);
        let config = identify(config, tls)?;
        Ok(Self { inner: Box::new(inner), config: Arc::new(config), server_name: tls.server_name.clone() })
    }
}

impl Dialer for TlsDialer {
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        let deadline = Instant::now() + timeout;
        let mut stream = Bounded { inner: self.inner.dial(address, timeout, stop)?, until: deadline };
        let name = self.server_name.as_ref().unwrap_or(&address.host);
        let server_name = ServerName::try_from(name.clone())
            .map_err(|_| LinkError::Tls(format!("{name:?} is not a valid certificate name; set one with --sni")))?;
        let mut connection =
            ClientConnection::new(Arc::clone(&self.config), server_name).map_err(|error| cause::from_tls(&error))?;
        while connection.is_handshaking() {
            stream.until = Instant::now() + STOP_POLL;
            match connection.complete_io(&mut stream) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(LinkError::Tls(
                        "the server closed the connection during the handshake; it may not speak TLS on this port"
                            .into(),
                    ));
                }
                Err(error) if !is_idle(error.kind()) => return Err(cause::from_io(&error)),
                // After progress as well: it may be one byte.
                _ if stop.is_raised() => return Err(LinkError::Stopped),
                _ if Instant::now() < deadline => {}
                _ => {
                    let sentence = format!(
                        "the server did not complete the handshake within {} s; it may not speak TLS on this port: use the scheme without the second s",
                        timeout.as_secs()
                    );
                    return Err(LinkError::Tls(sentence));
                }
            }
        }
        Ok(Box::new(Encrypted(StreamOwned::new(connection, stream))))
    }
}

/// A byte stream that can be read only until a deadline: TLS reads on until a record is complete, and a peer that sends a
/// byte at a time would outlast every other deadline.
struct Bounded {
    inner: Box<dyn Transport>,
    until: Instant,
}

impl Bounded {
    fn check_deadline(&self) -> io::Result<()> {
        if Instant::now() < self.until { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check_deadline()?;
        self.inner.read(buffer)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_deadline()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// An encrypted byte stream whose reads and writes return within [`STOP_POLL`].
struct Encrypted(StreamOwned<ClientConnection, Bounded>);

impl Read for Encrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.sock.until = Instant::now() + STOP_POLL;
        self.0.read(buffer)
    }
}

impl Write for Encrypted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.sock.until = Instant::now() + STOP_POLL;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sock.until = Instant::now() + STOP_POLL;
        self.0.flush()
    }
}

impl Transport for Encrypted {
    fn peer(&self) -> Option<IpAddr> {
        self.0.sock.inner.peer()
    }
}

fn unusable(what: &'static str, cause: impl std::fmt::Display) -> TargetError {
    TargetError::Tls { what, cause: cause.to_string() }
}

/// Returns the CA certificates to trust.
fn roots(tls: &Tls) -> Result<RootCertStore, TargetError> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = &tls.ca else {
        let system = rustls_native_certs::load_native_certs();
        if roots.add_parsable_certificates(system.certs).0 == 0 {
            return Err(unusable("system's CA bundle", "it is empty; name a CA certificate with --cacert"));
        }
        return Ok(roots);
    };
    for certificate in certificates(ca, "CA certificate")? {
        roots.add(certificate).map_err(|error| unusable("CA certificate", error))?;
    }
    Ok(roots)
}

/// Adds the client certificate.
fn identify(
    config: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
    tls: &Tls,
) -> Result<ClientConfig, TargetError> {
    match (&tls.certificate, &tls.key) {
        (None, None) => Ok(config.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
                .map_err(|error| unusable("client key", pem_cause(&error)))?;
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
        Ok(certificates) if certificates.is_empty() => Err(unusable(what, "it contains no PEM certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(what, pem_cause(&error))),
    }
}

/// Describes an error of the PEM reader without the text that it read, which may be a key.
fn pem_cause(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "it contains none; expected PEM, not encrypted",
        _ => "it is not well-formed PEM",
    }
}
