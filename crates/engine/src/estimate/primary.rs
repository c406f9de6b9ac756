//! The estimate of each primary: where its keys are counted, and what its own expiry cycle holds.

use std::time::Instant;

use super::{
    cycle::{Cycle, Snapshot, describe},
    limit::{MIN_SAMPLE_INTERVAL, Reservation, ServerProcess},
    monitor::Step,
    replica::Replica,
    report::{DatabaseEstimate, Estimate, Finding, Method, PrimaryEstimate},
    request::{Request, databases},
    sample::{Sample, SampleError, sample},
};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Dialer, Info, Keyspace, Link, RoleView},
    server::engine_refusal,
    stale::{Gap, Share, Workload},
    stop::Stop,
    target::{Address, Target},
    topology::{self, Connector, PrimaryNode, Scout},
};

/// Difference between the share and what the cycle holds beyond which a server is not in steady state: the law is right within
/// a point, and the share moves by about two.
const STEADY: f64 = 0.03;

/// Estimates the stale keys of a target.
///
/// # Errors
/// A node cannot be reached or refuses a command, the method is not possible on this target, or the stop was raised.
pub fn estimate(dialer: &dyn Dialer, target: &Target, request: &Request, stop: &Stop) -> Result<Estimate, Failure> {
    let connector = Connector { dialer, target, client_name: "keysweep:estimate", stop };
    estimate_primaries(connector, request).map_err(|error| match stop.is_raised() {
        true => ShardError::Stopped(FailureKind::Interrupted).into_failure(target.seed()),
        false => error.into_failure(target.seed()),
    })
}

fn estimate_primaries(connector: Connector<'_>, request: &Request) -> Result<Estimate, ShardError> {
    let begun = Instant::now();
    let nodes = Scout::new(connector).refresh()?;
    let mut shards =
        nodes.iter().map(|node| Shard::open(node, connector, begun)).collect::<Result<Vec<Shard>, ShardError>>()?;
    // A sample removes keys itself, so that the rate is measured before it.
    request.report(Step::Expiry(request.observe));
    connector.stop.wait_until(begun + request.observe);
    if connector.stop.is_raised() {
        return Err(ShardError::Stopped(FailureKind::Interrupted));
    }
    if request.may_sample() && request.samples.is_some() {
        // All primaries that are to be sampled, or none: a part of a target would be of no use.
        for shard in &mut shards {
            shard.find_replica(request, connector)?;
            shard.reserve(request)?;
        }
    }
    let (mut primaries, of) = (Vec::new(), shards.len());
    for (index, shard) in shards.iter_mut().enumerate() {
        request.report(Step::Primary { address: &shard.address, number: index + 1, of });
        primaries.push(shard.estimate(request, connector, begun)?);
    }
    Ok(Estimate { target: connector.target.to_string(), total: Finding::total(&primaries), primaries })
}

/// One primary with what there is to count on.
struct Shard {
    address: Address,
    /// `None`: only a replica of it can be reached.
    primary: Option<Link>,
    before: Option<Snapshot>,
    /// The node of the target itself, if it is a replica, else one to count on.
    replica: Option<Replica>,
    /// Addresses of replicas; none once they were tried.
    replicas: Vec<Address>,
    /// The sample that the primary may take, where samples are limited.
    reservation: Option<Reservation>,
}

/// What was found on a node, and why nothing was sampled although it might have been.
struct Found {
    databases: Vec<(u32, Finding)>,
    notes: Vec<String>,
    gap: Option<Gap>,
}

impl From<Sample> for Found {
    fn from(Sample { databases, notes }: Sample) -> Self {
        Self { databases, notes, gap: None }
    }
}

