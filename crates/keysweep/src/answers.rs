//! Memory for answers: the lists that they are made from, and their bodies. Clients decide how many answers they ask for at a time
//! and how slowly they read them, so that all large ones together are bounded, and those of one project or client.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::header::CONTENT_LENGTH,
    response::Response,
};
use futures_util::{StreamExt, stream};

use crate::request::client_network;

/// Bytes of an answer that are not counted: nearly all answers are smaller, and those of all connections together are 8 MiB.
const SMALL_ANSWER: usize = 16 << 10;
/// Bytes that all larger answers in progress may have.
pub const ALL_LARGE_ANSWERS: usize = 32 << 20;
/// Those of one client, beside one that may be larger.
const LARGE_ANSWERS_OF_ONE: usize = ALL_LARGE_ANSWERS / 4;
static LARGE_ANSWERS: LazyLock<AnswerMemory> =
    LazyLock::new(|| AnswerMemory::new(ALL_LARGE_ANSWERS, LARGE_ANSWERS_OF_ONE));
/// Bytes of a large answer that are handed to the connection at a time.
const PIECE: usize = 64 << 10;
/// How long a client may take to read a large answer, and a second more for each [`PIECE`].
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that work for answers may hold, of which one owner, a project or a client, gets a part. Clones share them.
#[derive(Debug, Clone)]
pub struct AnswerMemory {
    all: usize,
    of_one: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_owner: HashMap<String, Owner>,
    /// Number of the last share.
    last: u64,
}

/// What an owner has taken.
#[derive(Debug, Default)]
struct Owner {
    shares: usize,
    /// Bytes of its shares, without the large one.
    bytes: usize,
    /// Number of the share that may have more than the owner's part.
    large: Option<u64>,
}

impl AnswerMemory {
    /// Returns so many bytes, of which one owner gets a part.
    pub fn new(all: usize, of_one: usize) -> Self {
        Self { all, of_one, taken: Arc::default() }
    }

    /// Returns a share of this owner, without bytes as yet.
    pub fn share(&self, owner: String) -> AnswerShare {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.last += 1;
        taken.by_owner.entry(owner.clone()).or_default().shares += 1;
        AnswerShare { memory: self.clone(), owner, number: taken.last, bytes: 0 }
    }
}

/// Bytes of one owner, which are given back when the share is dropped.
#[derive(Debug)]
pub struct AnswerShare {
    memory: AnswerMemory,
    owner: String,
    number: u64,
    bytes: usize,
}

impl AnswerShare {
    /// Takes more bytes. Returns false, and takes none, where there are too few, or where the owner has its part. One share of an owner at
    /// a time may have more than that part: what is larger is made one after another, and never refused for ever.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let mut taken = self.memory.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all = taken.all.saturating_add(bytes);
        if all > self.memory.all {
            return false;
        }
        let owner = taken.by_owner.entry(self.owner.clone()).or_default();
        let is_large = owner.large == Some(self.number);
        if is_large {
            // Counted against all bytes alone.
        } else if owner.bytes.saturating_add(bytes) <= self.memory.of_one {
            owner.bytes += bytes;
        } else if owner.large.is_none() {
            owner.large = Some(self.number);
            owner.bytes = owner.bytes.saturating_sub(self.bytes);
        } else {
            return false;
        }
        taken.all = all;
        self.bytes += bytes;
        true
    }
}

impl Drop for AnswerShare {
    fn drop(&mut self) {
        let mut taken = self.memory.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(self.bytes);
        let Some(owner) = taken.by_owner.get_mut(&self.owner) else { return };
        match owner.large == Some(self.number) {
            true => owner.large = None,
            false => owner.bytes = owner.bytes.saturating_sub(self.bytes),
        }
        owner.shares = owner.shares.saturating_sub(1);
        if owner.shares == 0 {
            taken.by_owner.remove(&self.owner);
        }
    }
}

/// A piece of an answer with its share of the memory, which is given back once the client has all pieces.
struct HeldPiece {
    bytes: Bytes,
    _share: Arc<AnswerShare>,
}

impl AsRef<[u8]> for HeldPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns bytes in pieces that hold a share.
fn pieces(mut bytes: Bytes, share: AnswerShare) -> Vec<Bytes> {
    let (share, mut pieces) = (Arc::new(share), Vec::new());
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        pieces.push(Bytes::from_owner(HeldPiece { bytes: piece, _share: Arc::clone(&share) }));
    }
    pieces
}

/// Counts the body of an answer until the client has read it, and ends one that is read too slowly. Parts of a body that is made while
/// it is read are counted one by one, and one that finds no memory ends it. Returns `None` where there is no memory.
pub fn counted(answer: Response, client: IpAddr) -> Option<Response> {
    counted_in(&LARGE_ANSWERS, READ_TIMEOUT, answer, client)
}

