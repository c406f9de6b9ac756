//! One slice: a few hundred microseconds of SCAN in one transaction, which also proves where it ran and how many keys it
//! reclaimed.

use std::time::Duration;

use super::{
    budget::ReplyLimit,
    connection::Link,
    encode::{Digits, encode},
    error::{LinkError, ServerError},
    info::Info,
    reply::{ArrayHeader, Reply, ScanReply},
    role::RoleView,
};

/// The commands beside SCAN that a server allows. Managed servers refuse some; the sweep then runs without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// MULTI and EXEC: without them other clients' commands may run in the middle of a slice.
    pub transaction: bool,
    /// ROLE: without it a demotion is noticed only when the connection breaks.
    pub role: bool,
    /// DBSIZE: without it the number of reclaimed keys is unknown.
    pub dbsize: bool,
    /// SELECT: without it only database 0 can be swept.
    pub select: bool,
    /// TIME, where it moves inside a transaction (Redis before 7.2), to time SCAN by the server's clock; over a distance on every
    /// server: it says when the slice ran.
    pub time: bool,
    /// Whether slices read `used_memory` before and after SCAN, which takes longer than a small slice itself.
    pub memory: bool,
}

impl Capabilities {
    /// All commands of a stock server whose clock stands still inside a transaction.
    pub const ALL: Self =
        Self { transaction: true, role: true, dbsize: true, select: true, time: false, memory: false };

    /// Returns how many commands a slice takes.
    fn commands(self) -> u64 {
        let around = [self.dbsize, self.time, self.memory, self.transaction].map(u64::from);
        1 + u64::from(self.role) + 2 * around.iter().sum::<u64>()
    }

    /// Whether the number of keys that a slice reclaimed is exact.
    pub fn exact(self) -> bool {
        self.transaction && self.dbsize
    }
}

/// Result of one slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceReply {
    /// Role of the node that it ran on.
    pub role: RoleView,
    /// The next cursor; 0: this database is done.
    pub cursor: u64,
    /// Keys that SCAN returned, repeats included.
    pub returned: u64,
    /// Keys that it reclaimed: the DBSIZE difference inside the transaction. 0 where DBSIZE is refused.
    pub reclaimed: u64,
    /// Keys in the database before and after, where DBSIZE is allowed.
    pub sizes: Option<(u64, u64)>,
    /// The server's time before and after SCAN, microseconds since 1970, where it was asked for: twice that of the beginning where
    /// its clock stands still in a transaction.
    pub clock: Option<(i64, i64)>,
    /// `used_memory` before and after SCAN, bytes, where it is read.
    pub memory: Option<(u64, u64)>,
    /// Commands that it took.
    pub commands: u64,
}

impl SliceReply {
    /// Returns how long SCAN took by the server's clock; `None`: that stands still.
    pub fn scan_time(&self) -> Option<Duration> {
        let (begun, ended) = self.clock?;
        let elapsed = u64::try_from(ended.checked_sub(begun)?).ok().filter(|elapsed| *elapsed > 0)?;
        Some(Duration::from_micros(elapsed))
    }
}

impl Link {
    /// Runs one slice on the selected database, in one write and one round trip.
    pub fn slice(&mut self, cursor: u64, count: u32, capabilities: Capabilities) -> Result<SliceReply, LinkError> {
        self.send_slice(cursor, count, capabilities)?;
        self.receive_slice(capabilities)
    }

    /// Receives the reply to a slice that was sent before.
    pub fn receive_slice(&mut self, capabilities: Capabilities) -> Result<SliceReply, LinkError> {
        if !capabilities.transaction {
            return self.read_slice(capabilities);
        }
        let around = [capabilities.dbsize, capabilities.time, capabilities.memory].map(usize::from);
        let queued = 1 + usize::from(capabilities.role) + 2 * around.iter().sum::<usize>();
        let mut refused = None;
        for _ in 0..=queued {
            // `+OK` for MULTI and `+QUEUED` for the rest, or the cause of the EXECABORT that follows.
            if let Reply::Error(text) = self.read_reply(&mut ReplyLimit::SHORT.budget())? {
                refused.get_or_insert(text);
            }
        }
        match self.reader.array_header(&mut self.wire)? {
            ArrayHeader::Length(length) if length == queued as u64 => self.read_slice(capabilities),
            ArrayHeader::Length(_) => Err(LinkError::Protocol("a transaction with another number of replies")),
            ArrayHeader::Nil => Err(LinkError::Protocol("a transaction that was not executed")),
            ArrayHeader::Error(text) => Err(LinkError::Server(ServerError(refused.unwrap_or(text)))),
        }
    }

