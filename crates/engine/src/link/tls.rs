//! TLS over any byte stream: one configuration for all data nodes of a target, and one for its Sentinels.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SignatureScheme, StreamOwned,
    client::{ResolvesClientCert, WantsClientCert},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
    sign::CertifiedKey,
};
use secrecy::ExposeSecret;

use super::{
    cause,
    dial::Plain,
    error::LinkError,
    memory::MemoryShare,
    transport::{Apart, Dialer, Transport, is_idle},
};
use crate::{
    stop::{STOP_POLL, Stop},
    target::{Address, Mode, SentinelTls, Target, TargetError, Tls},
};

/// How long a server may stay silent in the handshake before a plain PING finds out whether the port speaks TLS at all.
const SILENCE: Duration = Duration::from_secs(1);
/// How long that PING waits for its reply.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

impl Target {
    /// Returns the dialer of this target's nodes: without encryption, or with TLS.
    pub fn dialer(&self) -> Result<Box<dyn Dialer>, TargetError> {
        self.dialer_over(Plain)
    }

    /// Returns the same over the byte streams of another dialer.
    pub fn dialer_over(&self, inner: impl Dialer + 'static) -> Result<Box<dyn Dialer>, TargetError> {
        let inner: Arc<dyn Dialer> = Arc::new(inner);
        let over = |tls: Option<&Tls>| -> Result<Arc<dyn Dialer>, TargetError> {
            Ok(match tls {
                Some(tls) => Arc::new(TlsDialer::new(Arc::clone(&inner), tls)?),
                None => Arc::clone(&inner),
            })
        };
        let nodes = over(self.tls.as_ref())?;
        let sentinels = match &self.mode {
            Mode::Sentinel { tls: SentinelTls::On(_) | SentinelTls::Off, .. } => over(self.sentinel_tls())?,
            _ => Arc::clone(&nodes),
        };
        Ok(Box::new(Apart { nodes, sentinels }))
    }
}

/// Opens encrypted byte streams over those of another dialer.
struct TlsDialer {
    inner: Arc<dyn Dialer>,
    config: Arc<ClientConfig>,
    server_name: Option<String>,
    /// Without a client certificate: whether a server has asked for one.
    asked: Arc<NoCertificate>,
}

impl TlsDialer {
    /// Parses certificates and key. Errors name the one that cannot be used.
    fn new(inner: Arc<dyn Dialer>, tls: &Tls) -> Result<Self, TargetError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS configuration", error))?
            .with_root_certificates(roots(tls)?);
        let asked = Arc::new(NoCertificate::default());
        let config = identify(config, tls, &asked)?;
        Ok(Self { inner, config: Arc::new(config), server_name: tls.server_name.clone(), asked })
    }
}

impl Dialer for TlsDialer {
    fn memory(&self) -> MemoryShare {
        self.inner.memory()
    }

    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        let begun = Instant::now();
        let deadline = begun + timeout;
        let inner = self.inner.dial(address, timeout, stop)?;
        let mut stream = Bounded { inner, until: deadline, has_read: false };
        let unnamed = || LinkError::Tls("a unix socket has no name to verify; set one with --sni".into());
        let name = self.server_name.as_deref().or(address.host()).ok_or_else(unnamed)?;
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| LinkError::Tls(format!("{name:?} is not a valid certificate name; set one with --sni")))?;
        let mut connection = ClientConnection::new(Arc::clone(&self.config), server_name)
            .map_err(|error| cause::from_tls(&error, false))?;
        // Only once, and only while the server has not sent a byte.
        let mut probes = true;
        while connection.is_handshaking() {
            stream.until = Instant::now() + STOP_POLL;
            match connection.complete_io(&mut stream) {
                Err(error) if is_closed(error.kind()) => return Err(self.closed(address, deadline, stop)),
                Err(error) if !is_idle(error.kind()) => {
                    return Err(match cause::tls_error(&error) {
                        Some(error) => cause::from_tls(error, connection.negotiated_cipher_suite().is_some()),
                        None => cause::from_io(&error),
                    });
                }
                // After progress as well: it may be one byte.
                _ if stop.is_raised() => return Err(LinkError::Stopped),
                _ if Instant::now() >= deadline => {
                    let sentence = format!(
                        "the server did not complete the handshake within {} s; it may be overloaded or stopped",
                        timeout.as_secs()
                    );
                    return Err(LinkError::Handshake(sentence));
                }
                _ if probes && !stream.has_read && begun.elapsed() >= SILENCE => {
                    probes = false;
                    if self.answers_plainly(address, deadline, stop) {
                        return Err(LinkError::PlainPort);
                    }
                }
                _ => {}
            }
        }
        Ok(Box::new(Encrypted(StreamOwned::new(connection, stream))))
    }
}

impl TlsDialer {
    /// Returns the error of a connection that the server has closed during the handshake.
    fn closed(&self, address: &Address, deadline: Instant, stop: &Stop) -> LinkError {
        // The alert that says so can be lost with the connection.
        if self.asked.0.load(Ordering::Relaxed) {
            return LinkError::Tls(cause::CERTIFICATE_REQUIRED.into());
        }
        if self.answers_plainly(address, deadline, stop) {
            return LinkError::PlainPort;
        }
        let sentence = "the server closed the connection during the handshake; it may not speak TLS on this port";
        LinkError::Handshake(sentence.into())
    }

    /// Whether the port answers a PING without TLS. A server that reads a handshake as commands may wait for the end of one,
    /// close the connection or answer with an error, depending on the random bytes in it.
    fn answers_plainly(&self, address: &Address, deadline: Instant, stop: &Stop) -> bool {
        let deadline = deadline.min(Instant::now() + PROBE_TIMEOUT);
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(mut stream) = self.inner.dial(address, left, stop) else { return false };
        if stream.write_all(b"PING\r\n").is_err() {
            return false;
        }
        let mut first = [0];
        while Instant::now() < deadline && !stop.is_raised() {
            match stream.read(&mut first) {
                Err(error) if is_idle(error.kind()) => {}
                read => return matches!(read, Ok(1)) && matches!(first[0], b'+' | b'-'),
            }
        }
        false
    }
}

/// Whether an error of the handshake says that the server has closed the connection.
fn is_closed(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Stands for the client certificate where there is none, and records whether a server has asked for it.
#[derive(Debug, Default)]
struct NoCertificate(AtomicBool);

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A byte stream that can be read only until a deadline: TLS reads on until a record is complete, and a peer that sends a
/// byte at a time would outlast every other deadline.
struct Bounded {
    inner: Box<dyn Transport>,
    until: Instant,
    /// Whether the peer has sent a byte.
    has_read: bool,
}

impl Bounded {
    fn check_deadline(&self) -> io::Result<()> {
        if Instant::now() < self.until { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check_deadline()?;
        let read = self.inner.read(buffer)?;
        self.has_read |= read > 0;
        Ok(read)
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
    none: &Arc<NoCertificate>,
) -> Result<ClientConfig, TargetError> {
    match (&tls.certificate, &tls.key) {
        (None, None) => Ok(config.with_client_cert_resolver(Arc::<NoCertificate>::clone(none))),
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
