//! A sample on a primary: slices at random cursors, each in a transaction with DBSIZE around it. It reclaims the stale keys
//! that it meets, and only these.

use std::time::{Duration, Instant};

use super::{
    places::{Places, Visited},
    report::{Bytes, Finding, Method},
    request::{BASELINE_PINGS, Request, databases},
};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Capabilities, Info, Keyspace, Link, RoleView, saturating_sum},
    server::{self, ExpirySettings, ScanStatistics, Setting},
    stale::{BytesSlice, NORMAL, Share, SliceSample, bytes_per_stale_key, slices_for, weighted_share},
    target::Address,
    topology::Connector,
};

/// Time of the main thread that one sample may take.
const MAX_SERVER_TIME: Duration = Duration::from_millis(20);
/// What the server's own statistics of SCAN leave out, as a factor: parsing, writing the reply, and the other commands of a
/// slice.
const UNCOUNTED: f64 = 2.5;
/// Fewest slices of a database: with fewer the interval says nothing.
const MIN_SLICES: u32 = 10;

/// A sample of one primary, with what it lacks.
pub(super) struct Sample {
    pub databases: Vec<(u32, Finding)>,
    pub notes: Vec<String>,
}

/// Samples every database of a primary that has enough keys.
///
/// # Errors
/// The server must not be disturbed now (it loads, saves, is paused or fails over), a right is missing, or expired keys are
/// kept.
pub(super) fn sample(
    link: &mut Link,
    address: &Address,
    info: &Info,
    request: &Request,
    connector: Connector<'_>,
) -> Result<Sample, ShardError> {
    let failed = |error| ShardError::at(address, error);
    refuse(link, address, info)?;
    let lines = databases(info, connector.target);
    let keys = saturating_sum(lines.iter().map(|line| line.keys));
    let mut budget = Budget::start(link, address)?;
    let mut found = Sample { databases: Vec::new(), notes: Vec::new() };
    let mut planned: Vec<(Keyspace, u32)> = Vec::new();
    for line in lines {
        let part = (f64::from(request.slices) * line.keys as f64 / keys.max(1) as f64) as u32;
        match slices_for(line.keys, part.max(MIN_SLICES.min(request.slices)), request.count) {
            Some(slices) => planned.push((line, slices)),
            None => {
                found.notes.push(format!(
                    "database {} is too small to matter: of {} keys, {} slices would be more than a twentieth",
                    line.database, line.keys, MIN_SLICES
                ));
                let finding = Finding::of_keys(line.keys, line.expires);
                found.databases.push((line.database, Finding { method: Some(Method::Sample), ..finding }));
            }
        }
    }
    let mut left: u32 = planned.iter().map(|(_, slices)| slices).sum();
    for (line, slices) in planned {
        link.call(&[b"SELECT", line.database.to_string().as_bytes()]).map_err(failed)?;
        let places = Places::of(link, address, info, &line, connector.stop)?;
        let before = budget.spent;
        // Each database has the part of the time that its slices are of all that are left.
        budget.limit = before + (MAX_SERVER_TIME.as_secs_f64() - before) * f64::from(slices) / f64::from(left.max(1));
        left -= slices;
        let drawn = draw(link, address, &places, slices, request.count, &mut budget)?;
        let finding = Finding::of_keys(line.keys, line.expires);
        let finding = Finding { server_seconds: Some((budget.spent - before).max(0.0)), ..finding };
        found.databases.push((line.database, drawn.finding(finding)));
        if drawn.slices.len() < slices as usize {
            let (done, limit) = (drawn.slices.len(), MAX_SERVER_TIME.as_millis());
            found.notes.push(format!(
                "database {}: {done} of {slices} slices, within {limit} ms of server time",
                line.database
            ));
        }
    }
    found.databases.sort_by_key(|(database, _)| *database);
    if let Some(seconds) = budget.by_server(link, address)? {
        found.charge(seconds.min(budget.spent) / budget.spent.max(1e-9));
    }
    Ok(found)
}

