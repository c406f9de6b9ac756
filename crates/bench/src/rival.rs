//! The contestants inside this process: home-made SCAN loops, and the bare loop as the upper bound.

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use keysweep_engine::link::{Reader, ScanReply};
use keysweep_harness::Server;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    outcome::Outcome,
    wire::{self, Stream},
};

/// Interval between SCAN calls that the DCS documentation gives.
pub const DCS_INTERVAL: Duration = Duration::from_millis(5);
/// Length of a measurement without a scan: long enough for a p99.9 at 4,000 requests a second.
const IDLE: Duration = Duration::from_secs(4);

/// Waits without scanning.
pub fn idle() -> Result<Outcome> {
    measured(|| {
        thread::sleep(IDLE);
        Ok(())
    })
}

/// Runs SCAN once. Returns the next cursor.
pub fn scan_once(connection: &mut redis::Connection, cursor: u64, count: u64) -> Result<u64> {
    let (next, _keys): (u64, Vec<Vec<u8>>) =
        redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(count).query(connection)?;
    Ok(next)
}

/// Runs SCAN in a loop through a general client library, at most once per `interval`.
pub fn scan_loop(server: &Server, count: u64, interval: Option<Duration>) -> Result<Outcome> {
    let mut connection = server.connection();
    measured(|| {
        let (mut cursor, mut due) = (0u64, Instant::now());
        loop {
            cursor = scan_once(&mut connection, cursor, count)?;
            if cursor == 0 {
                return Ok(());
            }
            if let Some(interval) = interval {
                due += interval;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
    })
}

/// Runs SCAN in a loop and discards the replies: the limit of the server and the loopback at this COUNT.
pub fn bare_loop(server: &Server, count: u64) -> Result<Outcome> {
    let mut output = wire::connect(server.address())?;
    let mut input = Stream(output.try_clone()?);
    measured(|| {
        let (mut reader, mut cursor, mut request) = (Reader::default(), 0u64, Vec::new());
        loop {
            request.clear();
            let words = [cursor.to_string(), count.to_string()];
            wire::encode(&mut request, &[b"SCAN", words[0].as_bytes(), b"COUNT", words[1].as_bytes()]);
            output.write_all(&request)?;
            match reader.scan_reply(&mut input)? {
                ScanReply::Page { cursor: 0, .. } => return Ok(()),
                ScanReply::Page { cursor: next, .. } => cursor = next,
                ScanReply::Error(text) => bail!("SCAN: {text}"),
            }
        }
    })
}

/// Runs `work` and measures its wall time and this thread's CPU time.
fn measured(work: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let (began, used) = (Instant::now(), thread_cpu());
    work()?;
    let wall = began.elapsed().as_secs_f64();
    Ok(Outcome { began, wall, own_cpu: thread_cpu() - used, peak_rss: None, report: None })
}

fn thread_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
