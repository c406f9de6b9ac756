//! A proxy between keysweep and a server that injects network faults, or the distance of another region.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

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

/// Delay of all bytes in each direction, as on a long network path. They stay in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Mean delay of one direction: half of the round trip.
    pub one_way: Duration,
    /// How far the delay of some bytes may differ from the mean, up or down.
    pub jitter: Duration,
}

impl Delay {
    /// Returns the delay of a path with this round trip, which varies by up to `jitter` up and down.
    #[must_use]
    pub fn round_trip(round_trip: Duration, jitter: Duration) -> Self {
        Self { one_way: round_trip / 2, jitter: jitter / 2 }
    }

    /// Returns the delay for a random number.
    fn at(self, random: u64) -> Duration {
        let span = u64::try_from(2 * self.jitter.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        (self.one_way + Duration::from_nanos(random % span)).saturating_sub(self.jitter)
    }
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
    delay: Mutex<Delay>,
    /// State of a generator of random numbers (splitmix64): every run has the same delays.
    random: AtomicU64,
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

    /// Starts a proxy to the server on a free port, which delays all bytes.
    ///
    /// # Panics
    /// If the system has no free port.
    #[must_use]
    pub fn at_distance(server: &Server, delay: Delay) -> Self {
        Self::start(server.address(), delay)
    }

    /// Starts a proxy to this address on a free port.
    ///
    /// # Panics
    /// If the system has no free port.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        Self::start(server, Delay::default())
    }

    fn start(server: SocketAddr, delay: Delay) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the system has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State {
            fault: Mutex::default(),
            delay: Mutex::new(delay),
            random: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            streams: Mutex::default(),
        });
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

    /// Sets the delay of all bytes from now on, where the proxy delays any.
    ///
    /// # Panics
    /// If a thread of the proxy has panicked.
    pub fn set_delay(&self, delay: Delay) {
        *self.state.delay.lock().expect("no panic") = delay;
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

    /// Returns how long the next bytes take.
    fn next_delay(&self) -> Duration {
        let seed = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.delay().at(mixed ^ (mixed >> 31))
    }

    fn delay(&self) -> Delay {
        *self.delay.lock().expect("no panic")
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
fn pump(from: TcpStream, mut to: TcpStream, state: &Arc<State>, is_reply: bool) {
    let close = |from: &TcpStream, to: &TcpStream| {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    };
    let read = |buffer: &mut [u8]| (&from).read(buffer).unwrap_or(0);
    let mut buffer = vec![0; 16 * 1024];
    if state.delay() == Delay::default() {
        loop {
            let length = read(&mut buffer);
            if length == 0 || forward(&mut to, &buffer[..length], state, is_reply).is_none() {
                return close(&from, &to);
            }
        }
    }
    // A second thread writes the bytes when they are due, so that those behind them travel meanwhile.
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    let (from_end, to_end, shared) = (from.try_clone(), to.try_clone(), Arc::clone(state));
    let writer = thread::spawn(move || {
        for (due, bytes) in receive {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if forward(&mut to, &bytes, &shared, is_reply).is_none() {
                break;
            }
        }
        if let (Ok(from), Ok(to)) = (from_end, to_end) {
            close(&from, &to);
        }
    });
    let mut last = Instant::now();
    loop {
        let length = read(&mut buffer);
        last = last.max(Instant::now() + state.next_delay());
        if length == 0 || send.send((last, buffer[..length].to_vec())).is_err() {
            break;
        }
    }
    drop(send);
    let _ = writer.join();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binaries::Flavor;

    #[test]
    fn a_round_trip_through_a_distant_proxy_takes_its_delay_both_ways() {
        let server = Server::start(Flavor::Valkey91);
        let delay = Delay::round_trip(Duration::from_millis(20), Duration::from_millis(4));
        let proxy = Proxy::at_distance(&server, delay);
        let client = redis::Client::open(("127.0.0.1", proxy.address().port())).expect("an address");
        let mut connection = client.get_connection().expect("a connection");
        let mut round_trips: Vec<Duration> = (0..15)
            .map(|_| {
                let sent = Instant::now();
                redis::cmd("PING").exec(&mut connection).expect("an answer");
                sent.elapsed()
            })
            .collect();
        round_trips.sort_unstable();
        assert!(round_trips[0] >= Duration::from_millis(16), "{round_trips:?}");
        // The median, since the machine may stall.
        assert!(round_trips[7] < Duration::from_millis(26), "{round_trips:?}");
        assert!(round_trips[12] - round_trips[0] > Duration::from_millis(1), "jitter, {round_trips:?}");
    }
}
