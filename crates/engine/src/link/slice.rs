//! One slice: a few hundred microseconds of SCAN in one transaction that proves by itself where it ran and what it
//! released.

use super::{ArrayHeader, Digits, Link, LinkError, Reply, ScanReply, ServerError, encode};
use crate::target::Address;

/// What a server lets us run beside SCAN. Managed servers refuse some of it; the sweep then goes on with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// MULTI and EXEC: without them another client's commands may fall between ours.
    pub transaction: bool,
    /// ROLE: without it a demotion is noticed only when the connection breaks.
    pub role: bool,
    /// DBSIZE: without it the number of released keys is not known.
    pub dbsize: bool,
    /// SELECT: without it only database 0 can be swept.
    pub select: bool,
}

impl Abilities {
    /// Everything that a stock server offers.
    pub const ALL: Self = Self { transaction: true, role: true, dbsize: true, select: true };

    /// Whether what a slice released is known exactly.
    pub fn exact(self) -> bool {
        self.transaction && self.dbsize
    }
}

/// What ROLE said inside the slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleView {
    /// It ran on a primary.
    Primary {
        /// Bytes that the slowest attached replica still has to acknowledge; 0 without replicas.
        max_lag: u64,
        /// Attached replicas.
        replicas: usize,
        /// Where they are, as the primary sees them.
        addresses: Vec<Address>,
    },
    /// It ran on a replica, which deletes nothing.
    Replica {
        /// Where that replica's primary is.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The server does not tell.
    Unknown,
}

impl RoleView {
    /// Reads a ROLE reply.
    pub fn read(reply: &Reply) -> Self {
        let Reply::Array(items) = reply else { return Self::Unknown };
        match (items.first().and_then(Reply::text), items.get(1), items.get(2)) {
            (Some("master"), Some(offset), replicas) => {
                let offset = offset.integer().unwrap_or(0);
                let replicas = if let Some(Reply::Array(replicas)) = replicas { replicas.as_slice() } else { &[] };
                let acknowledged = replicas.iter().filter_map(|replica| match replica {
                    Reply::Array(fields) => fields.get(2).and_then(Reply::integer),
                    _ => None,
                });
                let max_lag = acknowledged.map(|at| offset.saturating_sub(at).max(0)).max().unwrap_or(0);
                let addresses = replicas.iter().filter_map(address_of).collect();
                Self::Primary { max_lag: max_lag as u64, replicas: replicas.len(), addresses }
            }
            (Some("slave" | "replica"), Some(host), Some(port)) => match (host.text(), port.integer()) {
                (Some(host), Some(port)) if u16::try_from(port).is_ok() => {
                    Self::Replica { host: host.to_owned(), port: port as u16 }
                }
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

fn address_of(replica: &Reply) -> Option<Address> {
    let Reply::Array(fields) = replica else { return None };
    let port = fields.get(1)?.integer()?;
    Some(Address { host: fields.first()?.text()?.to_owned(), port: u16::try_from(port).ok()? })
}

/// What one slice did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceReply {
    /// Where it ran.
    pub role: RoleView,
    /// The next cursor; 0: this database is done.
    pub cursor: u64,
    /// Keys that SCAN returned: alive, or repeated.
    pub returned: u64,
    /// Keys that it released: the DBSIZE difference inside the transaction. 0 where DBSIZE is refused.
    pub released: u64,
    /// Keys in the database before and after, where DBSIZE is allowed.
    pub sizes: Option<(u64, u64)>,
}

impl Link {
    /// Runs one slice on the selected database, in one write and one round trip.
    pub fn slice(&mut self, cursor: u64, count: u32, abilities: Abilities) -> Result<SliceReply, LinkError> {
        self.send_slice(cursor, count, abilities)?;
        if !abilities.transaction {
            return self.read_slice(abilities);
        }
        let queued = 1 + usize::from(abilities.role) + 2 * usize::from(abilities.dbsize);
        let mut refused = None;
        for _ in 0..=queued {
            // `+OK` for MULTI and `+QUEUED` for the rest, or the reason why EXEC is about to say EXECABORT.
            if let Reply::Error(text) = self.reader.reply(&mut self.wire)? {
                refused.get_or_insert(text);
            }
        }
        match self.reader.array_header(&mut self.wire)? {
            ArrayHeader::Length(length) if length == queued as u64 => self.read_slice(abilities),
            ArrayHeader::Length(_) => Err(LinkError::Protocol("a transaction with another number of replies")),
            ArrayHeader::Nil => Err(LinkError::Protocol("a transaction that was not executed")),
            ArrayHeader::Error(text) => Err(LinkError::Server(ServerError(refused.unwrap_or(text)))),
        }
    }

    fn send_slice(&mut self, cursor: u64, count: u32, abilities: Abilities) -> Result<(), LinkError> {
        self.out.clear();
        if abilities.transaction {
            encode(&mut self.out, &[b"MULTI"]);
        }
        if abilities.role {
            encode(&mut self.out, &[b"ROLE"]);
        }
        if abilities.dbsize {
            encode(&mut self.out, &[b"DBSIZE"]);
        }
        let (cursor, count) = (Digits::of(cursor), Digits::of(u64::from(count)));
        encode(&mut self.out, &[b"SCAN", cursor.as_bytes(), b"COUNT", count.as_bytes()]);
        if abilities.dbsize {
            encode(&mut self.out, &[b"DBSIZE"]);
        }
        if abilities.transaction {
            encode(&mut self.out, &[b"EXEC"]);
        }
        self.send()
    }

    /// Reads the four replies. All of them are read even if one is an error: the next slice must find its own.
    fn read_slice(&mut self, abilities: Abilities) -> Result<SliceReply, LinkError> {
        let role = match abilities.role {
            true => Some(self.reader.reply(&mut self.wire)?),
            false => None,
        };
        let before = self.read_size(abilities)?;
        let scan = self.reader.scan_reply(&mut self.wire)?;
        let after = self.read_size(abilities)?;
        let refused = |reply: &Reply| match reply {
            Reply::Error(text) => Err(LinkError::Server(ServerError(text.clone()))),
            _ => Ok(()),
        };
        for reply in [&role, &before, &after].into_iter().flatten() {
            refused(reply)?;
        }
        let size = |reply: &Option<Reply>| reply.as_ref().and_then(Reply::integer).map(|size| size.max(0) as u64);
        let sizes = size(&before).zip(size(&after));
        match scan {
            ScanReply::Page { cursor, keys } => Ok(SliceReply {
                role: role.as_ref().map_or(RoleView::Unknown, RoleView::read),
                cursor,
                returned: keys,
                released: sizes.map_or(0, |(before, after)| before.saturating_sub(after)),
                sizes,
            }),
            ScanReply::Error(text) => Err(LinkError::Server(ServerError(text))),
        }
    }

    fn read_size(&mut self, abilities: Abilities) -> Result<Option<Reply>, LinkError> {
        if !abilities.dbsize {
            return Ok(None);
        }
        self.reader.reply(&mut self.wire).map(Some)
    }
}
