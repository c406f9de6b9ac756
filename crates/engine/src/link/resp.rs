//! Reads RESP2 replies: small ones whole, the keys of SCAN replies not at all.
//!
//! A sweep receives every key name of a keyspace and needs none of them. A general client allocates a string a key;
//! this reader skips them inside one fixed buffer, so that a sweep costs next to nothing on this side and no key name
//! ever exists as a value that could be logged.

use super::{
    budget::{Budget, ReplyLimit},
    error::LinkError,
    memory::{Held, MemoryShare},
    reply::{ArrayHeader, Reply, ScanReply},
};

/// Bytes held at once. A reply's header lines must fit; key names need not.
const BUFFER: usize = 64 * 1024;
/// Bytes of the buffer of a connection that has only received less at a time: a cluster has a thousand of them.
const SMALL_BUFFER: usize = 16 * 1024;
/// Bytes of a reply that take no memory of the process's, beside the buffer: each thread reads one reply at a time.
pub const FREE_REPLY: usize = 16 * 1024;
/// Bytes of memory that are taken at a time, since each time takes a lock.
const STEP: usize = 64 * 1024;
/// Memory of an element: its place, the unused half of an array that grows, and the allocation of a short string, bytes.
const ELEMENT: usize = 96;
/// Most strings of an array that are skipped; a slice returns some thousands of keys.
const MAX_SKIPPED: i64 = 10_000_000;
/// Longest bulk string that is skipped: the servers' own limit for a string.
const MAX_SKIP: i64 = 512 * 1024 * 1024;
/// Deepest nesting of arrays.
const MAX_DEPTH: u8 = 8;

/// Source of bytes: a connection with its deadlines, or a test.
pub trait Source {
    /// Reads at least one byte into `buffer`. Returns how many.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError>;
}

/// A buffer over a [`Source`], and the memory of the replies that were read last.
pub struct Reader {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The memory of the buffer.
    room: Held,
    /// Memory of the replies since the last [`Reader::release`], bytes.
    used: usize,
    replies: Held,
}

impl Default for Reader {
    fn default() -> Self {
        let buffer = vec![0; SMALL_BUFFER].into_boxed_slice();
        Self { buffer, start: 0, end: 0, room: Held::default(), used: 0, replies: Held::default() }
    }
}

impl Reader {
    /// Returns a reader whose buffer and replies draw on this memory.
    pub(super) fn drawing_on(memory: &MemoryShare) -> Result<Self, LinkError> {
        Ok(Self { room: memory.take(SMALL_BUFFER)?, replies: memory.take(0)?, ..Self::default() })
    }

    /// Gives the memory of all replies back that were read so far: they are dropped.
    pub(super) fn release(&mut self) {
        self.used = 0;
        self.replies.release();
    }

    /// Returns the memory of all replies that were read so far, to be held as long as they are.
    pub(super) fn hand_over(&mut self) -> Held {
        self.used = 0;
        self.replies.hand_over()
    }

    /// Takes memory for a part of a reply.
    fn take(&mut self, bytes: usize) -> Result<(), LinkError> {
        self.used += bytes;
        match self.used.checked_sub(FREE_REPLY) {
            Some(beyond) if beyond > self.replies.bytes() => self.replies.grow_to(beyond.next_multiple_of(STEP)),
            _ => Ok(()),
        }
    }

    /// Reads one reply whole, within a budget. After an error the rest of the reply is unread.
    pub fn reply(&mut self, source: &mut dyn Source, budget: &mut Budget) -> Result<Reply, LinkError> {
        self.nested_reply(source, budget, 0)
    }

