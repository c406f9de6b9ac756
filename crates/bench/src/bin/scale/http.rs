//! A keep-alive connection to the service, with little CPU cost in this process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use keysweep_harness::Service;

/// Longest time to wait for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection.
pub struct Client<'a> {
    address: &'a str,
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl<'a> Client<'a> {
    /// Connects to a service.
    pub fn connect(service: &'a Service) -> Result<Self> {
        let address = service.base.strip_prefix("http://").context("an address")?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(Self { address, answers: BufReader::new(stream.try_clone()?), stream })
    }

    /// Sends a request and reads the whole response, which must be a success. Returns the time that both took.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(String, String)], body: &str) -> Result<Duration> {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (address, length) = (self.address, body.len());
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}content-length: {length}\r\n\r\n{body}");
        let begun = Instant::now();
        self.stream.write_all(request.as_bytes())?;
        let (status, answer) = self.answer()?;
        ensure!(status.starts_with("HTTP/1.1 2"), "{method} {path}: {status:?} {}", String::from_utf8_lossy(&answer));
        Ok(begun.elapsed())
    }

    fn answer(&mut self) -> Result<(String, Vec<u8>)> {
        let (mut status, mut line, mut length) = (String::new(), String::new(), 0);
        self.answers.read_line(&mut status)?;
        loop {
            line.clear();
            ensure!(self.answers.read_line(&mut line)? > 0, "the service closes the connection");
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.answers.read_exact(&mut body)?;
        Ok((status, body))
    }
}

/// Returns this quantile of response times in milliseconds. `latencies`: the shortest first.
pub fn quantile(latencies: &[Duration], share: f64) -> f64 {
    let last = latencies.len().saturating_sub(1);
    latencies.get((last as f64 * share) as usize).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
}
