//! The check of the clocks: keys expire by the clock of the primary. The clock of this machine expires none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::check::{Check, Verdict};
use crate::{
    link::{Link, LinkError, Reply, RoleView},
    target::Address,
    topology::Connector,
};

/// How far the clocks of a primary and of its replicas may differ: a fast clock expires live keys, for good.
const MAX_REPLICA_SKEW: Duration = Duration::from_secs(2);
/// How far a server's clock may differ from this machine's without a warning.
const MAX_OWN_SKEW: Duration = Duration::from_secs(2);
/// How far it may differ at all: beyond it either of the two clocks is wrong, and it may be the server's.
const REFUSED_OWN_SKEW: Duration = Duration::from_secs(60);

/// Compares the primary's clock with its replicas' and this machine's. `own`: the seconds by which the primary is ahead of this
/// machine; `None` where TIME is refused.
pub(super) fn clock(own: Option<f64>, address: &Address, role: &RoleView, connector: Connector<'_>) -> Check {
    let name = "clock";
    let Some(own) = own else {
        let finding = "TIME is refused; clocks cannot be compared";
        return Check::with_remedy(Verdict::Warning, name, finding, "grant +time");
    };
    // Override of the operator who knows about the clocks.
    let refused = if connector.target.allow_clock_skew { Verdict::Warning } else { Verdict::Refused };
    let differs = |seconds: f64, whose: &str| {
        let direction = if seconds < 0.0 { "behind" } else { "ahead of" };
        format!("{address} is {:.1} s {direction} {whose} clock", seconds.abs())
    };
    let replica = replica_skew(own, role, connector);
    if let Some((seconds, replica)) = &replica
        && seconds.abs() > MAX_REPLICA_SKEW.as_secs_f64()
    {
        return Check::with_remedy(
            refused,
            name,
            differs(*seconds, &format!("its replica {replica}'s")),
            "synchronise the clocks (NTP) first: a fast clock expires keys that are live elsewhere; --allow-clock-skew scans all the same",
        );
    }
    let finding = differs(own, "this machine's");
    if own.abs() > REFUSED_OWN_SKEW.as_secs_f64() {
        let remedy = "synchronise the clocks (NTP) first: if it is the server's that is fast, it expires keys too early; --allow-clock-skew scans all the same";
        Check::with_remedy(refused, name, finding, remedy)
    } else if own.abs() > MAX_OWN_SKEW.as_secs_f64() {
        let remedy = "synchronise the clocks (NTP); keys expire by the server's";
        Check::with_remedy(Verdict::Warning, name, finding, remedy)
    } else {
        let seconds = replica.map_or(own.abs(), |(seconds, _)| own.abs().max(seconds.abs()));
        Check::ok(name, format!("the clocks are within {:.1} s", seconds.max(0.1)))
    }
}

/// Returns the seconds by which the primary is ahead of the replica whose clock differs most, and that replica. `own`: the
/// seconds by which the primary is ahead of this machine. A replica that cannot be reached, or not with these credentials,
/// has no known clock.
fn replica_skew(own: f64, role: &RoleView, connector: Connector<'_>) -> Option<(f64, Address)> {
    let RoleView::Primary { addresses, .. } = role else { return None };
    let skews = addresses.iter().filter_map(|replica| {
        let mut link = connector.open(&connector.target.address_map.dialled(replica.clone())).ok()?;
        Some((own - skew(&mut link).ok()??, replica.clone()))
    });
    skews.max_by(|(one, _), (other, _)| one.abs().total_cmp(&other.abs()))
}

/// Returns the seconds by which the server is ahead of this machine; `None` where TIME is refused.
fn skew(link: &mut Link) -> Result<Option<f64>, LinkError> {
    let before = now();
    let reply = link.call_optional(&[b"TIME"])?;
    Ok(reply.and_then(|reply| ahead(&reply, (before + now()) / 2.0)))
}

/// Returns by how many seconds a reply to TIME is ahead of a time of this machine; `None`: it is no time.
pub(super) fn ahead(reply: &Reply, own: f64) -> Option<f64> {
    let Reply::Array(parts) = reply else { return None };
    let part = |index: usize| parts.get(index).and_then(Reply::integer).map(|value| value as f64);
    Some(part(0)? + part(1)? / 1e6 - own)
}

/// Returns this machine's time, seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