    fn nested_reply(&mut self, source: &mut dyn Source, budget: &mut Budget, depth: u8) -> Result<Reply, LinkError> {
        if depth > MAX_DEPTH {
            return Err(LinkError::Protocol("arrays nested too deeply"));
        }
        budget.take_element()?;
        self.take(ELEMENT)?;
        let (kind, line) = self.header(source)?;
        Ok(match kind {
            b'+' | b'-' => {
                let text = readable(line);
                budget.take_bytes(text.len())?;
                if kind == b'+' { Reply::Simple(text) } else { Reply::Error(text) }
            }
            b':' => Reply::Integer(integer(line)?),
            b'$' => match length(line, MAX_SKIP)? {
                None => Reply::Nil,
                Some(length) => {
                    budget.take_bytes(length as usize)?;
                    Reply::Bulk(self.bulk(source, length)?)
                }
            },
            b'*' => match length(line, i64::MAX)? {
                None => Reply::Nil,
                Some(length) => {
                    budget.allows_elements(length)?;
                    // The length is the peer's claim: memory follows what really arrives.
                    let mut items = Vec::with_capacity(length.min(64) as usize);
                    for _ in 0..length {
                        items.push(self.nested_reply(source, budget, depth + 1)?);
                    }
                    items.shrink_to_fit();
                    Reply::Array(items)
                }
            },
            _ => return Err(LinkError::Protocol("a reply of an unknown type")),
        })
    }

    /// Reads the header of an array whose elements are then read one by one.
    pub fn array_header(&mut self, source: &mut dyn Source) -> Result<ArrayHeader, LinkError> {
        let (kind, line) = self.header(source)?;
        match kind {
            b'*' => Ok(length(line, MAX_SKIPPED)?.map_or(ArrayHeader::Nil, ArrayHeader::Length)),
            b'-' => Ok(ArrayHeader::Error(readable(line))),
            _ => Err(LinkError::Protocol("something other than an array where one was due")),
        }
    }

    /// Reads a SCAN reply and skips its keys.
    pub fn scan_reply(&mut self, source: &mut dyn Source) -> Result<ScanReply, LinkError> {
        match self.array_header(source)? {
            ArrayHeader::Error(text) => return Ok(ScanReply::Error(text)),
            ArrayHeader::Length(2) => {}
            _ => return Err(LinkError::Protocol("a SCAN reply that is not a pair")),
        }
        let cursor = self.cursor(source)?;
        match self.string_count(source)? {
            ArrayHeader::Length(keys) => Ok(ScanReply::Page { cursor, keys }),
            _ => Err(LinkError::Protocol("a SCAN reply without an array of keys")),
        }
    }

    /// Reads an array of strings, of any length, and skips the strings: they may be key names.
    pub fn string_count(&mut self, source: &mut dyn Source) -> Result<ArrayHeader, LinkError> {
        let (kind, line) = self.header(source)?;
        let strings = match kind {
            b'*' => length(line, MAX_SKIPPED)?,
            b'-' => return Ok(ArrayHeader::Error(readable(line))),
            _ => return Err(LinkError::Protocol("something other than an array of strings where one was due")),
        };
        for _ in 0..strings.unwrap_or(0) {
            self.skip_bulk(source)?;
        }
        Ok(strings.map_or(ArrayHeader::Nil, ArrayHeader::Length))
    }

    fn cursor(&mut self, source: &mut dyn Source) -> Result<u64, LinkError> {
        let malformed = LinkError::Protocol("a SCAN cursor that is not a number");
        match self.nested_reply(source, &mut ReplyLimit::SHORT.budget(), MAX_DEPTH)? {
            Reply::Bulk(digits) => std::str::from_utf8(&digits).ok().and_then(|d| d.parse().ok()).ok_or(malformed),
            _ => Err(malformed),
        }
    }

    fn skip_bulk(&mut self, source: &mut dyn Source) -> Result<(), LinkError> {
        let (kind, line) = self.header(source)?;
        if kind != b'$' {
            return Err(LinkError::Protocol("something other than a string in an array of strings"));
        }
        let length = length(line, MAX_SKIP)?.ok_or(LinkError::Protocol("a null string in an array of strings"))?;
        let mut left = length as usize;
        while left > 0 {
            if self.start == self.end {
                self.refill(source)?;
            }
            let step = left.min(self.end - self.start);
            self.start += step;
            left -= step;
        }
        self.line_end(source)
    }

