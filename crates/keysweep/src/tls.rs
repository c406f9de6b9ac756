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
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
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

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that may shake hands at a time.
const SHAKING: usize = 128;
/// Connections that may have shaken hands before the server takes them.
const READY: usize = 64;
/// How long to wait when the system has no more files to give.
const RETRY: Duration = Duration::from_secs(1);

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate and those that lead to its authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Why files are no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("{option} {path}: {cause}", path = path.display())]
    File {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Certificate and key do not belong together, or cannot be used.
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

    /// Reads the files again. New connections get what they hold now; an error leaves everything as it was.
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

/// Accepts connections that have shaken hands. Handshakes run beside each other: a client that is slow at it keeps
/// nobody else waiting.
pub struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    accepting: tokio::task::JoinHandle<()>,
}

impl TlsListener {
    /// Speaks TLS on what `listener` accepts.
    pub fn new(listener: TcpListener, certificate: Certificate) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (shaken, ready) = mpsc::channel(READY);
        let accepting = tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(SHAKING));
            // The semaphore is never closed.
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        drop(tokio::spawn(shake(certificate.acceptor(), stream, peer, shaken.clone(), place)))
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        });
        Ok(Self { address, ready, accepting })
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    shaken: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    _place: OwnedSemaphorePermit,
) {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        // The server is gone where nobody receives.
        Ok(Ok(stream)) => drop(shaken.send((stream, peer)).await),
        Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
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

/// The address of whoever connected, however.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);
