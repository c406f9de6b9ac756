//! Reads RESP2 replies: small ones whole, the keys of SCAN replies not at all.
//!
//! A sweep receives every key name of a keyspace and needs none of them. A general client allocates a string a key;
//! this reader skips them inside one fixed buffer, so that a sweep costs next to nothing on this side and no key name
//! ever exists as a value that could be logged.

use super::{
    error::LinkError,
    reply::{ArrayHeader, Reply, ScanReply},
};

/// Bytes held at once. A reply's header lines must fit; key names need not.
const BUFFER: usize = 64 * 1024;
/// Longest bulk string that is read whole (`INFO` is some kilobytes, `CLUSTER NODES` of a large cluster a few hundred).
const MAX_BULK: i64 = 16 * 1024 * 1024;
/// Most elements of an array that is read whole.
const MAX_ARRAY: i64 = 100_000;
/// Longest bulk string that is skipped: the servers' own limit for a string.
const MAX_SKIP: i64 = 512 * 1024 * 1024;
/// Deepest nesting of arrays.
const MAX_DEPTH: u8 = 8;

/// Source of bytes: a connection with its deadlines, or a test.
pub trait Source {
    /// Reads at least one byte into `buffer`. Returns how many.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError>;
}

/// A fixed buffer over a [`Source`].
pub struct Reader {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }
}

impl Reader {
    /// Reads one reply whole.
    pub fn reply(&mut self, source: &mut dyn Source) -> Result<Reply, LinkError> {
        self.nested_reply(source, 0)
    }

