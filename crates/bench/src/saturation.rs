//! Closed-loop clients that saturate the server's main thread: the load that a scan must back off from.

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

/// Number of connections, each with its own thread.
const CONNECTIONS: u64 = 8;
/// Requests in flight per connection: enough for the server, not these threads, to be the bottleneck.
const PIPELINE: usize = 32;
/// Pipelines that each connection prepares and sends in turn, since encoding one costs more than the server's replies.
const PREPARED: usize = 64;
/// Time until the load is steady.
const WARM_UP: Duration = Duration::from_millis(500);

/// Send time of each pipeline and the latency of its last reply.
type Samples = Vec<(Instant, Duration)>;

/// A running load.
pub struct Saturation {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<std::io::Result<Samples>>>,
}

impl Saturation {
    /// Starts the clients and returns when the load is steady.
    pub fn start(address: SocketAddr, settings: &Settings) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (live, reply) = (settings.live(), wire::reply_bytes(settings.value_bytes));
        let client = |number| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || run_client(address, number, live, reply, &stop))
        };
        let clients = (0..CONNECTIONS).map(client).collect();
        thread::sleep(WARM_UP);
        Ok(Self { stop, clients })
    }

    /// Stops the clients and returns their measurements.
    pub fn stop(self) -> Result<Latencies> {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        for client in self.clients {
            let Ok(client) = client.join() else { bail!("a client of the saturating load panicked") };
            samples.extend(client.context("the saturating load")?);
        }
        Ok(Latencies(samples))
    }
}

/// Latencies that the clients measured.
pub struct Latencies(Samples);

impl Latencies {
    /// Returns the latencies of the pipelines sent in one of these windows, nanoseconds.
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

fn run_client(address: SocketAddr, seed: u64, live: u64, reply: usize, stop: &AtomicBool) -> std::io::Result<Samples> {
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