/// Samples the stale share of all databases of a primary, with the slices of an estimate; `None`: it has too few keys. Returns
/// how many keys the sample has reclaimed, too.
///
/// # Errors
/// As those of [`sample`].
pub(crate) fn sample_share(
    link: &mut Link,
    address: &Address,
    info: &Info,
    connector: Connector<'_>,
) -> Result<(Option<Share>, u64), ShardError> {
    let found = sample(link, address, info, &Request::default(), connector)?;
    let sum = Finding::sum(found.databases.iter().map(|(_, finding)| finding));
    Ok((sum.interval(), sum.reclaimed))
}

impl Sample {
    /// Corrects the time that was measured from this side by what the server reports.
    fn charge(&mut self, factor: f64) {
        for (_, finding) in &mut self.databases {
            finding.server_seconds = finding.server_seconds.map(|seconds| seconds * factor);
        }
    }
}

/// Refuses a server that must not be sampled now, or on which a sample would count wrongly.
fn refuse(link: &mut Link, address: &Address, info: &Info) -> Result<(), ShardError> {
    let failed = |error| ShardError::at(address, error);
    let refused = |kind, cause: &str| {
        let sentence = format!("{address} is not sampled: {cause}");
        Err(ShardError::Fatal(Failure::new(kind, sentence)))
    };
    let rights = server::Rights::ask(link).map_err(failed)?;
    if rights.out_of_memory {
        let cause = "it is above maxmemory and answers OOM to transactions; scan it, or raise maxmemory first";
        return refused(FailureKind::Refused, cause);
    }
    let capabilities = rights.capabilities;
    if !capabilities.exact() || !capabilities.select {
        return refused(FailureKind::Denied, "a right is missing; grant +scan +multi +exec +dbsize +select");
    }
    let state = server::ServerState::sample(link).map_err(failed)?;
    if state.saving || info.text("loading") == Some("1") {
        return refused(FailureKind::Refused, "a background save runs; try again when it has finished");
    }
    if state.expiry == server::Expiry::Paused {
        return refused(FailureKind::Refused, "expiration is paused (CLIENT PAUSE or a failover); try again later");
    }
    let settings = ExpirySettings::read(link, info).map_err(failed)?;
    if settings.import_mode == Setting::On {
        return refused(
            FailureKind::Refused,
            "it deletes no expired key (import-mode yes); try again after the import",
        );
    }
    if settings.nested_expiry == Setting::Off {
        return refused(
            FailureKind::Refused,
            "transactions delete no expired key (lazyexpire-nested-arbitrary-keys no); attach a replica, or set it to yes",
        );
    }
    Ok(())
}

/// The slices of one database.
#[derive(Default)]
struct Drawn {
    slices: Vec<SliceSample>,
    memory: Vec<BytesSlice>,
    reclaimed: u64,
}

fn draw(
    link: &mut Link,
    address: &Address,
    places: &Places,
    slices: u32,
    count: u32,
    budget: &mut Budget,
) -> Result<Drawn, ShardError> {
    let (mut random, mut drawn, mut visited) = (fastrand::Rng::new(), Drawn::default(), Visited::default());
    for _ in 0..slices {
        if budget.is_exhausted(link, address)? {
            break;
        }
        let (start, sent) = (visited.draw(places, &mut random), Instant::now());
        let capabilities = Capabilities { memory: true, ..Capabilities::ALL };
        let slice = link.slice(start, count, capabilities).map_err(|error| ShardError::at(address, error))?;
        budget.record(sent.elapsed());
        if matches!(slice.role, RoleView::Replica { .. }) {
            return Err(ShardError::Demoted);
        }
        visited.add(places.at(start), places.at(slice.cursor));
        drawn.reclaimed += slice.reclaimed;
        drawn.slices.push(SliceSample {
            visited: slice.returned + slice.reclaimed,
            reclaimed: slice.reclaimed,
            fraction: places.covered(start, slice.cursor),
        });
        drawn.memory.extend(slice.memory.map(|(before, after)| BytesSlice {
            freed: before as f64 - after as f64,
            stale: slice.reclaimed as f64,
            returned: slice.returned as f64,
        }));
    }
    Ok(drawn)
}

