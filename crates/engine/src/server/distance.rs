//! The check of the network path: its round trip, and what that means for the duration of a scan.

use std::time::Duration;

use super::check::{Check, Verdict};
use crate::link::{Info, Link, saturating_sum};

/// Keys that are scanned in one round trip at pace normal, about: four cursors with a slice each.
const KEYS_PER_ROUND_TRIP: f64 = 1_000.0;
/// Time that the network may take before an operator should know.
const LONG: Duration = Duration::from_secs(60);

/// Judges the shortest round trip so far. `info`: the server's keyspace.
pub(super) fn distance(link: &Link, info: &Info) -> Check {
    check(link.round_trip(), saturating_sum(info.keyspace().iter().map(|line| line.keys)))
}

fn check(round_trip: Duration, keys: u64) -> Check {
    let name = "round trip";
    let milliseconds = round_trip.as_secs_f64() * 1e3;
    // A server may claim to hold any number of keys.
    let seconds = round_trip.as_secs_f64() * (keys as f64 / KEYS_PER_ROUND_TRIP);
    if seconds < 1.0 {
        return Check::ok(name, format!("{milliseconds:.1} ms"));
    }
    let duration = match seconds / 60.0 {
        minutes if minutes >= 120.0 => format!("{:.0} hours", minutes / 60.0),
        minutes if minutes >= 2.0 => format!("{minutes:.0} minutes"),
        _ => format!("{seconds:.0} s"),
    };
    let finding =
        format!("{milliseconds:.1} ms: the network alone takes about {duration} for {keys} keys at pace normal");
    match seconds > LONG.as_secs_f64() {
        true => {
            let remedy = "run keysweep nearer to the server, or raise --max-slice for more keys in each round trip";
            Check::with_remedy(Verdict::Slower, name, finding, remedy)
        }
        false => Check::ok(name, finding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_duration_over_the_network_is_named_where_it_matters() {
        let found = |micros: u64, keys: u64| {
            let check = check(Duration::from_micros(micros), keys);
            (check.verdict, check.finding)
        };
        assert_eq!(found(60, 1_000_000), (Verdict::Ok, "0.1 ms".into()));
        let expected = "22.4 ms: the network alone takes about 22 s for 1000000 keys at pace normal";
        assert_eq!(found(22_400, 1_000_000), (Verdict::Ok, expected.into()));
        let expected = "45.0 ms: the network alone takes about 15 minutes for 20000000 keys at pace normal";
        assert_eq!(found(45_000, 20_000_000), (Verdict::Slower, expected.into()));
        assert!(found(90_000, 400_000_000).1.contains("about 10 hours"));
    }
}