    /// Sends a slice on the selected database, in one write. Its reply is the next one to receive.
    pub fn send_slice(&mut self, cursor: u64, count: u32, capabilities: Capabilities) -> Result<(), LinkError> {
        self.out.clear();
        if capabilities.transaction {
            encode(&mut self.out, &[b"MULTI"]);
        }
        if capabilities.dbsize {
            encode(&mut self.out, &[b"DBSIZE"]);
        }
        if capabilities.time {
            encode(&mut self.out, &[b"TIME"]);
        }
        let (cursor, count) = (Digits::of(cursor), Digits::of(u64::from(count)));
        if capabilities.memory {
            encode(&mut self.out, &[b"INFO", b"memory"]);
        }
        encode(&mut self.out, &[b"SCAN", cursor.as_bytes(), b"COUNT", count.as_bytes()]);
        if capabilities.memory {
            encode(&mut self.out, &[b"INFO", b"memory"]);
        }
        if capabilities.time {
            encode(&mut self.out, &[b"TIME"]);
        }
        if capabilities.dbsize {
            encode(&mut self.out, &[b"DBSIZE"]);
        }
        // Last: servers write the rest of the replies after that of ROLE to another buffer, which took them 4 to 8 µs longer.
        if capabilities.role {
            encode(&mut self.out, &[b"ROLE"]);
        }
        if capabilities.transaction {
            encode(&mut self.out, &[b"EXEC"]);
        }
        self.send()
    }

    /// Reads the replies. Reads all of them even if one is an error, so that the next slice reads its own.
    fn read_slice(&mut self, capabilities: Capabilities) -> Result<SliceReply, LinkError> {
        let before = self.read_size(capabilities)?;
        let begun = self.read_time(capabilities)?;
        let memory_before = self.read_memory(capabilities)?;
        let scan = self.reader.scan_reply(&mut self.wire)?;
        let memory_after = self.read_memory(capabilities)?;
        let ended = self.read_time(capabilities)?;
        let after = self.read_size(capabilities)?;
        let role = match capabilities.role {
            true => Some(self.read_reply(&mut ReplyLimit::ROLE.budget())?),
            false => None,
        };
        let refused = |reply: &Reply| match reply {
            Reply::Error(text) => Err(LinkError::Server(ServerError(text.clone()))),
            _ => Ok(()),
        };
        for reply in [&role, &before, &begun, &ended, &after].into_iter().flatten() {
            refused(reply)?;
        }
        let size = |reply: &Option<Reply>| reply.as_ref().and_then(Reply::keys);
        let sizes = size(&before).zip(size(&after));
        match scan {
            ScanReply::Page { cursor, keys } => Ok(SliceReply {
                role: role.as_ref().map_or(RoleView::Unknown, RoleView::read),
                cursor,
                returned: keys,
                reclaimed: sizes.map_or(0, |(before, after)| before.saturating_sub(after)),
                sizes,
                clock: begun.as_ref().and_then(Reply::time).zip(ended.as_ref().and_then(Reply::time)),
                memory: memory_before.zip(memory_after),
                commands: capabilities.commands(),
            }),
            ScanReply::Error(text) => Err(LinkError::Server(ServerError(text))),
        }
    }

    fn read_time(&mut self, capabilities: Capabilities) -> Result<Option<Reply>, LinkError> {
        if !capabilities.time {
            return Ok(None);
        }
        self.read_reply(&mut ReplyLimit::SHORT.budget()).map(Some)
    }

    fn read_memory(&mut self, capabilities: Capabilities) -> Result<Option<u64>, LinkError> {
        if !capabilities.memory {
            return Ok(None);
        }
        let reply = self.read_reply(&mut ReplyLimit::SHORT.budget())?;
        Ok(reply.text().and_then(|text| Info::read(text).number("used_memory")))
    }

    fn read_size(&mut self, capabilities: Capabilities) -> Result<Option<Reply>, LinkError> {
        if !capabilities.dbsize {
            return Ok(None);
        }
        self.read_reply(&mut ReplyLimit::SHORT.budget()).map(Some)
    }
}
