//! A bare connection: the foreground and the bare loop measure the server, so nothing stands between them and the socket.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use keysweep_engine::link::{LinkError, Source};

/// Nothing here takes this long; without it a server that died would hang the run.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects, without Nagle's delay.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Appends a command in the form that servers read.
pub fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// A GET of a random live key of the data set.
pub fn encode_get(out: &mut Vec<u8>, random: &mut fastrand::Rng, live: u64) {
    encode(out, &[b"GET", format!("live:{}", random.u64(..live)).as_bytes()]);
}

/// Bytes of the reply to a GET of a value of this size.
pub fn reply_bytes(value_bytes: usize) -> usize {
    format!("${value_bytes}\r\n").len() + value_bytes + 2
}

/// A stream as the engine's reader wants it.
pub struct Stream(pub TcpStream);

impl Source for Stream {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
        match self.0.read(buffer) {
            Ok(0) | Err(_) => Err(LinkError::Closed),
            Ok(read) => Ok(read),
        }
    }
}