fn counted_in(memory: &AnswerMemory, timeout: Duration, answer: Response, client: IpAddr) -> Option<Response> {
    let (mut parts, body) = answer.into_parts();
    let size = body.size_hint().exact();
    if size.is_some_and(|size| size <= SMALL_ANSWER as u64) {
        return Some(Response::from_parts(parts, body));
    }
    let (memory, owner) = (memory.clone(), client_network(client).to_string());
    let mut whole = None;
    let mut deadline = None;
    if let Some(size) = size {
        let mut share = memory.share(owner.clone());
        if !share.grow(usize::try_from(size).ok()?) {
            return None;
        }
        whole = Some(share);
        deadline = Some(Instant::now() + timeout + Duration::from_secs(size / PIECE as u64));
        parts.headers.entry(CONTENT_LENGTH).or_insert(size.into());
    }
    let held = body.into_data_stream().flat_map(move |part| {
        let pieces = part.and_then(|bytes| {
            let mut share = whole.take().unwrap_or_else(|| memory.share(owner.clone()));
            let is_counted = size.is_some() || bytes.len() <= SMALL_ANSWER;
            match is_counted || share.grow(bytes.len()) {
                true => Ok(pieces(bytes, share)),
                false => Err(ended("there is no memory for the rest of the answer")),
            }
        });
        stream::iter(match pieces {
            Ok(pieces) => pieces.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    });
    let timely = held.map(move |piece| match deadline {
        // The connection asks for the next piece when the client has read.
        Some(deadline) if Instant::now() > deadline => Err(ended("the client reads the answer too slowly")),
        _ => piece,
    });
    Some(Response::from_parts(parts, Body::from_stream(timely)))
}

/// Returns the error that ends an answer: its reader sees that the rest is missing.
fn ended(cause: &'static str) -> axum::Error {
    tracing::info!(cause, "answer cut off");
    axum::Error::new(io::Error::other(cause))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::body::to_bytes;

    use super::*;

    const MIB: usize = 1 << 20;

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    fn answer(bytes: usize) -> Response {
        Response::new(Body::from(vec![b'x'; bytes]))
    }

    fn taken(memory: &AnswerMemory) -> usize {
        memory.taken.lock().expect("not poisoned").all
    }

    #[test]
    fn an_owner_gets_its_part_and_one_share_at_a_time_more_than_that() {
        let memory = AnswerMemory::new(100, 30);
        let share = |owner: &str| memory.share(owner.to_owned());
        let (mut first, mut second) = (share("a"), share("a"));
        assert!(first.grow(20) && second.grow(10), "the part of the owner");
        assert!(first.grow(50), "the first that needs more gets more");
        assert!(!second.grow(21), "no other one does");
        assert!(second.grow(20), "its part is left to the others");
        let mut other = share("b");
        assert!(!other.grow(1), "all is taken");
        drop(first);
        assert!(other.grow(30) && second.grow(30) && !other.grow(11));
        drop(second);
        assert!(share("a").grow(70));
        drop(other);
        assert_eq!(taken(&memory), 0);
        assert!(memory.taken.lock().expect("not poisoned").by_owner.is_empty());
    }

    #[tokio::test]
    async fn a_large_answer_is_counted_until_its_last_piece_is_gone() {
        let memory = AnswerMemory::new(8 * MIB, 2 * MIB);
        let count = |bytes, of| counted_in(&memory, READ_TIMEOUT, answer(bytes), client(of));
        assert!(count(SMALL_ANSWER, 1).is_some() && taken(&memory) == 0, "a small one is not counted");
        let first = count(MIB, 1).expect("there is memory");
        assert_eq!(first.headers()[CONTENT_LENGTH], MIB.to_string());
        let second = count(MIB, 1).expect("there is memory");
        let third = count(6 * MIB, 1).expect("one may be larger than the part of a client");
        assert!(count(SMALL_ANSWER + 1, 2).is_none(), "all is taken");
        drop((second, third));
        let mut pieces = first.into_body().into_data_stream();
        let mut held = Vec::new();
        while let Some(piece) = pieces.next().await {
            held.push(piece.expect("a piece"));
        }
        drop(pieces);
        assert_eq!((held.len(), taken(&memory)), (MIB / PIECE, MIB), "the connection still has to write them");
        assert!(held.concat().iter().all(|byte| *byte == b'x'));
        drop(held);
        assert_eq!(taken(&memory), 0);
    }

    #[tokio::test]
    async fn parts_of_an_answer_are_counted_one_by_one_and_one_without_memory_ends_it() {
        let memory = AnswerMemory::new(MIB, MIB / 4);
        let streamed = |part: usize| {
            let parts = stream::iter((0..5).map(move |_| Ok::<_, io::Error>(vec![b'x'; part])));
            counted_in(&memory, READ_TIMEOUT, Response::new(Body::from_stream(parts)), client(1)).expect("no size yet")
        };
        let whole = to_bytes(streamed(MIB / 2).into_body(), usize::MAX).await;
        assert_eq!(whole.map(|body| body.len()).ok(), None, "the first part is held while the second comes");
        assert_eq!(taken(&memory), 0);
        let mut parts = streamed(MIB / 2).into_body().into_data_stream();
        let mut read = 0;
        while let Some(piece) = parts.next().await {
            read += piece.expect("each part is gone before the next").len();
        }
        assert_eq!((read, taken(&memory)), (5 * MIB / 2, 0));
        let events = to_bytes(streamed(100).into_body(), usize::MAX).await.expect("small parts are not counted");
        assert_eq!(events.len(), 500);
    }

    #[tokio::test]
    async fn a_large_answer_that_is_read_too_slowly_ends() {
        let memory = AnswerMemory::new(MIB, MIB);
        let late = counted_in(&memory, Duration::ZERO, answer(PIECE - 1), client(1)).expect("there is memory");
        to_bytes(late.into_body(), usize::MAX).await.expect_err("its time is over");
        assert_eq!(taken(&memory), 0);
    }
}
