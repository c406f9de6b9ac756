//! A proxy between keysweep and a server that injects network faults.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::server::Server;

/// Interval at which a stalled connection checks the fault, and at which a dripping one passes a byte.
const INTERVAL: Duration = Duration::from_millis(20);

/// Fault of a proxy's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    #[default]
    None,
    /// All connections are closed, new ones as well.
    Cut,
    /// Connections are accepted, but no bytes pass in either direction.
    Stall,
    /// Replies pass at 50 bytes per second, one byte at a time.
    Drip,
    /// The connection is closed after half of the next reply; then as `None`.
    CloseInReply,
}

/// A proxy in front of a server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    fault: Mutex<Fault>,
    stopped: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Starts a proxy to the server on a free port.
    ///
    /// # Panics
    /// If the system has no free port.
    #[must_use]
    pub fn before(server: &Server) -> Self {
        Self::to(server.address())
    }

    /// Starts a proxy to this address on a free port.
    ///
    /// # Panics
    /// If the system has no free port.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the system has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state =
            Arc::new(State { fault: Mutex::default(), stopped: AtomicBool::new(false), streams: Mutex::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                if shared.fault() != Fault::Cut {
                    // If the server is down, the client's connection is closed at once.
                    let _ = TcpStream::connect(server).map(|server| forward_both(client, server, &shared));
                }
            }
        });
        Self { address, state }
    }

    /// Returns a `redis://` URL with the proxy's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Returns the proxy's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the fault of all connections, open ones included.
    ///
    /// # Panics
    /// If a thread of the proxy has panicked.
    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().expect("no panic") = fault;
        if fault == Fault::Cut {
            self.cut();
        }
    }

    /// Returns the current fault.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.state.fault()
    }

    /// Closes all connections; new ones are accepted.
    ///
    /// # Panics
    /// If a thread of the proxy has panicked.
    pub fn cut(&self) {
        for stream in self.state.streams.lock().expect("no panic").drain(..) {
            // The connection may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn fault(&self) -> Fault {
        *self.fault.lock().expect("no panic")
    }
}

fn forward_both(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("a TCP socket");
        state.streams.lock().expect("no panic").push(stream.try_clone().expect("a handle can be duplicated"));
    }
    let duplicate = |stream: &TcpStream| stream.try_clone().expect("a handle can be duplicated");
    let (from, to, shared) = (duplicate(&client), duplicate(&server), Arc::clone(state));
    thread::spawn(move || pump(from, to, &shared, false));
    let shared = Arc::clone(state);
    thread::spawn(move || pump(server, client, &shared, true));
}

/// Forwards one direction until either end is closed.
fn pump(mut from: TcpStream, mut to: TcpStream, state: &State, is_reply: bool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 || forward(&mut to, &buffer[..length], state, is_reply).is_none() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn forward(to: &mut TcpStream, mut bytes: &[u8], state: &State, is_reply: bool) -> Option<()> {
    while !bytes.is_empty() {
        let some = match state.fault() {
            Fault::Stall => {
                if state.stopped.load(Ordering::Relaxed) {
                    return None;
                }
                thread::sleep(INTERVAL);
                continue;
            }
            Fault::Drip if is_reply => {
                thread::sleep(INTERVAL);
                1
            }
            Fault::CloseInReply if is_reply => {
                *state.fault.lock().expect("no panic") = Fault::None;
                to.write_all(&bytes[..bytes.len().div_ceil(2)]).ok()?;
                return None;
            }
            _ => bytes.len(),
        };
        to.write_all(&bytes[..some]).ok()?;
        bytes = &bytes[some..];
    }
    Some(())
}
