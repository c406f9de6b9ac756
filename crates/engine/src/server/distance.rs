//! The check of the network path: its round trip, and what that means for the duration of a scan.

use std::time::Duration;

use super::{
    check::{Check, Verdict},
    forecast::Forecast,
};

/// Time that the network may take before an operator should know.
const LONG: Duration = Duration::from_secs(60);
/// Factor by which a path may make a scan longer without a word about it.
const SLIGHT: f64 = 1.2;

/// Judges the round trip. `keys`: those that are scanned.
pub(super) fn distance(forecast: &Forecast, keys: u64) -> Check {
    let name = "round trip";
    let milliseconds = forecast.round_trip.as_secs_f64() * 1e3;
    // A server may claim to hold any number of keys.
    let [seconds, nearby] = [forecast.keys_per_second, forecast.nearby].map(|speed| keys as f64 / speed);
    if seconds < 1.0 || seconds < nearby * SLIGHT {
        return Check::ok(name, format!("{milliseconds:.1} ms"));
    }
    let finding = format!(
        "{milliseconds:.1} ms: a scan of {keys} keys with these limits takes about {} over this path, and {} next to the server",
        duration(seconds),
        duration(nearby)
    );
    match seconds - nearby > LONG.as_secs_f64() {
        true => {
            let remedy = "run keysweep nearer to the server, or raise --max-slice for more keys in each round trip";
            Check::with_remedy(Verdict::Slower, name, finding, remedy)
        }
        false => Check::ok(name, finding),
    }
}

fn duration(seconds: f64) -> String {
    match seconds / 60.0 {
        minutes if minutes >= 120.0 => format!("{:.0} hours", minutes / 60.0),
        minutes if minutes >= 2.0 => format!("{minutes:.0} minutes"),
        _ if seconds < 1.0 => "less than a second".into(),
        _ => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Preset;

    #[test]
    fn the_duration_over_the_network_is_named_where_it_matters() {
        let found = |micros: u64, keys_per_second: f64, nearby: f64, keys: u64| {
            let round_trip = Duration::from_micros(micros);
            let limits = Preset::Normal.limits();
            let forecast = Forecast { limits, round_trip, cursors: 4, keys_per_second, nearby, clients: 0.0 };
            let check = distance(&forecast, keys);
            (check.verdict, check.finding)
        };
        assert_eq!(found(60, 4e5, 4e5, 10_000_000), (Verdict::Ok, "0.1 ms".into()), "the path takes nothing of it");
        assert_eq!(found(22_400, 46_000.0, 4e5, 40_000), (Verdict::Ok, "22.4 ms".into()), "it is over soon");
        let expected = "22.4 ms: a scan of 1000000 keys with these limits takes about 22 s over this path, and 2 s next to the server";
        assert_eq!(found(22_400, 46_000.0, 5e5, 1_000_000), (Verdict::Ok, expected.into()));
        let (verdict, finding) = found(45_000, 20_000.0, 1e8, 20_000_000);
        assert_eq!(verdict, Verdict::Slower);
        assert!(finding.contains("about 17 minutes over this path, and less than a second next"), "{finding}");
        assert!(found(90_000, 10_000.0, 4e5, 400_000_000).1.contains("about 11 hours"));
    }
}
