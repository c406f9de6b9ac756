//! The check of the clocks: keys expire by the clock of the primary.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::check::{Check, Verdict};
use crate::{
    link::{Link, LinkError, Reply, RoleView},
    target::Address,
    topology::Connector,
};

/// How far clocks may differ: a fast clock expires live keys, for good.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Compares the primary's clock with its replicas' and this machine's.
pub(super) fn clock(
    link: &mut Link,
    address: &Address,
    role: &RoleView,
    connector: Connector<'_>,
) -> Result<Check, LinkError> {
    let name = "clock";
    let Some(own) = skew(link)? else {
        return Ok(Check::with_remedy(
            Verdict::Warning,
            name,
            "TIME is refused; clocks cannot be compared",
            "grant +time",
        ));
    };
    let mut worst = (own, "this machine's".to_owned());
    if let RoleView::Primary { addresses, .. } = role {
        for replica in addresses {
            // A replica that cannot be reached, or not with these credentials, has no known clock.
            let Ok(mut link) = connector.open(&connector.target.address_map.dialled(replica.clone())) else { continue };
            if let Ok(Some(theirs)) = skew(&mut link) {
                let apart = own - theirs;
                if apart.abs() > worst.0.abs() {
                    worst = (apart, format!("its replica {replica}'s"));
                }
            }
        }
    }
    let (seconds, whose) = worst;
    let finding = format!(
        "{address} is {:.1} s {} {whose} clock",
        seconds.abs(),
        if seconds < 0.0 { "behind" } else { "ahead of" }
    );
    Ok(match seconds.abs() > MAX_CLOCK_SKEW.as_secs_f64() {
        true => Check::with_remedy(
            Verdict::Refused,
            name,
            finding,
            "synchronise the clocks (NTP) first: a fast clock expires keys that are live elsewhere",
        ),
        false => Check::ok(name, format!("the clocks are within {:.1} s", seconds.abs().max(0.1))),
    })
}

/// Returns the seconds by which the server is ahead of this machine; `None` where TIME is refused.
fn skew(link: &mut Link) -> Result<Option<f64>, LinkError> {
    let before = now();
    let reply = match link.call(&[b"TIME"]) {
        Ok(reply) => reply,
        Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => return Ok(None),
        Err(error) => return Err(error),
    };
    let middle = (before + now()) / 2.0;
    let Reply::Array(parts) = &reply else { return Ok(None) };
    let part = |index: usize| parts.get(index).and_then(Reply::integer).map(|value| value as f64);
    Ok(part(0).zip(part(1)).map(|(seconds, micros)| seconds + micros / 1e6 - middle))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
