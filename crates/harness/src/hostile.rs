//! A server that attacks its clients with its replies: wider, deeper, longer or slower ones than any real server sends, or absurd
//! numbers in plain ones. No real server can be made to do that.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, BufWriter, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long the server writes a reply that its client does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// Primaries of a crowd.
const CROWD: u8 = 64;
/// What each of them answers to INFO: 1.8 MB.
static CROWD_INFO: LazyLock<String> = LazyLock::new(|| {
    let field = |number| format!("field{number}:{}\r\n", "x".repeat(100));
    info(&(0..16_000).map(field).collect::<String>())
});

/// What the server does instead of answering a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hostility {
    /// An array of 100,000 strings of 16 MiB.
    Wide,
    /// A million arrays in each other.
    Deep,
    /// A string of 15 MiB.
    Long,
    /// A byte a second.
    Slow,
    /// An array of strings that never ends.
    Endless,
    /// An array of 100,000 arrays of 100,000 integers.
    Integers,
    /// Arrays of 50 arrays each, seven levels deep.
    Nested,
    /// As many fields as fit in 15 MiB of INFO.
    Fields,
    /// 200,000 databases in INFO.
    Databases,
    /// 100,000 replicas in ROLE.
    Replicas,
    /// A cluster of 16,384 primaries, all of them at the server's own address; a Sentinel of as many, none of which is asked for.
    Nodes,
    /// A cluster of 1,000 primaries, the most that a scan takes, none of which can be reached.
    Primaries,
    /// A cluster of 64 primaries, each of which answers INFO with nearly as much as is accepted.
    Crowd,
    /// The greatest numbers that there are, for every count.
    Numbers,
    /// Pages of SCAN without an end, each with a cursor of its own.
    Pages,
}

impl Hostility {
    /// All but `Primaries`, which is about time and threads, and `Crowd`, which is hostile at two commands.
    pub const ALL: [Self; 13] = [
        Self::Wide,
        Self::Deep,
        Self::Long,
        Self::Slow,
        Self::Endless,
        Self::Integers,
        Self::Nested,
        Self::Fields,
        Self::Databases,
        Self::Replicas,
        Self::Nodes,
        Self::Numbers,
        Self::Pages,
    ];

    /// Returns the command at which the shape of the reply is worst.
    pub fn worst_command(self) -> &'static str {
        match self {
            Self::Long | Self::Fields | Self::Databases | Self::Numbers => "INFO",
            Self::Nodes | Self::Primaries | Self::Crowd | Self::Nested => "CLUSTER",
            Self::Endless | Self::Pages => "SCAN",
            Self::Wide | Self::Deep | Self::Slow | Self::Integers | Self::Replicas => "ROLE",
        }
    }
}

/// A primary that answers one command in a hostile way, and any other as a small server does. It is the Sentinel of itself, too.
pub struct HostileServer {
    address: SocketAddr,
    conduct: Arc<Conduct>,
}

/// Whether the server attacks, and whom it has attacked.
struct Conduct {
    is_hostile: AtomicBool,
    /// Attacks by the name of the attacked connection.
    attacks: Mutex<BTreeMap<String, u32>>,
}

#[derive(Clone)]
struct Behaviour {
    hostility: Hostility,
    /// The command that is answered in a hostile way.
    command: &'static str,
    port: u16,
    conduct: Arc<Conduct>,
    /// Name of the connection, as far as its client has said.
    client: String,
}

impl HostileServer {
    /// Starts a server that answers this command in a hostile way.
    pub fn start(hostility: Hostility, command: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let conduct = Arc::new(Conduct { is_hostile: AtomicBool::new(true), attacks: Mutex::default() });
        let (port, client) = (address.port(), String::new());
        let behaviour = Behaviour { hostility, command, port, conduct: Arc::clone(&conduct), client };
        behaviour.accept(listener);
        if hostility == Hostility::Crowd {
            crowd().for_each(|host| behaviour.accept(TcpListener::bind((host, port)).expect("a port of loopback")));
        }
        Self { address, conduct }
    }

    /// Sets whether it attacks; else it answers all commands as a small server does.
    pub fn set_hostile(&self, is_hostile: bool) {
        self.conduct.is_hostile.store(is_hostile, Ordering::SeqCst);
    }

    /// Returns how often it has attacked connections of this name (`CLIENT SETNAME`).
    pub fn attacks_on(&self, client: &str) -> u32 {
        let attacks = self.conduct.attacks.lock().unwrap_or_else(PoisonError::into_inner);
        attacks.get(client).copied().unwrap_or(0)
    }

    /// Returns its URL, of a cluster or a Sentinel where the hostility is about these.
    pub fn url(&self, command: &str) -> String {
        match command {
            "CLUSTER" => format!("redis-cluster://{}", self.address),
            "SENTINEL" => self.sentinel_url(),
            _ => format!("redis://{}", self.address),
        }
    }

