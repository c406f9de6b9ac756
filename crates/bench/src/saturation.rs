//! Clients that ask as fast as answers come, until the server's main thread is full: what the guard must notice.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
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

/// Connections, a thread each.
const CONNECTIONS: u64 = 8;
/// Requests that each has under way: so many that the server, not these threads, is what they wait for.
const PIPELINE: usize = 32;
/// Pipelines that each makes beforehand and sends in turn: making them costs more than the server's answers.
const PREPARED: usize = 64;
/// Until the load is steady.
const WARM_UP: Duration = Duration::from_millis(500);

/// When a pipeline was sent and how long its last answer took.
type Samples = Vec<(Instant, Duration)>;

/// Clients at work.
pub struct Saturation {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<std::io::Result<Samples>>>,
}

impl Saturation {
    /// Starts them and returns when the load is steady.
    pub fn start(address: SocketAddr, settings: &Settings) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (live, reply) = (settings.live(), wire::reply_bytes(settings.value_bytes));
        let client = |number| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || ask(address, number, live, reply, &stop))
        };
        let clients = (0..CONNECTIONS).map(client).collect();
        thread::sleep(WARM_UP);
        Ok(Self { stop, clients })
    }

    /// Ends them.
    pub fn stop(self) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        for client in self.clients {
            let Ok(client) = client.join() else { bail!("a client of the saturating load panicked") };
            samples.extend(client.context("the saturating load")?);
        }
        Ok(Answers(samples))
    }
}

/// What the clients saw.
pub struct Answers(Samples);

impl Answers {
    /// Latencies of whole pipelines sent in one of these windows, nanoseconds.
    pub fn between(&self, windows: &[(Instant, Instant)]) -> Result<Histogram<u64>> {
        let mut histogram = Histogram::new(3).expect("three digits are allowed");
        for (sent, latency) in &self.0 {
            if windows.iter().any(|(from, until)| (from..until).contains(&sent)) {
                histogram.record(u64::try_from(latency.as_nanos())?)?;
            }
        }
        Ok(histogram)
    }
}

fn ask(address: SocketAddr, seed: u64, live: u64, reply: usize, stop: &AtomicBool) -> std::io::Result<Samples> {
    let mut stream = wire::connect(address)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pipeline = || {
        let mut requests = Vec::new();
        (0..PIPELINE).for_each(|_| wire::encode_get(&mut requests, &mut random, live));
        requests
    };
    let prepared: Vec<Vec<u8>> = (0..PREPARED).map(|_| pipeline()).collect();
    let (mut replies, mut samples) = (vec![0; reply * PIPELINE], Vec::new());
    for requests in prepared.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let sent = Instant::now();
        stream.write_all(requests)?;
        stream.read_exact(&mut replies)?;
        samples.push((sent, sent.elapsed()));
    }
    Ok(samples)
}