impl Shard {
    fn open(node: &PrimaryNode, connector: Connector<'_>, begun: Instant) -> Result<Self, ShardError> {
        let map = &connector.target.address_map;
        let (role, mut link) = topology::node_role(node, connector)?;
        if let Some(check) = engine_refusal(&mut link).map_err(|error| ShardError::at(&node.address, error))? {
            let sentence = format!("{} has no stale keys to count: {}", node.address, check.finding);
            return Err(ShardError::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
        }
        let mut replicas = node.replicas.clone();
        let (address, mut primary, replica) = match role {
            RoleView::Replica { host, port, in_sync } => {
                let address = map.dialled(Address::tcp(host, port));
                if !in_sync {
                    let sentence = format!(
                        "{} is a replica without a link to its primary {address}, so that its keys are out of date; restore the link, or name the primary",
                        node.address
                    );
                    return Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
                }
                let replica = Some(Replica::new(node.address.clone(), link)?);
                // What the primary reports is worth having, and the count does not need it.
                let primary = match topology::role(&address, connector) {
                    Ok((RoleView::Primary { .. }, link)) => Some(link),
                    Err(ShardError::Stopped(kind)) => return Err(ShardError::Stopped(kind)),
                    _ => None,
                };
                (address, primary, replica)
            }
            RoleView::Primary { addresses, .. } => {
                replicas.extend(addresses.into_iter().map(|address| map.dialled(address)));
                (node.address.clone(), Some(link), None)
            }
            RoleView::Unknown => (node.address.clone(), Some(link), None),
        };
        let before = match &mut primary {
            Some(link) => Snapshot::take(link, &address, begun)?,
            None => None,
        };
        Ok(Self { address, primary, before, replica, replicas, reservation: None })
    }

    /// Connects to a replica in sync, if the method may count there.
    fn find_replica(&mut self, request: &Request, connector: Connector<'_>) -> Result<(), ShardError> {
        let replicas = std::mem::take(&mut self.replicas);
        let may_count = matches!(request.method, None | Some(Method::Replica | Method::Slots));
        if self.replica.is_none() && may_count && !replicas.is_empty() {
            let history = self.history()?;
            self.replica = Replica::find(&replicas, history.as_deref(), connector)?;
        }
        Ok(())
    }

    /// Reserves the sample of a primary that is not counted on a replica.
    fn reserve(&mut self, request: &Request) -> Result<(), ShardError> {
        let is_counted = request.method.is_none() && self.replica.is_some();
        if let (Some(limit), Some(link), Some(before)) = (&request.samples, &self.primary, &self.before)
            && !is_counted
        {
            let server = ServerProcess::of(link, &self.address, &before.info);
            self.reservation = Some(Reservation::new(limit, server, &self.address)?);
        }
        Ok(())
    }

    fn estimate(
        &mut self,
        request: &Request,
        connector: Connector<'_>,
        begun: Instant,
    ) -> Result<PrimaryEstimate, ShardError> {
        self.find_replica(request, connector)?;
        let mut source = self.address.to_string();
        let (found, after) = match (request.method, self.replica.take()) {
            (None | Some(Method::Replica | Method::Slots), Some(mut replica)) => {
                source = replica.address.to_string();
                let databases = match request.method {
                    Some(Method::Slots) => replica.count_slots(request, connector)?,
                    _ => replica.count(request, connector)?,
                };
                (Found { databases, notes: Vec::new(), gap: None }, self.snapshot(begun)?)
            }
            (Some(method @ (Method::Replica | Method::Slots)), None) => return Err(self.without_replica(method)),
            (method, _) => {
                let after = self.snapshot(begun)?;
                (self.on_primary(method, request, connector, after.as_ref())?, after)
            }
        };
        let Found { databases, mut notes, gap } = found;
        let cycle = match &mut self.primary {
            Some(link) => {
                let (address, info) = (&self.address, after.as_ref().map(|after| &after.info));
                let user = connector.target.credentials.username.as_deref();
                let may_configure = request.rights.may_configure(link, address, user, info);
                let may_configure = may_configure.map_err(|error| ShardError::at(address, error))?;
                describe(link, address, &request.earlier, self.before.as_ref(), after.as_ref(), may_configure)?
            }
            None => Cycle::default(),
        };
        if self.primary.is_none() {
            notes.push(format!("the primary {} cannot be reached, so that its expiry rate is unknown", self.address));
        }
        let parts = databases.iter().map(|(_, finding)| finding);
        let lines = after.as_ref().map(|after| after.info.keyspace()).unwrap_or_default();
        let finding = match databases.is_empty() {
            true => Finding::default().with_share(Share::default(), request.method.unwrap_or(Method::Replica)),
            false => Finding::sum(parts),
        };
        let estimated = PrimaryEstimate {
            address: self.address.to_string(),
            source,
            finding: with_cycle(finding, &cycle),
            databases: databases
                .into_iter()
                .map(|(database, finding)| DatabaseEstimate {
                    database,
                    finding: of_database(finding, database, &cycle, &lines),
                })
                .collect(),
            notes,
            gap,
            used_memory: after.as_ref().and_then(|after| after.info.number("used_memory")),
            cycle,
        };
        if let Some(mut reservation) = self.reservation.take().filter(|reservation| !reservation.wait.is_zero()) {
            reservation.wait = estimated.sample_interval();
        }
        Ok(estimated)
    }

    /// Returns the ID of the replication stream, which a primary and its replicas share; `None` where INFO is refused.
    fn history(&mut self) -> Result<Option<String>, ShardError> {
        let Some(link) = &mut self.primary else { return Ok(None) };
        let info = link.info(&["replication"]).map_err(|error| ShardError::at(&self.address, error))?;
        Ok(info.and_then(|info| info.text("master_replid").map(str::to_owned)))
    }

    fn snapshot(&mut self, begun: Instant) -> Result<Option<Snapshot>, ShardError> {
        match &mut self.primary {
            Some(link) => Snapshot::take(link, &self.address, begun),
            None => Ok(None),
        }
    }

    /// Samples the primary, or reads its own average.
    fn on_primary(
        &mut self,
        method: Option<Method>,
        request: &Request,
        connector: Connector<'_>,
        snapshot: Option<&Snapshot>,
    ) -> Result<Found, ShardError> {
        let Some(link) = &mut self.primary else {
            let sentence = format!("{} cannot be reached, and only a primary can be sampled", self.address);
            return Err(ShardError::Fatal(Failure::new(FailureKind::Unreachable, sentence)));
        };
        let info = snapshot.map(|snapshot| &snapshot.info);
        let (mut notes, mut gap) = (Vec::new(), None);
        if request.may_sample() {
            let Some(info) = info else {
                let sentence =
                    format!("{} refuses INFO, without which its databases are unknown; grant +info", self.address);
                return Err(ShardError::Fatal(Failure::new(FailureKind::Denied, sentence)));
            };
            let mut has_begun = false;
            let found = sample(link, &self.address, info, request, connector, &mut has_begun);
            if let Some(reservation) = self.reservation.as_mut().filter(|_| has_begun) {
                reservation.wait = MIN_SAMPLE_INTERVAL;
            }
            match found {
                Ok(found) => return Ok(found.into()),
                // The caller left the method open, and INFO says at least something.
                Err(SampleError::Refused(refusal)) if method.is_none() => {
                    notes.push(refusal.failure(&self.address).message);
                    gap = Some(refusal.gap());
                }
                Err(SampleError::Failed(ShardError::Fatal(failure))) if method.is_none() && !has_begun => {
                    notes.push(failure.message.clone());
                    gap = Some(Gap { cause: failure.message, remedy: None });
                }
                Err(error) => return Err(error.into_shard_error(&self.address)),
            }
        }
        let Some(info) = info.filter(|info| info.number::<f64>("expired_stale_perc").is_some()) else {
            let sentence = format!(
                "{} has no replica in sync to count on and does not report its own average (INFO stats); attach a replica, or grant +info",
                self.address
            );
            return Err(ShardError::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
        };
        Ok(Found { databases: hint(info, connector.target), notes, gap })
    }

    fn without_replica(&self, method: Method) -> ShardError {
        let of_a_cluster = if method == Method::Slots { " to a cluster's primary" } else { "" };
        let sentence = format!(
            "{} has no replica in sync that accepts these credentials; use the method sample, or attach a replica{of_a_cluster}",
            self.address
        );
        ShardError::Fatal(Failure::new(FailureKind::Unsupported, sentence))
    }
}

/// Returns the server's own running average for each database; at 0 it says nothing.
fn hint(info: &Info, target: &Target) -> Vec<(u32, Finding)> {
    let percent = info.number::<f64>("expired_stale_perc").filter(|percent| *percent > 0.0);
    let finding = |line: &Keyspace| {
        let finding = Finding { method: Some(Method::Info), ..Finding::of_keys(line.keys, line.expires) };
        let Some(percent) = percent.filter(|_| line.keys > 0) else { return finding };
        let share = Share::exact(percent / 100.0 * line.expires as f64 / line.keys as f64);
        Finding { share_low: None, share_high: None, ..finding.with_share(share, Method::Info) }
    };
    databases(info, target).iter().map(|line| (line.database, finding(line))).collect()
}

/// Adds what is known of the cycle.
fn with_cycle(finding: Finding, cycle: &Cycle) -> Finding {
    let predicted = cycle.predicted_share();
    let steady = finding.interval().zip(predicted).filter(|_| finding.method != Some(Method::Info));
    Finding {
        expiry_rate: cycle.rate(),
        hz: cycle.hz,
        effort: cycle.effort,
        // Where nothing expires there is nothing to predict.
        predicted_share: predicted.filter(|_| cycle.rate().is_some_and(|rate| rate > 0.0)),
        steady: steady.map(|(share, predicted)| (share.low - STEADY..=share.high + STEADY).contains(&predicted)),
        ..finding
    }
}

/// Adds what is known of the cycle in one database.
fn of_database(finding: Finding, database: u32, cycle: &Cycle, lines: &[Keyspace]) -> Finding {
    let index = lines.binary_search_by_key(&database, |line| line.database).ok();
    let load = cycle.workload.as_ref().zip(index).and_then(|(workload, index)| workload.databases.get(index).copied());
    let workload = load.zip(cycle.workload.as_ref()).map(|(load, workload)| Workload {
        databases: vec![load],
        configured_databases: workload.configured_databases,
    });
    with_cycle(finding, &Cycle { workload, ..cycle.clone() })
}
