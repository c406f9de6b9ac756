//! HTTP on a listener, with bounds on the number of connections and on the time that one may be idle or take to send the
//! head of a request. Without them, idle connections could use up all files that the process may open.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo, serve::Listener};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::sync::{Semaphore, watch};

use crate::tls::PeerAddress;

/// How long a connection may be idle or take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Bounds on connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most connections at a time. More wait in the system's backlog.
    connections: u32,
    /// How long a connection may be idle or take to send the head of a request.
    head_timeout: Duration,
}

impl Bounds {
    /// Returns bounds with this number of connections.
    pub const fn of(connections: u32) -> Self {
        Self { connections, head_timeout: HEAD_TIMEOUT }
    }
}

/// Serves until `down` is true, then waits for open requests. Requests carry a [`PeerAddress`].
pub async fn serve<L>(mut listener: L, router: Router, bounds: Bounds, down: watch::Receiver<bool>) -> io::Result<()>
where
    L: Listener<Addr = SocketAddr>,
{
    let permits = Arc::new(Semaphore::new(bounds.connections as usize));
    let accept = async {
        let mut was_full = false;
        loop {
            let is_full = permits.available_permits() == 0;
            if is_full && !was_full {
                tracing::warn!(connections = bounds.connections, "connection limit reached; new connections wait");
            }
            was_full = is_full;
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let (io, peer) = listener.accept().await;
            let (router, down) = (router.clone(), down.clone());
            tokio::spawn(async move {
                serve_connection(TokioIo::new(io), peer, router, bounds.head_timeout, down).await;
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        // An error means that the sender was dropped, which is a shutdown as well.
        _ = async { down.clone().wait_for(|down| *down).await.map(drop) } => {}
    }
    drop(listener);
    // All permits are free when the last connection has ended.
    let _ = permits.acquire_many(bounds.connections).await;
    Ok(())
}

/// Serves one connection until it ends or `down` is true.
async fn serve_connection<I>(
    io: TokioIo<I>,
    peer: SocketAddr,
    router: Router,
    head_timeout: Duration,
    mut down: watch::Receiver<bool>,
) where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: axum::http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(PeerAddress(peer)));
        hyper::service::Service::call(&TowerToHyperService::new(router.clone()), request)
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(head_timeout).serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = async { down.wait_for(|down| *down).await.map(drop) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn serving(bounds: Bounds) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, (shutdown, down)) = (listener.local_addr().expect("an address"), watch::channel(false));
        let router = Router::new().route("/", get(|| async { "hello" }));
        (address, shutdown, tokio::spawn(serve(listener, router, bounds, down)))
    }

    async fn answer(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn idle_and_half_sent_requests_are_disconnected() {
        let bounds = Bounds { connections: 9, head_timeout: Duration::from_millis(200) };
        let (address, _shutdown, _server) = serving(bounds).await;
        for said in ["", "GET / HTT", "GET / HTTP/1.1\r\nHost: h\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"] {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(said.as_bytes()).await.expect("it is sent");
            let ended = timeout(SOON, stream.read_to_end(&mut Vec::new())).await;
            assert!(ended.is_ok(), "{said:?} keeps the connection open");
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_a_permit() {
        let (address, _shutdown, _server) = serving(Bounds::of(2)).await;
        let connect = || TcpStream::connect(address);
        let (first, _second) = (connect().await.expect("a connection"), connect().await.expect("a connection"));
        let mut third = connect().await.expect("the system takes it");
        let mut waiting = tokio::spawn(async move { answer(&mut third).await });
        assert!(timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "there are two permits only");
        drop(first);
        let said = timeout(SOON, waiting).await.expect("a permit is free").expect("no panic");
        assert!(said.ends_with("hello"), "{said}");
    }

    #[tokio::test]
    async fn a_shutdown_ends_idle_connections() {
        let (address, shutdown, server) = serving(Bounds::of(9)).await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        assert!(answer(&mut stream).await.ends_with("hello"));
        let _idle = TcpStream::connect(address).await.expect("a connection");
        shutdown.send_replace(true);
        timeout(SOON, server).await.expect("it ends").expect("no panic").expect("no error");
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }
}
