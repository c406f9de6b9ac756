//! A connection: commands out, replies in, each within its deadline.

use std::{
    net::IpAddr,
    ops::Range,
    time::{Duration, Instant},
};

use secrecy::ExposeSecret;

use super::{
    budget::{Budget, ReplyLimit},
    cause,
    encode::{Digits, encode},
    error::{LinkError, ServerError},
    reply::{ArrayHeader, Reply},
    resp::{Reader, Source},
    transport::{Dialer, Transport, is_idle},
};
use crate::{
    stop::Stop,
    target::{Address, Credentials},
};

/// How long a connection attempt may take, name resolution and authentication included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reply may take. A server that frees a value of tens of millions of elements blocks for seconds.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a pending reply after a stop, so that the keys that a slice reclaimed are counted.
const STOP_REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The server's time, and when its reply arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeReading {
    pub answered: Instant,
    /// Microseconds since 1970; `None`: TIME is refused.
    pub clock: Option<i64>,
}

/// One connection to one node.
pub struct Link {
    pub(super) wire: Wire,
    pub(super) reader: Reader,
    pub(super) out: Vec<u8>,
    /// The shortest round trip of a single command.
    round_trip: Duration,
}

impl Link {
    /// Connects, authenticates and names the connection for `CLIENT LIST`.
    pub fn open(
        dialer: &dyn Dialer,
        address: &Address,
        credentials: &Credentials,
        client_name: &str,
        stop: &Stop,
    ) -> Result<Self, LinkError> {
        let reader = Reader::drawing_on(&dialer.memory())?;
        let stream = dialer.dial(address, CONNECT_TIMEOUT, stop)?;
        let wire =
            Wire { stream, stop: stop.clone(), timeout: CONNECT_TIMEOUT, deadline: Instant::now() + CONNECT_TIMEOUT };
        let out = Vec::with_capacity(256);
        let mut link = Self { wire, reader, out, round_trip: Duration::MAX };
        link.greet(credentials, client_name)?;
        link.wire.timeout = REPLY_TIMEOUT;
        Ok(link)
    }

    /// Authenticates, checks that the peer answers, and names the connection, in one round trip.
    fn greet(&mut self, credentials: &Credentials, client_name: &str) -> Result<(), LinkError> {
        self.out.clear();
        if let Some(password) = &credentials.password {
            let password = password.expose_secret().as_bytes();
            match &credentials.username {
                Some(username) => encode(&mut self.out, &[b"AUTH", username.as_bytes(), password]),
                None => encode(&mut self.out, &[b"AUTH", password]),
            }
        }
        encode(&mut self.out, &[b"PING"]);
        encode(&mut self.out, &[b"CLIENT", b"SETNAME", client_name.as_bytes()]);
        let sent = Instant::now();
        self.send()?;
        if credentials.password.is_some() {
            self.receive()?;
        }
        answered(self.receive())?;
        self.round_trip = sent.elapsed();
        // Where the command is unknown or refused, only the name is missing.
        match self.receive() {
            Ok(_) | Err(LinkError::Server(_)) => Ok(()),
            Err(LinkError::Closed) => Err(LinkError::ClosedAt("CLIENT SETNAME")),
            Err(error) => Err(error),
        }
    }

    /// Returns the IP address of the node; `None` where the transport does not know.
    pub fn peer(&self) -> Option<IpAddr> {
        self.wire.stream.peer()
    }

    /// Sets how long to wait for each reply from now on.
    pub fn set_reply_timeout(&mut self, timeout: Duration) {
        self.wire.timeout = timeout;
    }

    /// Sends one command and reads its reply; an error reply is [`LinkError::Server`].
    pub fn call(&mut self, words: &[&[u8]]) -> Result<Reply, LinkError> {
        let sent = Instant::now();
        self.send_command(words)?;
        let reply = self.receive_of(ReplyLimit::of(words));
        self.round_trip = self.round_trip.min(sent.elapsed());
        reply
    }

    /// Sends one command. Its reply is the next one to receive.
    pub(crate) fn send_command(&mut self, words: &[&[u8]]) -> Result<(), LinkError> {
        self.out.clear();
        encode(&mut self.out, words);
        self.send()
    }

    /// Receives the reply to a command with a short one that was sent before; an error reply is [`LinkError::Server`].
    pub(crate) fn receive(&mut self) -> Result<Reply, LinkError> {
        self.receive_of(ReplyLimit::SHORT)
    }

    fn receive_of(&mut self, limit: ReplyLimit) -> Result<Reply, LinkError> {
        match self.read_reply(&mut limit.budget())? {
            Reply::Error(text) => Err(LinkError::Server(ServerError(text))),
            reply => Ok(reply),
        }
    }

    /// Reads the next reply within a budget.
    pub(super) fn read_reply(&mut self, budget: &mut Budget) -> Result<Reply, LinkError> {
        self.reader.reply(&mut self.wire, budget)
    }

    /// Gives the memory of the replies back that were read last, which are dropped. The next command does so as well.
    pub(crate) fn release_replies(&mut self) {
        self.reader.release();
    }

    /// Returns the shortest time that the reply to a single command has taken so far.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Sends a command that the caller can do without. `None`: the server refuses it, in whatever words.
    pub fn call_optional(&mut self, words: &[&[u8]]) -> Result<Option<Reply>, LinkError> {
        optional(self.call(words))
    }

