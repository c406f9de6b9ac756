//! Creates tasks over HTTP on keep-alive connections, with little CPU cost in this process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use keysweep::model::Instance;
use keysweep_harness::Service;

/// Longest time to wait for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Result of creating tasks.
pub struct Creates {
    /// Number of tasks created.
    pub number: usize,
    /// Time from the first request to the last response.
    pub wall: Duration,
    /// Response times, shortest first.
    pub latencies: Vec<Duration>,
}

impl Creates {
    /// Returns the number of tasks per second.
    pub fn rate(&self) -> f64 {
        self.number as f64 / self.wall.as_secs_f64()
    }

    /// Returns this quantile of the response times in milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share) as usize).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Creates a scan task for each instance over this number of connections.
pub fn create(service: &Service, instances: &[Instance], connections: usize) -> Result<Creates> {
    let base = service.base.as_str();
    let (begun, share) = (Instant::now(), instances.len().div_ceil(connections));
    let clients: Vec<Result<Vec<Duration>>> = thread::scope(|scope| {
        let clients: Vec<_> =
            instances.chunks(share).map(|share| scope.spawn(move || one_client(base, share))).collect();
        clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
    });
    let wall = begun.elapsed();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client?);
    }
    latencies.sort();
    Ok(Creates { number: instances.len(), wall, latencies })
}

fn one_client(base: &str, instances: &[Instance]) -> Result<Vec<Duration>> {
    let address = base.strip_prefix("http://").context("an address")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut latencies = Vec::new();
    for Instance { id, project_id, .. } in instances {
        let begun = Instant::now();
        let request = format!(
            "POST /v2/{project_id}/instances/{id}/scan-expire-keys-task HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        answer(&mut answers)?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// Reads one complete response, which must have status 200.
fn answer(stream: &mut BufReader<TcpStream>) -> Result<()> {
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "the service answers {line:?}");
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "the service closes the connection");
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    Ok(stream.read_exact(&mut body)?)
}
