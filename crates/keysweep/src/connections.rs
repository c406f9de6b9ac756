//! HTTP on a listener, with bounds on connections: how many there are, in all and of one client, how long one may be idle or take to
//! send the head of a request, and how slowly it may read. Without them, connections that do nothing could use up all files that
//! the process may open, and all places that others need.

mod handshakes;
mod peers;
mod plain;
mod progress;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, serve::Listener};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use self::progress::Progress;
pub use self::{
    handshakes::{Ended, Handshakes},
    peers::{PeerPermit, Peers},
    plain::{Complaints, PlainListener},
    progress::WriteLimits,
};
use crate::request::PeerAddress;

/// How long a connection may be idle or take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a reserved connection. A probe sends its request at once, and silent clients must not keep the few that there are.
const RESERVED_HEAD_TIMEOUT: Duration = Duration::from_millis(300);
/// Most reserved connections of one client at a time.
const RESERVED_OF_ONE: u32 = 2;
/// Most bytes of a head, and of what is read or written at a time.
pub const BUFFER: usize = 32 * 1024;

/// Bounds on connections.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Most connections at a time. More wait in the system's backlog.
    connections: u32,
    /// Most connections beyond those, which are answered by [`Routes::reserved`] alone.
    reserved: u32,
    /// Most connections of one client.
    peers: Peers,
    /// Most reserved connections of one client, so that a silent one keeps no probe of another waiting.
    reserved_peers: Peers,
    /// How long a connection may be idle or take to send the head of a request.
    head_timeout: Duration,
    /// How slowly a client may read.
    write: WriteLimits,
}

impl Bounds {
    /// Returns bounds with this number of connections, in all and of one client, and of reserved ones.
    pub fn new(connections: u32, reserved: u32, peers: Peers) -> Self {
        let reserved_peers = peers.limited_to(RESERVED_OF_ONE);
        let (head_timeout, write) = (HEAD_TIMEOUT, WriteLimits::default());
        Self { connections, reserved, peers, reserved_peers, head_timeout, write }
    }

    /// Counts a connection of this client; `None`: the client has as many as it may.
    fn admit(&self, client: IpAddr, is_reserved: bool) -> Option<(PeerPermit, Option<PeerPermit>)> {
        let reserved = match is_reserved {
            true => Some(self.reserved_peers.admit(client)?),
            false => None,
        };
        Some((self.peers.admit(client)?, reserved))
    }
}

/// What answers requests.
#[derive(Debug, Clone)]
pub struct Routes {
    /// All requests, as long as there are connections.
    pub all: Router,
    /// Requests on reserved connections.
    pub reserved: Router,
}

/// A place for a connection.
struct Place {
    _permit: OwnedSemaphorePermit,
    is_reserved: bool,
}

/// The places for connections.
struct Places {
    ordinary: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    bounds: (u32, u32),
}

impl Places {
    fn new(connections: u32, reserved: u32) -> Self {
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits as usize));
        Self { ordinary: semaphore(connections), reserved: semaphore(reserved), bounds: (connections, reserved) }
    }

    /// Waits for a place, and takes a reserved one only if there is no other. `None`: never, as the semaphores are not closed.
    async fn take(&self) -> Option<Place> {
        let (permit, is_reserved) = tokio::select! {
            biased;
            permit = Arc::clone(&self.ordinary).acquire_owned() => (permit, false),
            permit = Arc::clone(&self.reserved).acquire_owned() => (permit, true),
        };
        Some(Place { _permit: permit.ok()?, is_reserved })
    }

    /// Exchanges a reserved place for another one that has become free meanwhile.
    fn improve(&self, place: Place) -> Place {
        match Arc::clone(&self.ordinary).try_acquire_owned() {
            Ok(permit) if place.is_reserved => Place { _permit: permit, is_reserved: false },
            _ => place,
        }
    }

    fn is_full(&self) -> bool {
        self.ordinary.available_permits() == 0
    }

    /// Waits until every place is free: the last connection has ended then.
    async fn all_free(&self) {
        let _ = tokio::join!(self.ordinary.acquire_many(self.bounds.0), self.reserved.acquire_many(self.bounds.1));
    }
}

