//! A server whose SCAN never comes to an end, or returns most keys twice. No real server can be made to do that: this one stands
//! for those that are broken.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// A primary that answers what a scan asks, and SCAN as its answers say.
pub struct BrokenServer {
    address: SocketAddr,
}

/// What a broken server answers.
#[derive(Debug, Clone, Copy)]
pub struct Answers {
    /// Version that it claims to be.
    pub version: &'static str,
    /// Keys that it claims to hold in database 0.
    pub keys: u64,
    /// The cursor after a cursor.
    pub next: fn(u64) -> u64,
    /// Keys that SCAN returns for a cursor and a COUNT.
    pub returned: fn(u64, usize) -> usize,
}

impl BrokenServer {
    pub fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(stream, answers));
            }
        });
        Self { address }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

fn serve(stream: TcpStream, answers: Answers) {
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
                let queue = queued.take().unwrap_or_default();
                format!("*{}\r\n{}", queue.len(), queue.concat())
            }
            _ => match &mut queued {
                Some(queue) => {
                    queue.push(answer(&command, answers));
                    "+QUEUED\r\n".to_owned()
                }
                None => answer(&command, answers),
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

fn answer(command: &[String], Answers { version, keys, next, returned }: Answers) -> String {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    match command[0].to_uppercase().as_str() {
        "INFO" => bulk(&format!(
            "redis_version:{version}\r\nrun_id:broken\r\nused_memory:1\r\nused_cpu_user:0.0\r\nused_cpu_sys:0.0\r\n\
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
                let keys = returned(cursor, command[3].parse().expect("a number"));
                format!("*2\r\n{}*{keys}\r\n{}", bulk(&next(cursor).to_string()), bulk("k").repeat(keys))
            }
            Err(_) => "-ERR invalid cursor\r\n".to_owned(),
        },
        _ => "+OK\r\n".to_owned(),
    }
}