    /// Sends a command whose reply is an array of strings, and returns their number without keeping any. `None`: the server
    /// refuses the command.
    pub fn count_optional(&mut self, words: &[&[u8]]) -> Result<Option<u64>, LinkError> {
        self.out.clear();
        encode(&mut self.out, words);
        self.send()?;
        optional(match self.reader.string_count(&mut self.wire)? {
            ArrayHeader::Length(strings) => Ok(strings),
            ArrayHeader::Nil => Ok(0),
            ArrayHeader::Error(text) => Err(LinkError::Server(ServerError(text))),
        })
    }

    /// Returns how many keys each of these slots holds on this node, in one round trip.
    pub fn count_keys_in_slots(&mut self, slots: Range<u16>) -> Result<Vec<u64>, LinkError> {
        self.out.clear();
        for slot in slots.clone() {
            encode(&mut self.out, &[b"CLUSTER", b"COUNTKEYSINSLOT", Digits::of(u64::from(slot)).as_bytes()]);
        }
        self.send()?;
        let mut counts = Vec::with_capacity(slots.len());
        let mut refused = None;
        for _ in slots {
            match self.read_reply(&mut ReplyLimit::SHORT.budget())? {
                Reply::Error(text) => refused = Some(text),
                reply => counts.push(reply.keys().unwrap_or(0)),
            }
        }
        refused.map_or(Ok(counts), |text| Err(LinkError::Server(ServerError(text))))
    }

    /// Returns how many keys each of these databases holds, in one round trip, by SELECT and DBSIZE.
    pub fn count_keys_in_databases(&mut self, databases: Range<u32>) -> Result<Vec<u64>, LinkError> {
        self.out.clear();
        for database in databases.clone() {
            encode(&mut self.out, &[b"SELECT", Digits::of(u64::from(database)).as_bytes()]);
            encode(&mut self.out, &[b"DBSIZE"]);
        }
        self.send()?;
        let (mut counts, mut refused) = (Vec::with_capacity(databases.len()), None);
        for _ in databases {
            for _ in 0..2 {
                match self.read_reply(&mut ReplyLimit::SHORT.budget())? {
                    Reply::Error(text) => refused = Some(text),
                    reply => counts.extend(reply.keys().filter(|_| matches!(reply, Reply::Integer(_)))),
                }
            }
        }
        refused.map_or(Ok(counts), |text| Err(LinkError::Server(ServerError(text))))
    }

    /// Returns the round trip of a PING. An error reply counts as well: a server that fails to save answers MISCONF, and one
    /// that has renamed PING does not know it. An error that any other command would get is returned.
    pub fn ping(&mut self) -> Result<Duration, LinkError> {
        let sent = Instant::now();
        answered(self.call(&[b"PING"]))?;
        Ok(sent.elapsed())
    }

    /// Asks for the server's time. The reply is the next one to receive. Returns when it was sent.
    pub(crate) fn send_time(&mut self) -> Result<Instant, LinkError> {
        let sent = Instant::now();
        self.send_command(&[b"TIME"])?;
        Ok(sent)
    }

    /// Receives the server's time, which was asked for at `sent`.
    pub(crate) fn receive_time(&mut self, sent: Instant) -> Result<TimeReading, LinkError> {
        let reply = optional(self.receive())?;
        let answered = Instant::now();
        self.round_trip = self.round_trip.min(answered.saturating_duration_since(sent));
        Ok(TimeReading { answered, clock: reply.as_ref().and_then(Reply::time) })
    }

    /// Returns the shortest round trip of this many PINGs, of one at least: a single one may be late, and would then hide what
    /// commands cost.
    pub fn shortest_ping(&mut self, pings: u32) -> Result<Duration, LinkError> {
        let mut shortest = self.ping()?;
        for _ in 1..pings {
            shortest = shortest.min(self.ping()?);
        }
        Ok(shortest)
    }

    /// Writes the encoded commands and sets the deadline for their replies.
    pub(super) fn send(&mut self) -> Result<(), LinkError> {
        self.wire.deadline = Instant::now() + self.wire.timeout;
        self.reader.release();
        self.wire.write_all(&self.out)
    }
}

/// Returns whether the reply to a PING shows that the peer answers: an error reply does as well, unless any other command would
/// get it.
fn answered(ping: Result<Reply, LinkError>) -> Result<(), LinkError> {
    match ping {
        Err(LinkError::Server(error)) if error.is_refusal() && !error.is_denied() => Ok(()),
        result => result.map(drop),
    }
}

/// Returns `None` for a refusal.
pub(super) fn optional<T>(result: Result<T, LinkError>) -> Result<Option<T>, LinkError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(LinkError::Server(error)) if error.is_refusal() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The byte stream with its deadline and its stop.
pub(super) struct Wire {
    stream: Box<dyn Transport>,
    stop: Stop,
    timeout: Duration,
    deadline: Instant,
}

impl Wire {
    /// Returns an error when the deadline has passed, which a raised stop brings forward.
    fn check_deadline(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        if self.stop.is_raised() {
            self.deadline = self.deadline.min(now + STOP_REPLY_TIMEOUT);
        }
        match now < self.deadline {
            true => Ok(()),
            false if self.stop.is_raised() => Err(LinkError::Stopped),
            false => Err(LinkError::TimedOut(self.timeout)),
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_idle(error.kind()) => self.check_deadline()?,
                Err(error) => return Err(cause::from_io(&error)),
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
                // After a successful read as well: a peer that sends a byte at a time must not outlast the deadline.
                Ok(read) => return self.check_deadline().map(|()| read),
                Err(error) if is_idle(error.kind()) => self.check_deadline()?,
                Err(error) => return Err(cause::from_io(&error)),
            }
        }
    }
}