/// Serves until `down` is true, then waits for open requests. Requests carry a [`PeerAddress`].
pub async fn serve<L>(mut listener: L, routes: Routes, bounds: Bounds, down: watch::Receiver<bool>) -> io::Result<()>
where
    L: Listener<Addr = SocketAddr>,
{
    let places = Places::new(bounds.connections, bounds.reserved);
    let accept = async {
        let mut was_full = false;
        loop {
            let is_full = places.is_full();
            if is_full && !was_full {
                tracing::warn!(connections = bounds.connections, "connection limit reached; new connections wait");
            }
            was_full = is_full;
            let Some(place) = places.take().await else { return };
            let (io, peer) = listener.accept().await;
            let place = places.improve(place);
            // Dropping the connection closes it: the client has enough of them.
            let Some(counted) = bounds.admit(peer.ip(), place.is_reserved) else { continue };
            let (routes, bounds, down) = (routes.clone(), bounds.clone(), down.clone());
            tokio::spawn(async move {
                let io = TokioIo::new(Progress::new(io, bounds.write));
                serve_connection(io, peer, place.is_reserved, routes, bounds.head_timeout, down).await;
                drop((place, counted));
            });
        }
    };
    tokio::select! {
        () = accept => {}
        // An error means that the sender was dropped, which is a shutdown as well.
        _ = async { down.clone().wait_for(|down| *down).await.map(drop) } => {}
    }
    drop(listener);
    places.all_free().await;
    Ok(())
}

