//! The pre-flight checks of a scan. Nothing here touches a key.

use super::{
    check::{Check, FREEING, RECLAIMS_WITH_SUBSCRIBERS, SUBSCRIBERS, Verdict},
    clock::clock,
    cycle::order,
    distance::distance,
    engine::engine_check,
    forecast::Forecast,
    inquiry::Inquiry,
    state::{Expiry, ServerState},
};
use crate::{
    failure::{Failure, ShardError},
    limits::Limits,
    link::{Dialer, Info, Link, LinkError, RoleView, saturating_sum},
    stop::Stop,
    target::{Mode, Target},
    topology::{self, Connector, Primary},
};

/// Bytes of one delete in the replication stream: the command, and a key name of the usual length.
const BYTES_PER_DELETE: u64 = 80;
/// The share of keys with a TTL that is stale at a usual peak, 0–1.
const USUAL_STALE_SHARE: f64 = 0.3;

/// Runs all checks on the target's primaries without reclaiming a key. `limits`: those of the scan. `Err`: there is no primary to
/// check.
pub fn check(dialer: &dyn Dialer, target: &Target, limits: Limits, stop: &Stop) -> Result<Vec<Check>, Failure> {
    let connector = Connector { dialer, target, client_name: "keysweep:check", stop };
    let failed = |error: ShardError| error.into_failure(target.seed());
    let mut checks = Vec::new();
    for primary in topology::primaries(connector).map_err(failed)? {
        let mut primary = match primary {
            Ok(primary) => primary,
            // The other primaries are checked all the same.
            Err(error) if matches!(target.mode, Mode::Cluster) && !stop.is_raised() => {
                let remedy = match error {
                    // The sentence has its own remedy.
                    ShardError::Fatal(_) => None,
                    _ => Some("wait for its failover, or start it again".to_owned()),
                };
                let finding = failed(error).message;
                checks.push(Check { name: "connection".into(), verdict: Verdict::Refused, finding, remedy });
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        let inquiry = Inquiry::make(&mut primary.link, &target.mode, stop);
        let found = inquiry.and_then(|inquiry| examine(&mut primary, &inquiry, connector, limits));
        let found = found.map_err(|error| failed(ShardError::at(&primary.address, error)))?;
        // In a cluster each line names its primary.
        let prefix =
            if matches!(target.mode, Mode::Cluster) { format!("{}: ", primary.address) } else { String::new() };
        let all = [role(&primary, target)].into_iter().chain(found);
        checks.extend(all.map(|check| Check { finding: format!("{prefix}{}", check.finding), ..check }));
    }
    Ok(checks)
}

fn role(primary: &Primary, target: &Target) -> Check {
    let address = &primary.address;
    let is_known = primary.role != RoleView::Unknown;
    Check {
        name: "role".into(),
        verdict: if is_known { Verdict::Ok } else { Verdict::Warning },
        finding: match target.mode {
            _ if !is_known => format!("{address} does not report its role; it is treated as a primary"),
            Mode::Server if address == target.seed() => format!("{address} is a primary"),
            _ => format!("{target} leads to the primary {address}"),
        },
        remedy: None,
    }
}

/// Judges what one connected primary has answered, and asks it for what depends on that.
pub(crate) fn examine(
    primary: &mut Primary,
    inquiry: &Inquiry,
    connector: Connector<'_>,
    limits: Limits,
) -> Result<Vec<Check>, LinkError> {
    let (link, info) = (&mut primary.link, inquiry.info.as_ref());
    // Alone: what the others find would be no reason to scan it.
    if let Some(check) = info.and_then(engine_check) {
        return Ok(vec![check]);
    }
    let clock = clock(inquiry.skew, &primary.address, &primary.role, connector);
    let mut checks = vec![inquiry.rights.check(), clock];
    checks.extend(inquiry.cluster.map(|commands| commands.check(info)));
    checks.push(inquiry.settings.check());
    let Some(info) = info else {
        let finding = "INFO is refused: sizes are unknown, paused expiry is not detected, and a lost connection starts the scan again";
        checks.push(Check::with_remedy(Verdict::Warning, "sizes", finding, "grant +info"));
        return Ok(checks);
    };
    let only = connector.target.database;
    let forecast = Forecast::new(limits, info, &inquiry.state, link.round_trip(), only);
    let databases = info.keyspace().into_iter().filter(|line| only.is_none_or(|only| only == line.database));
    checks.push(distance(&forecast, saturating_sum(databases.map(|line| line.keys))));
    checks.push(subscribers(link, info, inquiry.events.as_deref())?);
    checks.push(append_only(info, inquiry.fsync.as_deref()));
    checks.push(lazy_free(inquiry.lazy_free.as_deref()));
    checks.push(replication(info, &primary.role));
    checks.push(memory(info, inquiry.rights.out_of_memory));
    checks.extend(failed_save(info));
    checks.push(order(info, &forecast, only));
    checks.push(state(&inquiry.state));
    if info.text("cluster_enabled") == Some("1") && !matches!(connector.target.mode, Mode::Cluster) {
        let finding = format!("{} is one node of a cluster; only this node is scanned", primary.address);
        checks.push(Check::with_remedy(
            Verdict::Warning,
            "cluster",
            finding,
            "use redis-cluster:// to scan all of its primaries",
        ));
    }
    Ok(checks)
}

/// Checks whether clients receive an event for each expired key. `events`: the setting that decides which are published.
fn subscribers(link: &mut Link, info: &Info, events: Option<&str>) -> Result<Check, LinkError> {
    let name = SUBSCRIBERS;
    let tracking: u64 = info.number("tracking_clients").unwrap_or(0);
    // Where CONFIG is refused, subscribers to such a channel are the only sign.
    let published = events.is_none_or(|flags| flags.contains('x') || flags.contains('A'));
    let subscribed = published && {
        let channels = link.count_optional(&[b"PUBSUB", b"CHANNELS", b"__key*__:*"])?;
        let patterns = link.call_optional(&[b"PUBSUB", b"NUMPAT"])?;
        let Some((channels, patterns)) = channels.zip(patterns) else {
            let finding = "PUBSUB is refused: keyspace-notification subscribers are unknown";
            return Ok(Check::with_remedy(
                Verdict::Warning,
                name,
                finding,
                "grant +pubsub|channels and +pubsub|numpat",
            ));
        };
        channels > 0 || (events.is_some() && patterns.integer().unwrap_or(0) > 0)
    };
    let remedy = "to scan faster, end the subscription during the scan, or set --reclaims-per-second";
    Ok(if subscribed {
        let finding = format!(
            "there may be keyspace-notification subscribers: at most {RECLAIMS_WITH_SUBSCRIBERS} keys reclaimed a second"
        );
        Check::with_remedy(Verdict::Slower, name, finding, remedy)
    } else if tracking > 0 {
        let finding =
            format!("{tracking} clients track keys: at most {RECLAIMS_WITH_SUBSCRIBERS} keys reclaimed a second");
        Check::with_remedy(Verdict::Slower, name, finding, remedy)
    } else {
        Check::ok(name, "no keyspace-notification subscribers")
    })
}

fn append_only(info: &Info, fsync: Option<&str>) -> Check {
    let name = "append-only file";
    if info.text("aof_enabled") != Some("1") {
        return Check::ok(name, "off");
    }
    match fsync {
        Some("always") => Check::with_remedy(
            Verdict::Slower,
            name,
            "every delete waits for the disk (appendfsync always)",
            "set appendfsync everysec during the scan, or use pace gentle",
        ),
        Some(policy) => Check::ok(name, format!("appendfsync {policy}")),
        None => Check::ok(name, "on; CONFIG is refused, so its policy is unknown"),
    }
}

fn lazy_free(setting: Option<&str>) -> Check {
    let name = FREEING;
    match setting {
        Some("no") => Check::with_remedy(
            Verdict::Warning,
            name,
            "large values are freed in the main thread, a hash of a million fields in some 0.5 s",
            "CONFIG SET lazyfree-lazy-expire yes, if there are large values with a TTL",
        ),
        Some(_) => Check::ok(name, "large values are freed in the background"),
        None => Check::ok(name, "CONFIG is refused, so it is unknown whether large values block"),
    }
}

fn replication(info: &Info, role: &RoleView) -> Check {
    let name = "replicas";
    let RoleView::Primary { replicas, max_lag, .. } = role else { return Check::ok(name, "unknown") };
    if *replicas == 0 {
        return Check::ok(name, "none");
    }
    let backlog: u64 = info.number("repl_backlog_size").unwrap_or(0);
    let keys_with_ttl = saturating_sum(info.keyspace().iter().map(|line| line.expires));
    let deletes = ((keys_with_ttl as f64 * USUAL_STALE_SHARE) as u64).saturating_mul(BYTES_PER_DELETE);
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
    match backlog > 0 && deletes > backlog {
        true => Check::with_remedy(
            Verdict::Warning,
            name,
            format!(
                "{replicas} attached; the scan may cause up to {} of deletes, and the backlog holds {}: a replica that loses its connection may need a full resynchronisation",
                mebibytes(deletes),
                mebibytes(backlog)
            ),
            "raise repl-backlog-size (CONFIG SET) before the scan, or use pace gentle",
        ),
        false => Check::ok(name, format!("{replicas} attached, at most {} behind", mebibytes(*max_lag))),
    }
}

/// Returns a warning where the server has failed to save its data.
pub(crate) fn failed_save(info: &Info) -> Option<Check> {
    let has_failed = |field: &&str| info.text(field) == Some("err");
    let failed = ["rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status"];
    let failed: Vec<&str> = failed.into_iter().filter(has_failed).collect();
    (!failed.is_empty()).then(|| {
        let finding = format!(
            "the server fails to save its data ({}) and may answer MISCONF to clients that write; the scan is not affected",
            failed.join(", ")
        );
        Check::with_remedy(Verdict::Warning, "persistence", finding, "the server's log names the cause")
    })
}

/// Returns the warning where used_memory is above maxmemory and the server refuses every transaction.
pub(crate) fn out_of_memory() -> Check {
    let finding = "the server is above maxmemory and answers OOM to transactions, so that slices run without one and the count is not exact until memory is below the limit";
    Check::with_remedy(Verdict::Warning, "memory", finding, "for an exact count, raise maxmemory first")
}

/// `is_out_of_memory`: whether the server refuses transactions for that reason.
fn memory(info: &Info, is_out_of_memory: bool) -> Check {
    if is_out_of_memory {
        return out_of_memory();
    }
    let bytes = |field: &str| info.number::<u64>(field).unwrap_or(0);
    let (used, limit, system) = (bytes("used_memory"), bytes("maxmemory"), bytes("total_system_memory"));
    let share = |of: u64| used as f64 / of as f64 * 100.0;
    match (limit, system) {
        (0, 0) => Check::ok("memory", "no limit is set"),
        (0, system) => {
            Check::ok("memory", format!("no maxmemory; {:.0} % of the system's memory is used", share(system)))
        }
        (limit, _) => Check::ok("memory", format!("{:.0} % of maxmemory is used", share(limit))),
    }
}

fn state(state: &ServerState) -> Check {
    if state.expiry == Expiry::Paused {
        Check::with_remedy(
            Verdict::Slower,
            "state",
            "writes, and with them expiry, are paused; the scan waits",
            "CLIENT UNPAUSE, or wait for the failover",
        )
    } else if state.saving {
        Check::with_remedy(
            Verdict::Slower,
            "state",
            "a background save is running; the scan waits for it",
            "none needed, or scan at another time",
        )
    } else if state.expiry == Expiry::Unknown {
        Check::ok("state", "no background save; this version does not report paused expiry")
    } else {
        Check::ok("state", "no background save, expiry is not paused")
    }
}