    /// Returns its URL as a Sentinel, which names itself as the primary.
    pub fn sentinel_url(&self) -> String {
        format!("redis-sentinel://{}/main", self.address)
    }
}

/// Returns the hosts of a crowd's primaries.
fn crowd() -> impl Iterator<Item = Ipv4Addr> {
    (1..=CROWD).map(|last| Ipv4Addr::new(127, 2, 0, last))
}

impl Behaviour {
    /// Serves each connection in a thread of its own.
    fn accept(&self, listener: TcpListener) {
        let behaviour = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut behaviour = behaviour.clone();
                // A client that gives up ends the connection.
                thread::spawn(move || behaviour.serve(&stream));
            }
        });
    }

    fn serve(&mut self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let mut out = BufWriter::new(stream);
        let mut commands = BufReader::new(stream);
        let mut queued: Option<Vec<Vec<String>>> = None;
        while let Some(command) = read(&mut commands) {
            match (command[0].to_uppercase().as_str(), &mut queued) {
                ("MULTI", _) => {
                    queued = Some(Vec::new());
                    out.write_all(b"+OK\r\n")?;
                }
                ("EXEC", _) => {
                    let commands = queued.take().unwrap_or_default();
                    write!(out, "*{}\r\n", commands.len())?;
                    commands.iter().try_for_each(|command| self.answer(command, &mut out))?;
                }
                (_, Some(queue)) => {
                    queue.push(command);
                    out.write_all(b"+QUEUED\r\n")?;
                }
                _ => self.answer(&command, &mut out)?,
            }
            out.flush()?;
        }
        Ok(())
    }

    fn answer(&mut self, command: &[String], out: &mut impl Write) -> io::Result<()> {
        let name = command[0].to_uppercase();
        if let [_, word, client] = command
            && name == "CLIENT"
            && word == "SETNAME"
        {
            self.client = client.clone();
        }
        let is_hostile = self.conduct.is_hostile.load(Ordering::SeqCst);
        if is_hostile && name == self.command && command.get(1).is_none_or(|word| word != "none") {
            let mut attacks = self.conduct.attacks.lock().unwrap_or_else(PoisonError::into_inner);
            *attacks.entry(self.client.clone()).or_default() += 1;
            drop(attacks);
            return self.attack(command, out);
        }
        match name.as_str() {
            "INFO" if is_hostile && self.hostility == Hostility::Crowd => bulk(out, &CROWD_INFO),
            "INFO" => {
                let keys = self.keys();
                bulk(out, &info(&format!("db0:keys={keys},expires={keys},avg_ttl=0\r\n{}", self.cluster_field())))
            }
            "DBSIZE" => write!(out, ":{}\r\n", self.keys()),
            "ROLE" => out.write_all(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            "TIME" => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().to_string();
                write!(out, "*2\r\n${}\r\n{now}\r\n$1\r\n0\r\n", now.len())
            }
            "CONFIG" | "PUBSUB" => out.write_all(b"*0\r\n"),
            "SENTINEL" => {
                let port = self.port.to_string();
                write!(out, "*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
            }
            "CLUSTER" => write!(out, "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{}\r\n", self.port),
            "SCAN" if command[1] == "none" => out.write_all(b"-ERR invalid cursor\r\n"),
            "SCAN" => out.write_all(b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n"),
            _ => out.write_all(b"+OK\r\n"),
        }
    }

    /// Returns how many keys it says to have: enough for a sample where SCAN is to be met.
    fn keys(&self) -> u32 {
        if self.command == "SCAN" { 100_000 } else { 1 }
    }

    fn cluster_field(&self) -> &'static str {
        if self.command == "CLUSTER" { "cluster_enabled:1\r\n" } else { "" }
    }

    fn attack(&self, command: &[String], out: &mut impl Write) -> io::Result<()> {
        match self.hostility {
            Hostility::Wide => {
                let text = vec![b'x'; 16 << 20];
                repeat(out, 100_000, &mut |out| {
                    write!(out, "${}\r\n", text.len())?;
                    out.write_all(&text)?;
                    out.write_all(b"\r\n")
                })
            }
            Hostility::Deep => out.write_all(&b"*1\r\n".repeat(1_000_000)),
            Hostility::Long => bulk(out, &"x".repeat(15 << 20)),
            Hostility::Slow => {
                for byte in b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".iter().cycle() {
                    out.write_all(&[*byte])?;
                    out.flush()?;
                    thread::sleep(Duration::from_secs(1));
                }
                Ok(())
            }
            Hostility::Endless => {
                out.write_all(b"*2\r\n$1\r\n7\r\n*999999999999999\r\n")?;
                let some = b"$1\r\nk\r\n".repeat(10_000);
                loop {
                    out.write_all(&some)?;
                }
            }
            Hostility::Integers => repeat(out, 100_000, &mut |out| {
                write!(out, "*100000\r\n")?;
                out.write_all(&b":1\r\n".repeat(100_000))
            }),
            Hostility::Nested => nested(out, 7),
            Hostility::Fields => bulk(out, &(0..1_700_000).map(|field| format!("{field:x}:1\r\n")).collect::<String>()),
            Hostility::Databases => {
                let line = |number| format!("db{number}:keys=9,expires=9,avg_ttl=0\r\n");
                bulk(out, &info(&(0..200_000).map(line).collect::<String>()))
            }
            Hostility::Replicas => {
                out.write_all(b"*3\r\n$6\r\nmaster\r\n:0\r\n")?;
                repeat(out, 100_000, &mut |out| out.write_all(b"*3\r\n$9\r\n127.0.0.1\r\n$1\r\n9\r\n$1\r\n0\r\n"))
            }
            Hostility::Nodes if command.get(1).is_some_and(|word| word == "SLOTS") => {
                write!(out, "*16384\r\n")?;
                (0..16_384).try_for_each(|slot| {
                    let port = self.port;
                    write!(out, "*3\r\n:{slot}\r\n:{slot}\r\n*3\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$6\r\n{slot:06}\r\n")
                })
            }
            Hostility::Nodes if command[0].to_uppercase() == "SENTINEL" => match command[1].to_uppercase().as_str() {
                "MASTERS" => repeat(out, 16_384, &mut |out| out.write_all(b"*2\r\n$4\r\nname\r\n$5\r\nother\r\n")),
                _ => out.write_all(b"*-1\r\n"),
            },
            Hostility::Primaries if command.get(1).is_some_and(|word| word == "SLOTS") => {
                write!(out, "*1000\r\n")?;
                (0..1_000).try_for_each(|index| {
                    // Nothing listens there: this server has 127.0.0.1 alone.
                    let (host, port) = (format!("127.1.{}.{}", index / 250, index % 250 + 1), self.port);
                    let (first, last, length) = (index * 16, index * 16 + 15, host.len());
                    let node = format!("*3\r\n${length}\r\n{host}\r\n:{port}\r\n$6\r\n{index:06}\r\n");
                    write!(out, "*3\r\n:{first}\r\n:{last}\r\n{node}")
                })
            }
            Hostility::Crowd if command.get(1).is_some_and(|word| word == "SLOTS") => {
                write!(out, "*{CROWD}\r\n")?;
                (0..).zip(crowd()).try_for_each(|(index, host)| {
                    let (host, port) = (host.to_string(), self.port);
                    let (first, last, length) = (index * 256, index * 256 + 255, host.len());
                    let node = format!("*3\r\n${length}\r\n{host}\r\n:{port}\r\n$6\r\n{index:06}\r\n");
                    write!(out, "*3\r\n:{first}\r\n:{last}\r\n{node}")
                })
            }
            // Without it each primary counts as the one that was announced.
            Hostility::Crowd if command.get(1).is_some_and(|word| word == "MYID") => out.write_all(b"-ERR no\r\n"),
            Hostility::Nodes | Hostility::Primaries | Hostility::Crowd => bulk(out, "cluster_state:ok"),
            Hostility::Numbers => {
                let most = u64::MAX;
                let line = |number| format!("db{number}:keys={most},expires={most},avg_ttl={most}\r\n");
                let fields = ["used_memory", "maxmemory", "expired_keys", "used_memory_rss", "repl_backlog_size"];
                let fields = fields.map(|field| format!("{field}:{most}\r\n")).concat();
                let cpu =
                    "used_cpu_user:1e308\r\nused_cpu_sys:1e308\r\ncmdstat_scan:calls=18446744073709551615,usec=1\r\n";
                bulk(out, &info(&format!("{fields}{cpu}{}", (0..100).map(line).collect::<String>())))
            }
            Hostility::Pages => {
                let cursor: u64 = command.get(1).and_then(|word| word.parse().ok()).unwrap_or(0);
                let cursor = cursor.wrapping_add(1).max(1).to_string();
                write!(out, "*2\r\n${}\r\n{cursor}\r\n*1\r\n$1\r\nk\r\n", cursor.len())
            }
        }
    }
}

fn info(fields: &str) -> String {
    format!(
        "# Server\r\nredis_version:7.0.15\r\nrun_id:hostile\r\nused_cpu_user:0.1\r\nused_cpu_sys:0.1\r\n\
         used_memory:1000\r\nexpired_keys:0\r\n{fields}"
    )
}

fn bulk(out: &mut impl Write, text: &str) -> io::Result<()> {
    write!(out, "${}\r\n{text}\r\n", text.len())
}

/// Writes an array of `count` elements.
fn repeat<W: Write>(out: &mut W, count: usize, element: &mut dyn FnMut(&mut W) -> io::Result<()>) -> io::Result<()> {
    write!(out, "*{count}\r\n")?;
    (0..count).try_for_each(|_| element(out))
}

fn nested<W: Write>(out: &mut W, levels: u32) -> io::Result<()> {
    match levels {
        0 => out.write_all(b":1\r\n"),
        _ => repeat(out, 50, &mut |out| nested(out, levels - 1)),
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
    (!command.is_empty()).then_some(command)
}
