//! A proxy that hides the cursors of the server behind it, and records the keys that pass. Such proxies stand in front of some
//! managed services, and no real server can be made to answer with cursors that are not positions in a table.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use keysweep_harness::Server;

/// How the proxy hides cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hiding {
    /// Not at all.
    Nothing,
    /// As numbers that it counts up: a cursor that it has not given out is refused.
    Numbered,
    /// Scrambled: it takes any cursor for one of its own.
    Scrambled,
}

/// Flips half of the bits, so that no order is left.
const SCRAMBLE: u64 = 0x5a5a_a5a5_6969_9696;

/// A proxy in front of a server.
pub struct OpaqueProxy {
    address: SocketAddr,
    returned: Arc<Mutex<HashSet<String>>>,
}

impl OpaqueProxy {
    pub fn before(server: &Server, hiding: Hiding) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, server) = (listener.local_addr().expect("an address"), server.address());
        let given = Arc::new(Mutex::new(Vec::new()));
        let returned = Arc::new(Mutex::new(HashSet::new()));
        let recorded = Arc::clone(&returned);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let cursors = Cursors { hiding, given: Arc::clone(&given), returned: Arc::clone(&recorded) };
                let server = TcpStream::connect(server).expect("the server serves");
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("a TCP socket");
                }
                let (commands, replies) = (client.try_clone(), server.try_clone());
                let (commands, replies) = (commands.expect("a handle"), replies.expect("a handle"));
                let shown = cursors.clone();
                thread::spawn(move || pass_commands(commands, server, &shown));
                thread::spawn(move || pass_replies(replies, client, &cursors));
            }
        });
        Self { address, returned }
    }

    /// Returns the names of all keys that SCAN has returned.
    pub fn returned(&self) -> HashSet<String> {
        self.returned.lock().expect("no panic").clone()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

#[derive(Clone)]
struct Cursors {
    hiding: Hiding,
    /// The cursors that were given out, by their numbers.
    given: Arc<Mutex<Vec<u64>>>,
    /// Names of the keys that SCAN has returned.
    returned: Arc<Mutex<HashSet<String>>>,
}

impl Cursors {
    fn hide(&self, cursor: u64) -> u64 {
        match self.hiding {
            Hiding::Nothing => cursor,
            _ if cursor == 0 => 0,
            Hiding::Scrambled => cursor ^ SCRAMBLE,
            Hiding::Numbered => {
                let mut given = self.given.lock().expect("no panic");
                given.push(cursor);
                given.len() as u64
            }
        }
    }

    /// Returns the server's own cursor; `None`: the proxy has not given out this one.
    fn show(&self, shown: u64) -> Option<u64> {
        match self.hiding {
            Hiding::Nothing => Some(shown),
            _ if shown == 0 => Some(0),
            Hiding::Scrambled => Some(shown ^ SCRAMBLE),
            Hiding::Numbered => self.given.lock().expect("no panic").get(shown as usize - 1).copied(),
        }
    }
}

fn pass_commands(client: TcpStream, mut server: TcpStream, cursors: &Cursors) {
    let mut commands = BufReader::new(client);
    while let Some(mut words) = read_command(&mut commands) {
        if words[0].eq_ignore_ascii_case(b"SCAN") {
            let shown = String::from_utf8_lossy(&words[1]).parse().ok();
            let cursor = shown.and_then(|shown| cursors.show(shown));
            // The server refuses a word as it refuses any invalid cursor.
            words[1] = cursor.map_or_else(|| b"unknown".to_vec(), |cursor| cursor.to_string().into_bytes());
        }
        let mut out = format!("*{}\r\n", words.len()).into_bytes();
        for word in &words {
            out.extend(bulk(word));
        }
        if server.write_all(&out).is_err() {
            return;
        }
    }
}

fn pass_replies(server: TcpStream, mut client: TcpStream, cursors: &Cursors) {
    let mut replies = BufReader::new(server);
    while let Some(reply) = read_reply(&mut replies, cursors) {
        if client.write_all(&reply).is_err() {
            return;
        }
    }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

/// Reads a line without its end; `None`: the connection was closed.
fn read_line(stream: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    Some(line.trim_end().to_owned())
}

fn read_command(commands: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let words: usize = read_line(commands)?[1..].parse().ok()?;
    (0..words).map(|_| read_line(commands).and_then(|header| read_bulk(commands, &header))).collect()
}

/// Reads the rest of a bulk string.
fn read_bulk(stream: &mut impl BufRead, header: &str) -> Option<Vec<u8>> {
    let mut text = vec![0; header[1..].parse::<usize>().ok()? + 2];
    stream.read_exact(&mut text).ok()?;
    text.truncate(text.len() - 2);
    Some(text)
}

/// Reads one reply, and hides the cursor if it is SCAN's: a number as text, with an array.
fn read_reply(replies: &mut impl BufRead, cursors: &Cursors) -> Option<Vec<u8>> {
    let header = read_line(replies)?;
    match (&header[..1], header[1..].parse::<i64>()) {
        ("$", Ok(0..)) => read_bulk(replies, &header).map(|text| bulk(&text)),
        ("*", Ok(elements @ 1..)) => {
            let mut parts = (0..elements).map(|_| read_reply(replies, cursors)).collect::<Option<Vec<_>>>()?;
            if let [cursor, keys] = parts.as_mut_slice()
                && keys.starts_with(b"*")
                && let Some(number) = number_of(cursor)
            {
                *cursor = bulk(cursors.hide(number).to_string().as_bytes());
                // Each name follows its length.
                let keys = String::from_utf8_lossy(keys);
                let names = keys.split("\r\n").skip(2).step_by(2).map(str::to_owned);
                cursors.returned.lock().expect("no panic").extend(names);
            }
            Some([format!("{header}\r\n").into_bytes(), parts.concat()].concat())
        }
        _ => Some(format!("{header}\r\n").into_bytes()),
    }
}

fn number_of(bulk: &[u8]) -> Option<u64> {
    std::str::from_utf8(bulk).ok()?.strip_prefix('$')?.split("\r\n").nth(1)?.parse().ok()
}
