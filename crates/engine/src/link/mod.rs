//! One connection to one node: sends commands, reads replies within deadlines, and runs slices.

pub mod certificate;
mod dial;
mod error;
mod info;
mod resp;
mod slice;
mod tls;

use std::{
    io::ErrorKind,
    ops::Range,
    time::{Duration, Instant},
};

use secrecy::ExposeSecret;

pub use self::{
    dial::{Dialer, Guarded, Tcp, Transport},
    error::{LinkError, ServerError},
    info::{Info, Keyspace},
    resp::{ArrayHeader, Reader, Reply, ScanReply, Source},
    slice::{Abilities, RoleView, SliceReply},
    tls::TlsDialer,
};
use crate::{
    stop::Stop,
    target::{Address, Credentials},
};

/// How long a connection attempt may take, look-up of the name and authentication included.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a reply may take. A server that frees a value of tens of millions of elements is silent for seconds.
pub const REPLY_PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer is still waited for after a stop: what a slice released should be counted.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// One connection to one node.
pub struct Link {
    wire: Wire,
    reader: Reader,
    out: Vec<u8>,
}

impl Link {
    /// Connects, authenticates and names the connection, so that an operator sees in `CLIENT LIST` who is there.
    pub fn open(
        dialer: &dyn Dialer,
        address: &Address,
        credentials: &Credentials,
        client_name: &str,
        stop: &Stop,
    ) -> Result<Self, LinkError> {
        let stream = dialer.dial(address, CONNECT_PATIENCE, stop)?;
        let wire = Wire {
            stream,
            stop: stop.clone(),
            patience: CONNECT_PATIENCE,
            deadline: Instant::now() + CONNECT_PATIENCE,
        };
        let mut link = Self { wire, reader: Reader::default(), out: Vec::with_capacity(256) };
        link.authenticate(credentials)?;
        link.call(&[b"PING"])?;
        // Servers that do not know the command, or refuse it, lose nothing but the name.
        match link.call(&[b"CLIENT", b"SETNAME", client_name.as_bytes()]) {
            Ok(_) | Err(LinkError::Server(_)) => {}
            Err(error) => return Err(error),
        }
        link.wire.patience = REPLY_PATIENCE;
        Ok(link)
    }

    fn authenticate(&mut self, credentials: &Credentials) -> Result<(), LinkError> {
        let Some(password) = &credentials.password else { return Ok(()) };
        let password = password.expose_secret().as_bytes();
        match &credentials.username {
            Some(username) => self.call(&[b"AUTH", username.as_bytes(), password])?,
            None => self.call(&[b"AUTH", password])?,
        };
        Ok(())
    }

    /// How long a reply is waited for from now on.
    pub fn be_patient_for(&mut self, patience: Duration) {
        self.wire.patience = patience;
    }

    /// Sends one command and reads its reply; an error reply is [`LinkError::Server`].
    pub fn call(&mut self, words: &[&[u8]]) -> Result<Reply, LinkError> {
        self.out.clear();
        encode(&mut self.out, words);
        self.send()?;
        match self.reader.reply(&mut self.wire)? {
            Reply::Error(text) => Err(LinkError::Server(ServerError(text))),
            reply => Ok(reply),
        }
    }

    /// The fields of `INFO sections…`; `None` where the server does not let us ask.
    pub fn info(&mut self, sections: &[&str]) -> Result<Option<Info>, LinkError> {
        // Several sections in one INFO came with Redis 7.0 only.
        let mut text = String::new();
        for section in sections {
            match self.call(&[b"INFO", section.as_bytes()]) {
                Ok(reply) => text.push_str(reply.text().unwrap_or_default()),
                Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Info::read(&text)))
    }

    /// How many keys each of these slots holds on this node, in one round trip.
    pub fn count_keys_in_slots(&mut self, slots: Range<u16>) -> Result<Vec<u64>, LinkError> {
        self.out.clear();
        for slot in slots.clone() {
            encode(&mut self.out, &[b"CLUSTER", b"COUNTKEYSINSLOT", Digits::of(u64::from(slot)).as_bytes()]);
        }
        self.send()?;
        let mut counts = Vec::with_capacity(slots.len());
        let mut refused = None;
        for _ in slots {
            match self.reader.reply(&mut self.wire)? {
                Reply::Error(text) => refused = Some(text),
                reply => counts.push(reply.integer().unwrap_or(0).max(0) as u64),
            }
        }
        refused.map_or(Ok(counts), |text| Err(LinkError::Server(ServerError(text))))
    }

    /// Round trip of a PING: what an answer costs on this connection when the server has nothing to do for us.
    pub fn ping(&mut self) -> Result<Duration, LinkError> {
        let sent = Instant::now();
        self.call(&[b"PING"])?;
        Ok(sent.elapsed())
    }

    /// Writes what has been encoded and starts the clock for the answer.
    fn send(&mut self) -> Result<(), LinkError> {
        self.wire.deadline = Instant::now() + self.wire.patience;
        self.wire.write_all(&self.out)
    }
}

/// Appends a command in the form that servers read.
fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.push(b'*');
    digits(out, words.len() as u64);
    for word in words {
        out.push(b'$');
        digits(out, word.len() as u64);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn digits(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(Digits::of(value).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal, without allocating: a slice encodes several, thousands of times a second.
struct Digits {
    buffer: [u8; 20],
    from: usize,
}

impl Digits {
    fn of(mut value: u64) -> Self {
        let mut digits = Self { buffer: [0; 20], from: 20 };
        loop {
            digits.from -= 1;
            digits.buffer[digits.from] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return digits;
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.from..]
    }
}

/// The byte stream with its deadline and its stop flag.
struct Wire {
    stream: Box<dyn Transport>,
    stop: Stop,
    patience: Duration,
    deadline: Instant,
}

impl Wire {
    /// Decides, after a wait that brought nothing, whether to wait on.
    fn go_on(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        if self.stop.is_raised() {
            self.deadline = self.deadline.min(now + STOP_PATIENCE);
        }
        match now < self.deadline {
            true => Ok(()),
            false if self.stop.is_raised() => Err(LinkError::Stopped),
            false => Err(LinkError::TimedOut(self.patience)),
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_idle(error.kind()) => self.go_on()?,
                Err(error) => return Err(LinkError::io(&error)),
            }
        }
        Ok(())
    }
}

impl Source for Wire {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(LinkError::Closed),
                // Also when something came: a peer that sends a byte at a time must not outlast the deadline.
                Ok(read) => return self.go_on().map(|()| read),
                Err(error) if is_idle(error.kind()) => self.go_on()?,
                Err(error) => return Err(LinkError::io(&error)),
            }
        }
    }
}

fn is_idle(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