/// Serves one connection until it ends or `down` is true. A reserved one ends after its first request.
async fn serve_connection<I>(
    io: TokioIo<I>,
    peer: SocketAddr,
    is_reserved: bool,
    routes: Routes,
    head_timeout: Duration,
    mut down: watch::Receiver<bool>,
) where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (router, head_timeout) = match is_reserved {
        true => (routes.reserved, head_timeout.min(RESERVED_HEAD_TIMEOUT)),
        false => (routes.all, head_timeout),
    };
    let service = service_fn(move |request: axum::http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(PeerAddress(peer)));
        hyper::service::Service::call(&TowerToHyperService::new(router.clone()), request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(BUFFER)
        .keep_alive(!is_reserved)
        .serve_connection(io, service);
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
    use crate::proxies::TrustedProxies;

    const SOON: Duration = Duration::from_secs(10);
    /// Size of the answer that no socket's buffers hold, in bytes.
    const LARGE: usize = 64 * 1024 * 1024;

    fn bounds(connections: u32, reserved: u32, of_one: u32) -> Bounds {
        Bounds::new(connections, reserved, Peers::new(of_one, TrustedProxies::default()))
    }

    async fn serving(bounds: Bounds) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, (shutdown, down)) = (listener.local_addr().expect("an address"), watch::channel(false));
        let all =
            Router::new().route("/", get(|| async { "hello" })).route("/large", get(|| async { vec![b'x'; LARGE] }));
        let routes = Routes { all, reserved: Router::new().route("/", get(|| async { "reserved" })) };
        (address, shutdown, tokio::spawn(serve(listener, routes, bounds, down)))
    }

    async fn answer(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn idle_and_half_sent_requests_are_disconnected() {
        let bounds = Bounds { head_timeout: Duration::from_millis(200), ..bounds(9, 0, 9) };
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
        let (address, _shutdown, _server) = serving(bounds(2, 0, 9)).await;
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
    async fn a_reserved_connection_answers_while_all_others_are_taken() {
        let (address, _shutdown, _server) = serving(bounds(2, 1, 9)).await;
        let connect = || async { TcpStream::connect(address).await.expect("a connection") };
        let (_first, second) = (connect().await, connect().await);
        for _ in 0..3 {
            let said = timeout(SOON, async { answer(&mut connect().await).await }).await.expect("it is answered");
            assert!(said.ends_with("reserved"), "{said}");
        }
        drop(second);
        let ordinary = async { while !answer(&mut connect().await).await.ends_with("hello") {} };
        timeout(SOON, ordinary).await.expect("a place that is free again serves all requests");
    }

    #[tokio::test]
    async fn silent_clients_do_not_keep_the_reserved_connections() {
        let (address, _shutdown, _server) = serving(bounds(1, 2, 9)).await;
        let connect = || async { TcpStream::connect(address).await.expect("a connection") };
        let _silent = [connect().await, connect().await, connect().await];
        let began = std::time::Instant::now();
        let said = timeout(SOON, async { answer(&mut connect().await).await }).await.expect("it is answered");
        assert!(said.ends_with("reserved"), "{said}");
        assert!(began.elapsed() < Duration::from_millis(1_500), "it waited for silent ones: {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_silent_client_gets_few_reserved_connections() {
        let (address, _shutdown, _server) = serving(bounds(1, 8, 9)).await;
        let connect = || async { TcpStream::connect(address).await.expect("a connection") };
        let _silent = [connect().await, connect().await, connect().await];
        let refused = async {
            let mut fourth = connect().await;
            let _ = fourth.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
            fourth.read_to_end(&mut Vec::new()).await.unwrap_or(0)
        };
        assert_eq!(timeout(SOON, refused).await.expect("it is closed"), 0);
    }

    #[tokio::test]
    async fn a_head_is_bounded() {
        let (address, _shutdown, _server) = serving(bounds(9, 0, 9)).await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Long: {}", "x".repeat(40_000));
        // The answer may come before all of it is sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut said = vec![0; 12];
        timeout(SOON, stream.read_exact(&mut said)).await.expect("an end").expect("an answer");
        assert_eq!(String::from_utf8_lossy(&said), "HTTP/1.1 431");
    }

    #[tokio::test]
    async fn one_client_gets_a_part_of_the_connections_only() {
        let (address, _shutdown, _server) = serving(bounds(9, 0, 2)).await;
        let connect = || async { TcpStream::connect(address).await.expect("a connection") };
        let (first, _second) = (connect().await, connect().await);
        let refused = async {
            let mut third = connect().await;
            let _ = third.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
            third.read_to_end(&mut Vec::new()).await.unwrap_or(0)
        };
        assert_eq!(timeout(SOON, refused).await.expect("it is closed"), 0);
        drop(first);
        let again = async {
            loop {
                let mut stream = connect().await;
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
                let mut said = String::new();
                if stream.read_to_string(&mut said).await.is_ok() && said.ends_with("hello") {
                    break;
                }
            }
        };
        timeout(SOON, again).await.expect("a connection that ended no longer counts");
    }

    /// Asks for a large answer, reads it in pieces of this size and with this pause, and returns how much of it came.
    async fn read_slowly(address: SocketAddr, piece: usize, pause: Duration) -> usize {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("it is sent");
        let (mut buffer, mut sum) = (vec![0; piece], 0);
        loop {
            tokio::time::sleep(pause).await;
            match timeout(SOON, stream.read(&mut buffer)).await.expect("it goes on or ends") {
                Ok(0) | Err(_) => return sum,
                Ok(read) => sum += read,
            }
            if sum >= LARGE {
                return sum;
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_disconnected() {
        let write = WriteLimits { stall: Duration::from_millis(200), ..WriteLimits::default() };
        let (address, _shutdown, _server) = serving(Bounds { write, ..bounds(9, 0, 9) }).await;
        let read = read_slowly(address, LARGE, Duration::from_secs(1)).await;
        assert!(read < LARGE, "it had a second to notice");
    }

    #[tokio::test]
    async fn a_client_that_reads_a_little_now_and_then_is_disconnected_and_a_slow_one_is_not() {
        let write = WriteLimits { stall: SOON, window: Duration::from_millis(400), least: 16 * 1024 * 1024 };
        let (address, _shutdown, _server) = serving(Bounds { write, ..bounds(9, 0, 9) }).await;
        assert!(read_slowly(address, 16 * 1024, Duration::from_millis(20)).await < LARGE);
        // Pauses, but far more than the least in each window.
        assert!(read_slowly(address, 16 * 1024 * 1024, Duration::from_millis(1)).await >= LARGE);
    }

    #[tokio::test]
    async fn a_shutdown_ends_idle_connections() {
        let (address, shutdown, server) = serving(bounds(9, 1, 9)).await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        assert!(answer(&mut stream).await.ends_with("hello"));
        let _idle = TcpStream::connect(address).await.expect("a connection");
        shutdown.send_replace(true);
        timeout(SOON, server).await.expect("it ends").expect("no panic").expect("no error");
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }
}