    fn bulk(&mut self, source: &mut dyn Source, length: u64) -> Result<Vec<u8>, LinkError> {
        let mut left = length as usize;
        let mut bytes = Vec::with_capacity(left.min(BUFFER));
        while left > 0 {
            if self.start == self.end {
                self.refill(source)?;
            }
            let step = left.min(self.end - self.start);
            // For what has arrived, not for the length that the peer claims. Twice: the text is read into a buffer that grows, and
            // another value is made of it.
            self.take(2 * step)?;
            bytes.extend_from_slice(&self.buffer[self.start..self.start + step]);
            self.start += step;
            left -= step;
        }
        self.line_end(source)?;
        Ok(bytes)
    }

    fn line_end(&mut self, source: &mut dyn Source) -> Result<(), LinkError> {
        while self.end - self.start < 2 {
            self.refill(source)?;
        }
        if self.buffer[self.start..self.start + 2] != *b"\r\n" {
            return Err(LinkError::Protocol("a string of another length than announced"));
        }
        self.start += 2;
        Ok(())
    }

    /// Reads a line. Returns its type byte and the rest.
    fn header(&mut self, source: &mut dyn Source) -> Result<(u8, &[u8]), LinkError> {
        let mut searched = self.start;
        loop {
            if let Some(found) = self.buffer[searched..self.end].iter().position(|byte| *byte == b'\n') {
                let (from, newline) = (self.start, searched + found);
                if newline < from + 2 || self.buffer[newline - 1] != b'\r' {
                    return Err(LinkError::Protocol("a line that does not end as RESP lines do"));
                }
                self.start = newline + 1;
                return Ok((self.buffer[from], &self.buffer[from + 1..newline - 1]));
            }
            // Another protocol is detected at its first byte, not after a full buffer.
            if self.start < self.end && !matches!(self.buffer[self.start], b'+' | b'-' | b':' | b'$' | b'*') {
                return Err(LinkError::Protocol("a reply of an unknown type"));
            }
            let pending = self.end - self.start;
            self.refill(source)?;
            searched = self.start + pending;
        }
    }

    /// Reads more bytes after the unread ones, which it moves if needed.
    fn refill(&mut self, source: &mut dyn Source) -> Result<(), LinkError> {
        let is_full = self.end == self.buffer.len();
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if is_full {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if is_full && self.buffer.len() < BUFFER {
            self.enlarge();
        }
        match self.end < self.buffer.len() {
            true => {}
            false if self.buffer.len() < BUFFER => return Err(LinkError::NoMemory),
            false => return Err(LinkError::Protocol("a line longer than 64 KiB")),
        }
        let read = source.fill(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(())
    }
}

impl Reader {
    /// Makes the buffer as large as it may be, if there is ample memory for that: a reader works with a small one as well.
    fn enlarge(&mut self) {
        if self.room.grow_if_ample(BUFFER) {
            let mut buffer = vec![0; BUFFER].into_boxed_slice();
            buffer[..self.end].copy_from_slice(&self.buffer[..self.end]);
            self.buffer = buffer;
        }
    }
}

fn integer(digits: &[u8]) -> Result<i64, LinkError> {
    let malformed = LinkError::Protocol("an invalid number");
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return Err(malformed);
    }
    let mut value = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(malformed);
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Ok(if negative { -value } else { value })
}

fn length(digits: &[u8], most: i64) -> Result<Option<u64>, LinkError> {
    match integer(digits)? {
        -1 => Ok(None),
        length if (0..=most).contains(&length) => Ok(Some(length as u64)),
        _ => Err(LinkError::Protocol("a length out of range")),
    }
}

/// Returns a status or error line, bounded and without control characters, which could drive a terminal.
fn readable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests;
