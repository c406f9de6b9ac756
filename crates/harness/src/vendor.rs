//! A proxy that answers single commands in a vendor's words and forwards all others, as managed servers, proxies and forks do.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::server::Server;

/// What a vendor answers to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Words {
    /// An error, for example `ERR command DBSIZE not support for normal user`.
    Error(String),
    /// A reply as it is sent, in RESP.
    Reply(String),
    /// None: the connection is closed.
    Close,
}

/// A proxy in front of a server. Ended on drop; open connections end with their clients.
#[derive(Debug)]
pub struct VendorProxy {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl VendorProxy {
    /// Starts a proxy to the server on a free port. `answer` gets each command in upper case; `None`: it is forwarded.
    ///
    /// # Panics
    /// If the system has no free port.
    #[must_use]
    pub fn before(server: &Server, answer: impl Fn(&[String]) -> Option<Words> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the system has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (stopped, answer, server) = (Arc::new(AtomicBool::new(false)), Arc::new(answer), server.address());
        let stop = Arc::clone(&stopped);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let answer = Arc::clone(&answer);
                // Ends when either side closes its connection.
                thread::spawn(move || TcpStream::connect(server).map(|server| serve(client, server, &*answer)));
            }
        });
        Self { address, stopped }
    }

    /// Returns a `redis://` URL with the proxy's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

impl Drop for VendorProxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

/// Serves one connection, a command at a time, so that the replies stay in order.
fn serve(client: TcpStream, server: TcpStream, answer: &dyn Fn(&[String]) -> Option<Words>) -> Option<()> {
    client.set_nodelay(true).ok()?;
    server.set_nodelay(true).ok()?;
    let (mut to_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let (mut commands, mut replies) = (BufReader::new(client), BufReader::new(server));
    loop {
        let mut command = Vec::new();
        copy_value(&mut commands, &mut command)?;
        let words: Vec<String> = words(&command);
        match answer(&words) {
            None => {
                to_server.write_all(&command).ok()?;
                let mut reply = Vec::new();
                copy_value(&mut replies, &mut reply)?;
                to_client.write_all(&reply).ok()?;
            }
            Some(Words::Error(text)) => to_client.write_all(format!("-{text}\r\n").as_bytes()).ok()?,
            Some(Words::Reply(reply)) => to_client.write_all(reply.as_bytes()).ok()?,
            Some(Words::Close) => return None,
        }
    }
}

/// Copies one RESP value; `None`: the connection was closed.
fn copy_value(from: &mut impl BufRead, to: &mut Vec<u8>) -> Option<()> {
    let start = to.len();
    from.read_until(b'\n', to).ok().filter(|length| *length > 0)?;
    let header = std::str::from_utf8(&to[start..]).ok()?.trim_end();
    let (kind, length) = (header.as_bytes()[0], header[1..].parse::<i64>());
    match kind {
        b'$' => {
            // A null string has no line of its own.
            let length = length.ok().filter(|length| *length >= 0).map_or(0, |length| length as usize + 2);
            let end = to.len();
            to.resize(end + length, 0);
            from.read_exact(&mut to[end..]).ok()
        }
        b'*' => (0..length.ok()?.max(0)).try_for_each(|_| copy_value(from, to)),
        _ => Some(()),
    }
}

/// Returns the words of a command in upper case.
fn words(command: &[u8]) -> Vec<String> {
    let lines =
        command.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).trim_end().to_uppercase());
    // After the number of words: a length, a word, and so on.
    lines.skip(2).step_by(2).collect()
}
