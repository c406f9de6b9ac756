//! Tests of the reader: pieces of any size, budgets, and bytes of any kind.

use std::sync::Arc;

use proptest::prelude::*;

use super::{super::memory::ReplyMemory, *};

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
    Reader::default().reply(&mut Pieces { bytes, sizes }, &mut ReplyLimit::TOPOLOGY.budget())
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
        Reply::Array(vec![Reply::Bulk(b"mas\r\nter".to_vec()), Reply::Integer(-12), Reply::Nil, Reply::Array(vec![])]),
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
    assert!(matches!(read(b"*30000\r\n", vec![]), Err(LinkError::Closed)));
    assert!(matches!(read(b"*60001\r\n", vec![]), Err(LinkError::TooLarge { .. })));
    assert!(matches!(read(b"$2097153\r\n", vec![]), Err(LinkError::TooLarge { .. })));
    assert!(matches!(read(b"$99999999999\r\n", vec![]), Err(LinkError::Protocol(_))));
}

/// Bytes that never end: the same part again and again. Counts what was read.
struct Endless {
    part: &'static [u8],
    read: usize,
}

impl Source for Endless {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
        for byte in buffer.iter_mut() {
            *byte = self.part[self.read % self.part.len()];
            self.read += 1;
        }
        Ok(buffer.len())
    }
}

#[test]
fn a_reply_without_an_end_is_given_up_within_its_budget() {
    for (part, limit) in [
        (&b"*2\r\n"[..], ReplyLimit::SHORT),
        (b"*1000\r\n:1\r\n", ReplyLimit::TOPOLOGY),
        (b"*3\r\n$5\r\nhello\r\n:1\r\n", ReplyLimit::ROLE),
    ] {
        let mut source = Endless { part, read: 0 };
        let read = Reader::default().reply(&mut source, &mut limit.budget());
        assert!(matches!(read, Err(LinkError::TooLarge { .. } | LinkError::Protocol(_))), "{read:?}");
        assert!(source.read < 4 << 20, "{} bytes were read", source.read);
    }
    assert!(matches!(read(b"*4\r\n*200000\r\n:1\r\n", vec![]), Err(LinkError::TooLarge { .. })));
    let mut source = Pieces { bytes: b"*10000001\r\n", sizes: vec![] };
    assert!(matches!(Reader::default().string_count(&mut source), Err(LinkError::Protocol(_))));
}

#[test]
fn large_replies_of_all_connections_draw_on_one_memory_until_they_are_dropped() {
    let memory = Arc::new(ReplyMemory::new(1 << 20, 1 << 20));
    let open = || Reader::drawing_on(&MemoryShare::new(&memory, "shop")).expect("room for a buffer");
    let read = |reader: &mut Reader, text: usize| {
        let mut bytes = Vec::new();
        encode(&Reply::Bulk(vec![b'x'; text]), &mut bytes);
        reader.reply(&mut Pieces { bytes: &bytes, sizes: vec![1_000; 1_000] }, &mut ReplyLimit::TOPOLOGY.budget())
    };
    let (mut one, mut two) = (open(), open());
    let buffers = memory.taken();
    read(&mut one, 1_000).expect("a short reply");
    assert_eq!(memory.taken(), buffers, "a short reply takes none");
    read(&mut one, 300_000).expect("a large reply");
    assert!(memory.taken() >= buffers + 600_000 - FREE_REPLY, "{}", memory.taken());
    assert!(matches!(read(&mut two, 300_000), Err(LinkError::NoMemory)));
    one.release();
    // As after any error: the connection is given up.
    two.release();
    let mut three = open();
    read(&mut three, 300_000).expect("the other reply is dropped");
    let held = three.hand_over();
    drop((one, two, three));
    assert!(memory.taken() >= 500_000, "what was handed over is still held");
    drop(held);
    assert_eq!(memory.taken(), 0);
}

#[test]
fn a_reader_works_with_a_small_buffer_where_there_is_no_memory_for_a_large_one() {
    let memory = Arc::new(ReplyMemory::new(SMALL_BUFFER, SMALL_BUFFER));
    let share = MemoryShare::new(&memory, "shop");
    let mut reader = Reader::drawing_on(&share).expect("room for a buffer");
    assert!(matches!(Reader::drawing_on(&share).map(drop), Err(LinkError::NoMemory)));
    let bytes = scan_page(7, &vec![vec![b'k'; 1_000]; 100]);
    let page = reader.scan_reply(&mut Pieces { bytes: &bytes, sizes: vec![] }).expect("a page");
    assert_eq!((page, reader.buffer.len()), (ScanReply::Page { cursor: 7, keys: 100 }, SMALL_BUFFER));
    drop(reader);
    let mut reader = Reader::default();
    reader.scan_reply(&mut Pieces { bytes: &bytes, sizes: vec![] }).expect("a page");
    assert_eq!(reader.buffer.len(), BUFFER, "it grows when more arrives at a time than it has room for");
}

#[test]
fn each_command_has_the_budget_of_its_purpose() {
    let budget = |words: &[&[u8]]| ReplyLimit::of(words);
    assert_eq!(budget(&[b"PING"]), ReplyLimit::SHORT);
    assert_eq!(budget(&[b"CONFIG", b"GET", b"databases"]), ReplyLimit::SHORT);
    assert_eq!(budget(&[b"ROLE"]), ReplyLimit::ROLE);
    assert_eq!(budget(&[b"INFO", b"keyspace"]), ReplyLimit::INFO);
    assert_eq!(budget(&[b"CLUSTER", b"SLOTS"]), ReplyLimit::TOPOLOGY);
    assert_eq!(budget(&[b"SENTINEL", b"MASTERS"]), ReplyLimit::TOPOLOGY);
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

/// Returns the bytes of a reply's texts, and its elements.
fn size(reply: &Reply) -> (usize, usize) {
    match reply {
        Reply::Bulk(bytes) => (bytes.len(), 1),
        Reply::Simple(text) | Reply::Error(text) => (text.len(), 1),
        Reply::Array(items) => {
            items.iter().map(size).fold((0, 1), |(bytes, count), (more, others)| (bytes + more, count + others))
        }
        _ => (0, 1),
    }
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
    fn no_reply_is_held_beyond_its_budget(reply in any_reply(), bytes in 0usize..200, elements in 0usize..40) {
        let mut encoded = Vec::new();
        encode(&reply, &mut encoded);
        let mut budget = ReplyLimit::SHORT.budget();
        budget.shrink(bytes, elements);
        let read = Reader::default().reply(&mut Pieces { bytes: &encoded, sizes: vec![] }, &mut budget);
        let fits = size(&reply).0 <= bytes && size(&reply).1 <= elements;
        match read {
            Ok(held) => prop_assert!(fits && held == reply, "{:?} of {:?}", size(&reply), (bytes, elements)),
            Err(error) => prop_assert!(!fits && matches!(error, LinkError::TooLarge { .. }), "{error}"),
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), first in prop::sample::select(&b"+-:$*"[..])) {
        let mut framed = vec![first];
        framed.extend(&bytes);
        let _ = read(&framed, vec![]);
        let _ = Reader::default().scan_reply(&mut Pieces { bytes: &framed, sizes: vec![] });
    }
}
