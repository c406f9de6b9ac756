//! A way to a server that kills a process (SIGKILL) at one moment of one write.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// When a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// At which CONFIG SET, from 1 on, once the trap is armed.
    pub write: u32,
    /// At which part of it.
    pub at: At,
}

/// Parts of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The server does not get the CONFIG GET before the write, so that nothing is recorded.
    Compare,
    /// The server does not get the command.
    Command,
    /// The server has replied, and the process does not get the reply.
    Reply,
    /// The process has the reply and reads the value back.
    ReadBack,
}

#[derive(Debug, Default)]
struct State {
    victim: Option<(Pid, Moment)>,
    writes: u32,
    sprung: bool,
    /// Whether nothing is passed on until the trap is armed.
    waits: bool,
}

/// The way to a server.
#[derive(Debug)]
pub struct Trap {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Trap {
    /// Listens in front of a server.
    pub fn before(server: SocketAddr) -> Self {
        Self::listen(server, State::default())
    }

    /// Listens in front of a server, for a process that writes at once: nothing is passed on until the trap is armed.
    pub fn waiting(server: SocketAddr) -> Self {
        Self::listen(server, State { waits: true, ..State::default() })
    }

    fn listen(server: SocketAddr, state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, state) = (listener.local_addr().expect("an address"), Arc::new(Mutex::new(state)));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (state, server) = (Arc::clone(&shared), TcpStream::connect(server).expect("the server listens"));
                thread::spawn(move || pass(client, server, &state));
            }
        });
        Self { address, state }
    }

    /// Sets whom to kill, and when.
    pub fn arm(&self, victim: Pid, moment: Moment) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.victim, state.writes, state.waits) = (Some((victim, moment)), 0, false);
    }

    /// Whether the process was killed.
    pub fn has_sprung(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sprung
    }

    /// Returns the address of the server through the trap.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of the server through the trap.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

/// Passes commands and replies on, one after the other: the process waits for each reply.
fn pass(mut client: TcpStream, mut server: TcpStream, state: &Mutex<State>) {
    let mut back = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    // A reply that the process must not get is read here instead.
    let swallow = Arc::new(Mutex::new(false));
    let swallows = Arc::clone(&swallow);
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(read @ 1..) = back.1.read(&mut buffer) {
            if *swallows.lock().unwrap_or_else(PoisonError::into_inner) || back.0.write_all(&buffer[..read]).is_err() {
                return;
            }
        }
        let _ = back.0.shutdown(std::net::Shutdown::Both);
    });
    let mut buffer = [0; 65_536];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let bytes = &buffer[..read];
        let mut state = armed(state);
        let is_set = contains(bytes, b"CONFIG\r\n$3\r\nSET\r\n");
        // An observation asks for INFO as well.
        let is_get = contains(bytes, b"CONFIG\r\n$3\r\nGET\r\n") && !contains(bytes, b"INFO\r\n");
        state.writes += u32::from(is_set && !state.sprung);
        let kill = state.victim.filter(|(_, Moment { write, at })| {
            let is_moment = match at {
                At::Compare => is_get && state.writes + 1 == *write,
                At::Command | At::Reply => is_set && state.writes == *write,
                At::ReadBack => is_get && state.writes == *write,
            };
            is_moment && !state.sprung
        });
        let keeps_reply = kill.is_some_and(|(_, moment)| moment.at == At::Reply);
        if keeps_reply {
            *swallow.lock().unwrap_or_else(PoisonError::into_inner) = true;
        }
        if kill.is_none() || keeps_reply {
            let _ = server.write_all(bytes);
        }
        if let Some((victim, _)) = kill {
            if keeps_reply {
                // The server has replied once it answers another connection behind this command.
                wait_for_server(&server);
            }
            kill_process(victim, Signal::KILL).expect("it runs");
            state.sprung = true;
            return;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

/// Waits until the trap is armed, where it has to be.
fn armed(state: &Mutex<State>) -> MutexGuard<'_, State> {
    loop {
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.waits {
            return state;
        }
        drop(state);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the server has handled what was sent before: it serves connections one after the other.
fn wait_for_server(server: &TcpStream) {
    let mut other = TcpStream::connect(server.peer_addr().expect("a peer")).expect("the server listens");
    for _ in 0..2 {
        other.write_all(b"PING\r\n").expect("it reads");
        let _ = other.read(&mut [0; 64]).expect("it answers");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
