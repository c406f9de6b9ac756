//! A way to a server that kills a process (SIGKILL) at one moment of one CONFIG SET.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

/// When a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// At which CONFIG SET, from 1 on.
    pub write: u32,
    /// At which part of it.
    pub at: At,
}

/// Parts of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The server does not get the command.
    Command,
    /// The server has replied, and the process does not get the reply.
    Reply,
    /// The process has the reply and reads the value back.
    ReadBack,
}

#[derive(Debug, Default)]
struct State {
    victim: Option<Pid>,
    writes: u32,
    sprung: bool,
}

/// The way to a server.
#[derive(Debug)]
pub struct Trap {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Trap {
    /// Listens in front of a server.
    pub fn before(server: SocketAddr, moment: Moment) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, state) = (listener.local_addr().expect("an address"), Arc::<Mutex<State>>::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (state, server) = (Arc::clone(&shared), TcpStream::connect(server).expect("the server listens"));
                thread::spawn(move || pass(client, server, moment, &state));
            }
        });
        Self { address, state }
    }

    /// Sets whom to kill.
    pub fn arm(&self, victim: Pid) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).victim = Some(victim);
    }

    /// Whether the process was killed.
    pub fn has_sprung(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sprung
    }

    /// Returns the URL of the server through the trap.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

/// Passes commands and replies on, one after the other: the process waits for each reply.
fn pass(mut client: TcpStream, mut server: TcpStream, moment: Moment, state: &Mutex<State>) {
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
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_set = contains(bytes, b"CONFIG\r\n$3\r\nSET\r\n");
        state.writes += u32::from(is_set && !state.sprung);
        let is_moment = !state.sprung && state.writes == moment.write;
        let kills = is_moment
            && match moment.at {
                At::Command | At::Reply => is_set,
                At::ReadBack => !is_set && contains(bytes, b"CONFIG\r\n$3\r\nGET\r\n"),
            };
        if kills && moment.at == At::Reply {
            *swallow.lock().unwrap_or_else(PoisonError::into_inner) = true;
        }
        if !kills || moment.at == At::Reply {
            let _ = server.write_all(bytes);
        }
        if kills {
            if moment.at == At::Reply {
                // The server has replied once it answers another connection behind this command.
                wait_for_server(&server);
            }
            kill_process(state.victim.expect("the trap is armed"), Signal::KILL).expect("it runs");
            state.sprung = true;
            return;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
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
