//! The clients that a scan must not disturb: GETs at a fixed rate, independent of the server's replies.
//!
//! The load is open-loop: the latency of a request counts from its intended start, so a server that stalls for 10 ms
//! shows in all requests of these 10 ms, not in one.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;

use crate::{settings::Settings, wire};

/// Time before a measurement may begin, in which connections, caches and threads warm up.
const WARM_UP: Duration = Duration::from_millis(300);
/// Last request; its reply marks the end of the replies.
const LAST: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// A running load.
pub struct Foreground {
    first: Instant,
    interval: Duration,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<std::io::Result<()>>,
    reader: JoinHandle<std::io::Result<Vec<Duration>>>,
}

impl Foreground {
    /// Starts the load and returns after the warm-up.
    pub fn start(address: SocketAddr, settings: &Settings) -> Result<Self> {
        let stream = wire::connect(address).context("the foreground cannot connect")?;
        let (interval, live) = (Duration::from_secs(1) / u32::try_from(settings.rate)?, settings.live());
        let (input, stop) = (stream.try_clone()?, Arc::new(AtomicBool::new(false)));
        let first = Instant::now() + Duration::from_millis(20);
        let reply = wire::reply_bytes(settings.value_bytes);
        let sender = thread::spawn({
            let stop = Arc::clone(&stop);
            move || send(stream, live, &stop, first, interval)
        });
        let reader = thread::spawn(move || receive(input, reply, first, interval));
        thread::sleep(WARM_UP);
        Ok(Self { first, interval, stop, sender, reader })
    }

    /// Stops the load. Returns, for each window, the latencies in nanoseconds of the requests whose intended start lies in it.
    pub fn stop<const N: usize>(self, windows: [(Instant, Instant); N]) -> Result<[Histogram<u64>; N]> {
        self.stop.store(true, Ordering::Relaxed);
        let (Ok(sent), Ok(latencies)) = (self.sender.join(), self.reader.join()) else {
            bail!("a thread of the foreground panicked");
        };
        sent.context("the foreground cannot send")?;
        let latencies = latencies.context("the foreground received no reply")?;
        let mut histograms = windows.map(|_| Histogram::new(3).expect("three digits are allowed"));
        for (number, latency) in latencies.iter().enumerate() {
            let intended = self.first + self.interval * u32::try_from(number)?;
            for (histogram, (from, until)) in histograms.iter_mut().zip(windows) {
                if (from..until).contains(&intended) {
                    histogram.record(u64::try_from(latency.as_nanos())?)?;
                }
            }
        }
        Ok(histograms)
    }
}

/// Sends each request at its intended time; a request that is late is sent immediately.
fn send(
    mut stream: TcpStream,
    live: u64,
    stop: &AtomicBool,
    first: Instant,
    interval: Duration,
) -> std::io::Result<()> {
    // By default the kernel wakes a thread up to 50 µs late; if it refuses this setting, the measurement is that much coarser.
    let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
    let (mut random, mut request, mut intended) = (fastrand::Rng::with_seed(7), Vec::new(), first);
    while !stop.load(Ordering::Relaxed) {
        request.clear();
        wire::encode_get(&mut request, &mut random, live);
        thread::sleep(intended.saturating_duration_since(Instant::now()));
        stream.write_all(&request)?;
        intended += interval;
    }
    stream.write_all(LAST)
}

/// Records the latency of every reply; replies arrive in the order of the requests.
fn receive(mut stream: TcpStream, reply: usize, first: Instant, interval: Duration) -> std::io::Result<Vec<Duration>> {
    let (mut latencies, mut buffer, mut pending) = (Vec::with_capacity(1 << 16), vec![0; 1 << 16], 0);
    let mut intended = first;
    loop {
        let read = stream.read(&mut buffer[pending..])?;
        let now = Instant::now();
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let (mut from, until) = (0, pending + read);
        while until - from >= reply {
            if buffer[from] != b'$' {
                return Err(std::io::Error::other("a live key was not found"));
            }
            latencies.push(now.saturating_duration_since(intended));
            intended += interval;
            from += reply;
        }
        if buffer.get(from) == Some(&b'+') && until > from {
            return Ok(latencies);
        }
        buffer.copy_within(from..until, 0);
        pending = until - from;
    }
}
