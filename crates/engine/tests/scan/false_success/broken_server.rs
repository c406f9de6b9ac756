//! A server whose SCAN never comes to an end. No real server can be made to do that: this one stands for those that are broken.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// A primary that answers what a scan asks, and any cursor with the one that `next` says.
pub struct BrokenServer {
    address: SocketAddr,
}

impl BrokenServer {
    /// Starts a server that claims to hold this many keys in database 0.
    pub fn start(keys: u64, next: fn(u64) -> u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(stream, keys, next));
            }
        });
        Self { address }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

fn serve(stream: TcpStream, keys: u64, next: fn(u64) -> u64) {
    stream.set_nodelay(true).expect("a TCP socket");
    let mut replies = stream.try_clone().expect("a handle can be doubled");
    let mut commands = BufReader::new(stream);
    let mut queued: Option<Vec<String>> = None;
    while let Some(command) = read(&mut commands) {
        let answer = match command[0].to_uppercase().as_str() {
            "MULTI" => {
                queued = Some(Vec::new());
                "+OK\r\n".to_owned()
            }
            "EXEC" => {
                let answers = queued.take().unwrap_or_default();
                format!("*{}\r\n{}", answers.len(), answers.concat())
            }
            _ => match &mut queued {
                Some(queue) => {
                    queue.push(answer(&command, keys, next));
                    "+QUEUED\r\n".to_owned()
                }
                None => answer(&command, keys, next),
            },
        };
        if replies.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads one command; `None`: the client has closed the connection.
fn read(commands: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |commands: &mut dyn BufRead| -> Option<usize> {
        let mut line = String::new();
        commands.read_line(&mut line).ok()?;
        line.trim_end().get(1..)?.parse().ok()
    };
    let words = number(commands)?;
    let mut command = Vec::with_capacity(words);
    for _ in 0..words {
        let mut word = vec![0; number(commands)? + 2];
        commands.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        command.push(String::from_utf8(word).ok()?);
    }
    Some(command)
}

fn answer(command: &[String], keys: u64, next: fn(u64) -> u64) -> String {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    match command[0].to_uppercase().as_str() {
        "INFO" => bulk(&format!(
            "redis_version:7.0.15\r\nrun_id:broken\r\nused_memory:1\r\nused_cpu_user:0.0\r\nused_cpu_sys:0.0\r\n\
             db0:keys={keys},expires={keys},avg_ttl=0\r\n"
        )),
        "DBSIZE" => format!(":{keys}\r\n"),
        "ROLE" => format!("*3\r\n{}:0\r\n*0\r\n", bulk("master")),
        "TIME" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            format!("*2\r\n{}{}", bulk(&now.to_string()), bulk("0"))
        }
        "CONFIG" | "PUBSUB" => "*0\r\n".to_owned(),
        "SCAN" => match command[1].parse() {
            Ok(cursor) => {
                // As many keys as it is asked for.
                let count = command[3].parse().expect("a number");
                format!("*2\r\n{}*{count}\r\n{}", bulk(&next(cursor).to_string()), bulk("k").repeat(count))
            }
            Err(_) => "-ERR invalid cursor\r\n".to_owned(),
        },
        _ => "+OK\r\n".to_owned(),
    }
}