impl Drawn {
    fn finding(&self, finding: Finding) -> Finding {
        let finding = Finding { reclaimed: self.reclaimed, method: Some(Method::Sample), ..finding };
        let Some(sampled) = weighted_share(&self.slices) else { return finding };
        let keys = finding.keys as f64;
        let bytes = self.bytes(sampled.share, keys);
        finding.with_share(sampled.share, Method::Sample).with_bytes(bytes)
    }

    /// Returns the bytes of the stale keys: their number times the bytes that one frees. The interval is that of a product.
    fn bytes(&self, share: Share, keys: f64) -> Option<Bytes> {
        if self.reclaimed == 0 {
            return Some(Bytes { bytes: 0.0, interval: None });
        }
        let each = bytes_per_stale_key(&self.memory)?;
        let (bytes, error) = (each.bytes * share.share * keys, NORMAL * each.error / each.bytes);
        let end = |end: f64| ((end / share.share - 1.0).powi(2) + error * error).sqrt();
        Some(Bytes { bytes, interval: Some((bytes * (1.0 - end(share.low)), bytes * (1.0 + end(share.high)))) })
    }
}

/// Time of the main thread that a sample has taken.
struct Budget {
    /// Seconds, measured from this side at first and corrected by the server's own statistics.
    spent: f64,
    /// What it may be for now.
    limit: f64,
    baseline: Duration,
    slices: u64,
    /// What the server had counted of SCAN before the sample.
    before: Option<ScanStatistics>,
}

impl Budget {
    fn start(link: &mut Link, address: &Address) -> Result<Self, ShardError> {
        let failed = |error| ShardError::at(address, error);
        let baseline = link.shortest_ping(BASELINE_PINGS).map_err(failed)?;
        Ok(Self { spent: 0.0, limit: 0.0, baseline, slices: 0, before: ScanStatistics::sample(link).map_err(failed)? })
    }

    fn record(&mut self, elapsed: Duration) {
        self.spent += elapsed.saturating_sub(self.baseline).as_secs_f64();
        self.slices += 1;
    }

    /// Whether the time is used up. What was measured from this side contains the network, so that the server decides.
    fn is_exhausted(&mut self, link: &mut Link, address: &Address) -> Result<bool, ShardError> {
        if self.spent < self.limit {
            return Ok(false);
        }
        if let Some(seconds) = self.by_server(link, address)? {
            self.spent = self.spent.min(seconds);
        }
        Ok(self.spent >= self.limit)
    }

    /// Returns the seconds by the server's statistics; `None`: it reports none, or others scan as well.
    fn by_server(&self, link: &mut Link, address: &Address) -> Result<Option<f64>, ShardError> {
        let Some(before) = self.before else { return Ok(None) };
        let now = ScanStatistics::sample(link).map_err(|error| ShardError::at(address, error))?;
        let now = now.filter(|now| now.calls.checked_sub(before.calls) == Some(self.slices));
        Ok(now.and_then(|now| Some(now.scan.checked_sub(before.scan)?.as_secs_f64() * UNCOUNTED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_interval_of_the_product() {
        let memory = (0..100u32).map(|n| {
            let (stale, returned) = (f64::from(n % 9), f64::from(45 + n % 7));
            BytesSlice { freed: 100.0 * stale - 30.0 * returned + f64::from(n * 37 % 64), stale, returned }
        });
        let drawn = Drawn { slices: Vec::new(), memory: memory.collect(), reclaimed: 400 };
        let found = drawn.bytes(Share { share: 0.1, low: 0.08, high: 0.12 }, 1e6).expect("bytes");
        let (low, high) = found.interval.expect("an interval");
        assert!((found.bytes / 1e7 - 1.0).abs() < 0.05, "{found:?}");
        assert!(low < found.bytes * 0.8 && low > found.bytes * 0.7 && high > found.bytes * 1.2, "{found:?}");
        let none = Drawn { reclaimed: 0, ..drawn }.bytes(Share::default(), 1e6).expect("bytes");
        assert_eq!((none.bytes, none.interval), (0.0, None));
    }
}
