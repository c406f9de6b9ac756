//! A plain connection. The foreground and the bare loop measure the server, so they use the socket without a client library.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use keysweep_engine::link::{LinkError, Source};

/// Read timeout. No reply takes this long; without it a crashed server would hang the run.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Connects with Nagle's algorithm disabled.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    Ok(stream)
}

/// Appends a command in RESP.
pub fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a GET of a random live key of the data set.
pub fn encode_get(out: &mut Vec<u8>, random: &mut fastrand::Rng, live: u64) {
    encode(out, &[b"GET", format!("live:{}", random.u64(..live)).as_bytes()]);
}

/// Returns the length of the reply to a GET of a value of this size, bytes.
pub fn reply_bytes(value_bytes: usize) -> usize {
    format!("${value_bytes}\r\n").len() + value_bytes + 2
}

/// Adapter of a stream for the engine's reader.
pub struct Stream(pub TcpStream);

impl Source for Stream {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
        match self.0.read(buffer) {
            Ok(0) | Err(_) => Err(LinkError::Closed),
            Ok(read) => Ok(read),
        }
    }
}
