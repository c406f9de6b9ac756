//! A sample on a primary: slices at random cursors, each in a transaction with DBSIZE around it. It reclaims the stale keys
//! that it meets, and only these.

use std::time::{Duration, Instant};

use super::{
    places::{Places, SLOTS_RIGHT, Visited},
    report::{Bytes, Finding, Method},
    request::{BASELINE_PINGS, Request, databases},
};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Capabilities, Info, Keyspace, Link, LinkError, RoleView, saturating_sum},
    server::{self, ExpirySettings, ScanStatistics, Setting},
    stale::{BytesSlice, Gap, MIN_SLICES, NORMAL, SamplePlan, Share, SliceSample, bytes_per_stale_key, weighted_share},
    target::Address,
    topology::Connector,
};

/// Time of the main thread that one sample may take.
const MAX_SERVER_TIME: Duration = Duration::from_millis(20);
/// What the server's own statistics of SCAN leave out, as a factor: parsing, writing the reply, and the other commands of a
/// slice.
const UNCOUNTED: f64 = 2.5;

/// A sample of one primary, with what it lacks.
pub(super) struct Sample {
    pub databases: Vec<(u32, Finding)>,
    pub notes: Vec<String>,
}

/// Why there is no sample.
pub(super) enum SampleError {
    /// The server must not be sampled now, or a sample would count wrongly. No slice was sent.
    Refused(Refusal),
    /// The connection failed, or the server answered with an error.
    Failed(ShardError),
}

/// Why a server is not sampled.
pub(super) struct Refusal {
    kind: FailureKind,
    cause: &'static str,
    remedy: &'static str,
}

impl Refusal {
    /// Returns the failure of an estimate that was to sample this server.
    pub fn failure(&self, address: &Address) -> Failure {
        Failure::new(self.kind, format!("{address} is not sampled: {}; {}", self.cause, self.remedy))
    }

    /// Returns why the share of the server is unknown.
    pub fn gap(&self) -> Gap {
        Gap { cause: format!("it is not sampled, since {}", self.cause), remedy: Some(self.remedy.to_owned()) }
    }
}

impl SampleError {
    pub fn into_shard_error(self, address: &Address) -> ShardError {
        match self {
            Self::Refused(refusal) => ShardError::Fatal(refusal.failure(address)),
            Self::Failed(error) => error,
        }
    }
}

impl From<ShardError> for SampleError {
    fn from(error: ShardError) -> Self {
        Self::Failed(error)
    }
}

/// A database that is to be sampled.
struct Planned {
    line: Keyspace,
    plan: SamplePlan,
    places: Places,
}

/// Samples every database of a primary that has enough keys. `has_begun` becomes true with the first slice.
///
/// # Errors
/// The server must not be disturbed now (it loads, saves, is paused or fails over), a right is missing, or expired keys are
/// kept: then no slice was sent. Or the connection fails.
pub(super) fn sample(
    link: &mut Link,
    address: &Address,
    info: &Info,
    request: &Request,
    connector: Connector<'_>,
    has_begun: &mut bool,
) -> Result<Sample, SampleError> {
    let failed = |error| ShardError::at(address, error);
    if let Some(refusal) = refusal(link, info).map_err(failed)? {
        return Err(SampleError::Refused(refusal));
    }
    let mut found = Sample { databases: Vec::new(), notes: Vec::new() };
    let planned = plan(link, address, info, request, connector, &mut found)?;
    let mut budget = Budget::start(link, address)?;
    let mut left: u32 = planned.iter().map(|one| one.plan.slices).sum();
    for Planned { line, plan, places } in planned {
        *has_begun = true;
        link.call(&[b"SELECT", line.database.to_string().as_bytes()]).map_err(failed)?;
        let before = budget.spent;
        // Each database has the part of the time that its slices are of all that are left.
        let part = f64::from(plan.slices) / f64::from(left.max(1));
        budget.limit = before + (MAX_SERVER_TIME.as_secs_f64() - before) * part;
        left -= plan.slices;
        let drawn = draw(link, address, &places, plan, &mut budget)?;
        let finding = Finding::of_keys(line.keys, line.expires);
        let finding = Finding { server_seconds: Some((budget.spent - before).max(0.0)), ..finding };
        found.databases.push((line.database, drawn.finding(finding)));
        if drawn.slices.len() < plan.slices as usize {
            let (done, limit) = (drawn.slices.len(), MAX_SERVER_TIME.as_millis());
            found.notes.push(format!(
                "database {}: {done} of {} slices, within {limit} ms of server time",
                line.database, plan.slices
            ));
        }
    }
    found.databases.sort_by_key(|(database, _)| *database);
    if let Some(seconds) = budget.by_server(link, address)? {
        found.charge(seconds.min(budget.spent) / budget.spent.max(1e-9));
    }
    Ok(found)
}

