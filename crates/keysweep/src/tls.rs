//! TLS for the API: a listener whose certificate can be replaced while it serves.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    },
    server::TlsStream,
};

use crate::{
    connections::{Complaints, Ended, Handshakes},
    proxies::TrustedProxies,
};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most handshakes at a time. A further one ends an old one of the client that has the most.
const MAX_HANDSHAKES: usize = 128;
/// Most handshakes of one client, other than a trusted proxy, at a time.
const MAX_HANDSHAKES_OF_ONE: usize = 16;
/// Most connections that wait for the server after their handshake.
const MAX_READY: usize = 64;

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or does not hold the expected PEM section.
    #[error("{option} {path}: {cause}", path = path.display())]
    File {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it is invalid.
        cause: String,
    },
    /// Certificate and key do not match, or their algorithm is not supported.
    #[error("--tls-cert and --tls-key cannot be used together: {0}")]
    Pair(String),
}

/// A certificate in use.
#[derive(Debug, Clone)]
pub struct Certificate {
    files: Files,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Certificate {
    /// Reads a certificate with its key.
    pub fn read(files: Files) -> Result<Self, CertificateError> {
        let config = Arc::new(RwLock::new(Arc::new(config(&files)?)));
        Ok(Self { files, config })
    }

    /// Reloads the files for new connections. On an error the certificate in use stays.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let fresh = Arc::new(config(&self.files)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

fn config(files: &Files) -> Result<ServerConfig, CertificateError> {
    let failed = |option, what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error: pem::Error| {
            let cause = match error {
                pem::Error::Io(error) => error.to_string(),
                _ => format!("it holds no {what} in PEM"),
            };
            CertificateError::File { option, path, cause }
        }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(failed("--tls-cert", "certificate", &files.certificate))?;
    if chain.is_empty() {
        return Err(failed("--tls-cert", "certificate", &files.certificate)(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(
        "--tls-key",
        "private key without a passphrase",
        &files.key,
    ))?;
    let pair = |error: tokio_rustls::rustls::Error| CertificateError::Pair(error.to_string());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts TLS connections. Handshakes run concurrently, so that a slow client does not delay others.
pub struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    accepting: tokio::task::JoinHandle<()>,
}

impl TlsListener {
    /// Speaks TLS on what `listener` accepts. `proxies` may begin as many handshakes at a time as there can be.
    pub fn new(listener: TcpListener, certificate: Certificate, proxies: TrustedProxies) -> io::Result<Self> {
        let mut handshakes = Handshakes::new(MAX_HANDSHAKES, MAX_HANDSHAKES_OF_ONE, proxies);
        let address = listener.local_addr()?;
        let (connected, ready) = mpsc::channel(MAX_READY);
        let accepting = tokio::spawn(async move {
            let mut complaints = Complaints::default();
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let (acceptor, connected) = (certificate.acceptor(), connected.clone());
                        let spawn =
                            |ended| tokio::spawn(handshake(acceptor, stream, peer, connected, ended)).abort_handle();
                        handshakes.begin(peer.ip(), spawn).await;
                    }
                    Err(error) => complaints.wait_after(&error).await,
                }
            }
        });
        Ok(Self { address, ready, accepting })
    }
}

/// Performs the handshake of one connection and passes the connection on.
async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    connected: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    ended: Ended,
) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            ended.note();
            // Sending fails only after the server has ended.
            drop(connected.send((stream, peer)).await);
        }
        Ok(Err(error)) => tracing::debug!(%error, %peer, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task never ends before this listener does.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