    fn nested_reply(&mut self, source: &mut dyn Source, depth: u8) -> Result<Reply, LinkError> {
        if depth > MAX_DEPTH {
            return Err(LinkError::Protocol("arrays nested too deeply"));
        }
        let (kind, line) = self.header(source)?;
        Ok(match kind {
            b'+' => Reply::Simple(readable(line)),
            b'-' => Reply::Error(readable(line)),
            b':' => Reply::Integer(integer(line)?),
            b'$' => match length(line, MAX_BULK)? {
                None => Reply::Nil,
                Some(length) => Reply::Bulk(self.bulk(source, length)?),
            },
            b'*' => match length(line, MAX_ARRAY)? {
                None => Reply::Nil,
                Some(length) => {
                    // The length is the peer's claim: memory follows what really arrives.
                    let mut items = Vec::with_capacity(length.min(64) as usize);
                    for _ in 0..length {
                        items.push(self.nested_reply(source, depth + 1)?);
                    }
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
            b'*' => Ok(length(line, MAX_ARRAY)?.map_or(ArrayHeader::Nil, ArrayHeader::Length)),
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
            b'*' => length(line, i64::MAX)?,
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
        match self.nested_reply(source, MAX_DEPTH)? {
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
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            if self.start == 0 {
                return Err(LinkError::Protocol("a line longer than 64 KiB"));
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let read = source.fill(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(())
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns bytes in pieces of the given sizes, then reports a closed connection.
    struct Pieces<'a> {
        bytes: &'a [u8],
        sizes: Vec<usize>,
    }

    impl Source for Pieces<'_> {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
            let size = self.sizes.pop().unwrap_or(self.bytes.len()).clamp(1, buffer.len()).min(self.bytes.len());
            if size == 0 {
                return Err(LinkError::Closed);
            }
            buffer[..size].copy_from_slice(&self.bytes[..size]);
            self.bytes = &self.bytes[size..];
            Ok(size)
        }
    }

    fn read(bytes: &[u8], sizes: Vec<usize>) -> Result<Reply, LinkError> {
        Reader::default().reply(&mut Pieces { bytes, sizes })
    }

    fn encode(reply: &Reply, out: &mut Vec<u8>) {
        match reply {
            Reply::Simple(text) => out.extend(format!("+{text}\r\n").bytes()),
            Reply::Error(text) => out.extend(format!("-{text}\r\n").bytes()),
            Reply::Integer(value) => out.extend(format!(":{value}\r\n").bytes()),
            Reply::Nil => out.extend(b"$-1\r\n"),
            Reply::Bulk(bytes) => {
                out.extend(format!("${}\r\n", bytes.len()).bytes());
                out.extend(bytes);
                out.extend(b"\r\n");
            }
            Reply::Array(items) => {
                out.extend(format!("*{}\r\n", items.len()).bytes());
                items.iter().for_each(|item| encode(item, out));
            }
        }
    }

    fn scan_page(cursor: u64, keys: &[Vec<u8>]) -> Vec<u8> {
        let keys = keys.iter().cloned().map(Reply::Bulk).collect();
        let mut out = Vec::new();
        encode(&Reply::Array(vec![Reply::Bulk(cursor.to_string().into_bytes()), Reply::Array(keys)]), &mut out);
        out
    }

    #[test]
    fn a_reply_split_at_every_byte_reads_the_same() {
        let reply = Reply::Array(vec![
            Reply::Simple("QUEUED".into()),
            Reply::Error("NOPERM no".into()),
            Reply::Array(vec![
                Reply::Bulk(b"mas\r\nter".to_vec()),
                Reply::Integer(-12),
                Reply::Nil,
                Reply::Array(vec![]),
            ]),
        ]);
        let mut bytes = Vec::new();
        encode(&reply, &mut bytes);
        for split in 1..bytes.len() {
            assert_eq!(read(&bytes, vec![split]).expect("a whole reply"), reply, "split at {split}");
        }
        assert_eq!(read(&bytes, vec![1; bytes.len()]).expect("a whole reply"), reply, "byte by byte");
    }

    #[test]
    fn a_reply_cut_at_every_byte_is_an_error() {
        let bytes = scan_page(7, &[b"a".to_vec(), b"\r\n$1".to_vec()]);
        for cut in 0..bytes.len() {
            let mut source = Pieces { bytes: &bytes[..cut], sizes: vec![] };
            assert!(matches!(Reader::default().scan_reply(&mut source), Err(LinkError::Closed)), "cut at {cut}");
        }
    }

    #[test]
    fn keys_larger_than_the_buffer_are_skipped() {
        let bytes = scan_page(u64::MAX, &[vec![b'k'; 3 * BUFFER], b"last".to_vec()]);
        let mut source = Pieces { bytes: &bytes, sizes: vec![] };
        let reply = Reader::default().scan_reply(&mut source).expect("a page");
        assert_eq!(reply, ScanReply::Page { cursor: u64::MAX, keys: 2 });
    }

    #[test]
    fn other_protocols_are_detected_at_their_first_byte() {
        for greeting in
            [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x03\x00\x02\x02\x28"]
        {
            assert!(matches!(read(greeting, vec![3]), Err(LinkError::Protocol(_))));
        }
    }

    #[test]
    fn an_announced_length_allocates_no_memory_until_the_elements_arrive() {
        assert!(matches!(read(b"*100000\r\n", vec![]), Err(LinkError::Closed)));
        assert!(matches!(read(b"*100001\r\n", vec![]), Err(LinkError::Protocol(_))));
        assert!(matches!(read(b"$99999999999\r\n", vec![]), Err(LinkError::Protocol(_))));
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let leaf = prop_oneof![
            "[ -~]{0,20}".prop_map(Reply::Simple),
            "[ -~]{0,20}".prop_map(Reply::Error),
            (-1_000_000_000i64..1_000_000_000).prop_map(Reply::Integer),
            prop::collection::vec(any::<u8>(), 0..80).prop_map(Reply::Bulk),
            Just(Reply::Nil),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Reply::Array))
    }

    proptest! {
        #[test]
        fn whatever_a_server_may_say_is_read_as_said(reply in any_reply(), sizes in prop::collection::vec(1usize..9, 0..60)) {
            let mut bytes = Vec::new();
            encode(&reply, &mut bytes);
            prop_assert_eq!(read(&bytes, sizes).expect("a whole reply"), reply);
        }

        #[test]
        fn keys_are_counted_however_the_bytes_arrive(
            cursor in any::<u64>(),
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..30),
            sizes in prop::collection::vec(1usize..50, 0..60),
        ) {
            let bytes = scan_page(cursor, &keys);
            let reply = Reader::default().scan_reply(&mut Pieces { bytes: &bytes, sizes }).expect("a page");
            prop_assert_eq!(reply, ScanReply::Page { cursor, keys: keys.len() as u64 });
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), first in prop::sample::select(&b"+-:$*"[..])) {
            let mut framed = vec![first];
            framed.extend(&bytes);
            let _ = read(&framed, vec![]);
            let _ = Reader::default().scan_reply(&mut Pieces { bytes: &framed, sizes: vec![] });
        }
    }
}