/// Returns the databases to sample, with their places. Those that are too small are found without a share.
fn plan(
    link: &mut Link,
    address: &Address,
    info: &Info,
    request: &Request,
    connector: Connector<'_>,
    found: &mut Sample,
) -> Result<Vec<Planned>, SampleError> {
    let lines = databases(info, connector.target);
    let keys = saturating_sum(lines.iter().map(|line| line.keys));
    let mut planned = Vec::new();
    for line in lines {
        let database = line.database;
        let part = (f64::from(request.slices) * line.keys as f64 / keys.max(1) as f64) as u32;
        let Some(plan) = SamplePlan::of(line.keys, part, request.count) else {
            found.notes.push(format!(
                "database {database} is too small to matter: of {} keys, {MIN_SLICES} slices would be more than a twentieth",
                line.keys
            ));
            found.databases.push((database, Finding::of_keys(line.keys, line.expires)));
            continue;
        };
        if plan.count < request.count {
            found.notes.push(format!(
                "database {database}: each slice asks for {} keys instead of {}, since {MIN_SLICES} slices of more would be more than a twentieth of its keys; lower the count for more slices",
                plan.count, request.count
            ));
        }
        let select = link.call(&[b"SELECT", database.to_string().as_bytes()]);
        select.map_err(|error| ShardError::at(address, error))?;
        let Some(places) = Places::of(link, address, info, &line, connector.stop)? else {
            let cause = "it refuses CLUSTER COUNTKEYSINSLOT";
            return Err(SampleError::Refused(Refusal { kind: FailureKind::Denied, cause, remedy: SLOTS_RIGHT }));
        };
        planned.push(Planned { line, plan, places });
    }
    Ok(planned)
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
    has_begun: &mut bool,
) -> Result<(Option<Share>, u64), ShardError> {
    let found = sample(link, address, info, &Request::default(), connector, has_begun);
    let found = found.map_err(|error| error.into_shard_error(address))?;
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

/// Returns why a server must not be sampled now, or why a sample would count wrongly on it.
fn refusal(link: &mut Link, info: &Info) -> Result<Option<Refusal>, LinkError> {
    let refused = |kind, cause, remedy| Ok(Some(Refusal { kind, cause, remedy }));
    let rights = server::Rights::ask(link)?;
    if rights.out_of_memory {
        let cause = "it is above maxmemory and answers OOM to transactions";
        return refused(FailureKind::Refused, cause, "scan it, or raise maxmemory first");
    }
    let capabilities = rights.capabilities;
    if !capabilities.exact() || !capabilities.select {
        return refused(FailureKind::Denied, "a right is missing", "grant +scan +multi +exec +dbsize +select");
    }
    let state = server::ServerState::sample(link)?;
    if state.saving || info.text("loading") == Some("1") {
        return refused(FailureKind::Refused, "a background save runs", "try again when it has finished");
    }
    if state.expiry == server::Expiry::Paused {
        return refused(FailureKind::Refused, "expiration is paused (CLIENT PAUSE or a failover)", "try again later");
    }
    let settings = ExpirySettings::read(link, info)?;
    if settings.import_mode == Setting::On {
        let cause = "it deletes no expired key (import-mode yes)";
        return refused(FailureKind::Refused, cause, "try again after the import");
    }
    if settings.nested_expiry == Setting::Off {
        let cause = "transactions delete no expired key (lazyexpire-nested-arbitrary-keys no)";
        return refused(FailureKind::Refused, cause, "attach a replica, or set it to yes");
    }
    Ok(None)
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
    plan: SamplePlan,
    budget: &mut Budget,
) -> Result<Drawn, ShardError> {
    let (mut random, mut drawn, mut visited) = (fastrand::Rng::new(), Drawn::default(), Visited::default());
    for _ in 0..plan.slices {
        if budget.is_exhausted(link, address)? {
            break;
        }
        let (start, sent) = (visited.draw(places, &mut random), Instant::now());
        let capabilities = Capabilities { memory: true, ..Capabilities::ALL };
        let slice = link.slice(start, plan.count, capabilities).map_err(|error| ShardError::at(address, error))?;
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
