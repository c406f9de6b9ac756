//! Memory for answers. Clients decide how many they ask for at a time and how slowly they read them, so that all large ones together are
//! bounded, and those of one client.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::header::CONTENT_LENGTH,
    response::Response,
};
use futures_util::{StreamExt, stream};

use crate::{
    budget::{BudgetShare, ByteBudget},
    request::client_network,
};

/// Bytes of an answer that are not counted: nearly all answers are smaller, and those of all connections together are 8 MiB.
const SMALL_ANSWER: usize = 16 << 10;
/// Bytes that all larger answers in progress may have.
pub const ALL_LARGE_ANSWERS: usize = 32 << 20;
/// Those of one client, beside one that may be larger.
const LARGE_ANSWERS_OF_ONE: usize = ALL_LARGE_ANSWERS / 4;
static LARGE_ANSWERS: LazyLock<ByteBudget> = LazyLock::new(|| ByteBudget::new(ALL_LARGE_ANSWERS, LARGE_ANSWERS_OF_ONE));
/// Bytes of a large answer that are handed to the connection at a time.
const PIECE: usize = 64 << 10;
/// How long a client may take to read a large answer, and a second more for each [`PIECE`].
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A piece of an answer with its share of the memory, which is given back once the client has all pieces.
struct HeldPiece {
    bytes: Bytes,
    _share: Arc<BudgetShare>,
}

impl AsRef<[u8]> for HeldPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns bytes in pieces that hold a share.
fn pieces(mut bytes: Bytes, share: BudgetShare) -> Vec<Bytes> {
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

fn counted_in(memory: &ByteBudget, timeout: Duration, answer: Response, client: IpAddr) -> Option<Response> {
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

    #[tokio::test]
    async fn a_large_answer_is_counted_until_its_last_piece_is_gone() {
        let memory = ByteBudget::new(8 * MIB, 2 * MIB);
        let count = |bytes, of| counted_in(&memory, READ_TIMEOUT, answer(bytes), client(of));
        assert!(count(SMALL_ANSWER, 1).is_some() && memory.taken() == 0, "a small one is not counted");
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
        assert_eq!((held.len(), memory.taken()), (MIB / PIECE, MIB), "the connection still has to write them");
        assert!(held.concat().iter().all(|byte| *byte == b'x'));
        drop(held);
        assert_eq!(memory.taken(), 0);
    }

    #[tokio::test]
    async fn parts_of_an_answer_are_counted_one_by_one_and_one_without_memory_ends_it() {
        let memory = ByteBudget::new(MIB, MIB / 4);
        let streamed = |part: usize| {
            let parts = stream::iter((0..5).map(move |_| Ok::<_, io::Error>(vec![b'x'; part])));
            counted_in(&memory, READ_TIMEOUT, Response::new(Body::from_stream(parts)), client(1)).expect("no size yet")
        };
        let whole = to_bytes(streamed(MIB / 2).into_body(), usize::MAX).await;
        assert_eq!(whole.map(|body| body.len()).ok(), None, "the first part is held while the second comes");
        assert_eq!(memory.taken(), 0);
        let mut parts = streamed(MIB / 2).into_body().into_data_stream();
        let mut read = 0;
        while let Some(piece) = parts.next().await {
            read += piece.expect("each part is gone before the next").len();
        }
        assert_eq!((read, memory.taken()), (5 * MIB / 2, 0));
        let events = to_bytes(streamed(100).into_body(), usize::MAX).await.expect("small parts are not counted");
        assert_eq!(events.len(), 500);
    }

    #[tokio::test]
    async fn a_large_answer_that_is_read_too_slowly_ends() {
        let memory = ByteBudget::new(MIB, MIB);
        let late = counted_in(&memory, Duration::ZERO, answer(PIECE - 1), client(1)).expect("there is memory");
        to_bytes(late.into_body(), usize::MAX).await.expect_err("its time is over");
        assert_eq!(memory.taken(), 0);
    }
}
