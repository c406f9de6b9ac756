//! A fault proxy: stands between keysweep and a server and does to the connection what networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::server::Server;

/// How often a stalled or dripping connection looks whether it is still to be so.
const LOOK: Duration = Duration::from_millis(20);

/// What the proxy does to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Cuts all connections and takes no new ones.
    Cut,
    /// Takes connections and passes nothing on, in neither direction.
    Stall,
    /// Passes replies on a byte at a time, fifty a second.
    Drip,
    /// Passes half of the next reply on and closes; then as `None`.
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
    over: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Listens on a free port and passes everything on to the server.
    ///
    /// # Panics
    /// When the system has no free port.
    #[must_use]
    pub fn before(server: &Server) -> Self {
        Self::to(server.address())
    }

    /// The same for any address.
    ///
    /// # Panics
    /// When the system has no free port.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the system has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state =
            Arc::new(State { fault: Mutex::default(), over: AtomicBool::new(false), streams: Mutex::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                if shared.fault() != Fault::Cut {
                    // A server that is down is, through a proxy, a connection that is closed at once.
                    let _ = TcpStream::connect(server).map(|server| pass_on(client, server, &shared));
                }
            }
        });
        Self { address, state }
    }

    /// `redis://` with the proxy's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this happens to connections, those that are open included.
    ///
    /// # Panics
    /// When a thread of the proxy has panicked.
    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().expect("no panic") = fault;
        if fault == Fault::Cut {
            self.cut();
        }
    }

    /// What happens to connections now.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.state.fault()
    }

    /// Cuts all connections; new ones are taken.
    ///
    /// # Panics
    /// When a thread of the proxy has panicked.
    pub fn cut(&self) {
        for stream in self.state.streams.lock().expect("no panic").drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the listener up.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn fault(&self) -> Fault {
        *self.fault.lock().expect("no panic")
    }
}

fn pass_on(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("a TCP socket");
        state.streams.lock().expect("no panic").push(stream.try_clone().expect("a handle can be doubled"));
    }
    let double = |stream: &TcpStream| stream.try_clone().expect("a handle can be doubled");
    let (from, to, shared) = (double(&client), double(&server), Arc::clone(state));
    thread::spawn(move || pump(from, to, &shared, false));
    let shared = Arc::clone(state);
    thread::spawn(move || pump(server, client, &shared, true));
}

/// Passes one direction on until an end is closed.
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
                if state.over.load(Ordering::Relaxed) {
                    return None;
                }
                thread::sleep(LOOK);
                continue;
            }
            Fault::Drip if is_reply => {
                thread::sleep(LOOK);
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
