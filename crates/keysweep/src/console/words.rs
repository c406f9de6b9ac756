//! Numbers and times as people read them.

use std::time::Duration;

use indicatif::HumanCount;
use jiff::{SignedDuration, Timestamp};

/// Further away than this a date says more.
const FAR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A time, told in three ways.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// For programs.
    pub(super) iso: String,
    /// For people, in full.
    pub(super) utc: String,
    /// For people in a hurry.
    pub(super) relative: String,
}

impl Moment {
    pub(super) fn new(time: Timestamp, now: Timestamp) -> Self {
        let since = now.duration_since(time);
        let relative = match since.is_negative() {
            _ if since.abs() < SignedDuration::from_secs(1) => "now".to_owned(),
            _ if since.abs() >= FAR => time.strftime("%Y-%m-%d").to_string(),
            true => format!("in {}", coarse(since.unsigned_abs())),
            false => format!("{} ago", coarse(since.unsigned_abs())),
        };
        Self {
            iso: time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            utc: time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
            relative,
        }
    }
}

/// In its largest unit.
fn coarse(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// An error as a sentence: they are made to stand behind a colon.
pub(super) fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect::<String>() + ".")
}

/// `1,021,174`.
pub(super) fn count(value: u64) -> String {
    HumanCount(value).to_string()
}

/// A share of 0–1 as `20.4 %`.
pub(super) fn percent(share: f64) -> String {
    // The space does not break.
    format!("{:.1}\u{a0}%", share * 100.0)
}

/// Seconds as `0.8 s`, `12 s`, `3 min 20 s` or `2 h 5 min`.
pub(super) fn seconds(value: f64) -> String {
    let whole = value.max(0.0).round() as u64;
    match whole {
        _ if value < 9.95 => format!("{:.1} s", value.max(0.0)),
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
    }
}

/// A latency, given in seconds, as `139 µs` or `1.2 ms`.
pub(super) fn latency(seconds: f64) -> String {
    let micros = seconds * 1e6;
    match micros {
        _ if micros < 999.5 => format!("{micros:.0} µs"),
        _ if micros < 99_950.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.0} ms", micros / 1e3),
    }
}

/// A latency that may not be known.
pub(super) fn latency_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "–".to_owned(), latency)
}

/// A duration as a field of a form shows it and `units` reads it: `24h`, `1h 30m`, `90s`, `0`.
pub(super) fn typed_duration(value: Duration) -> String {
    let seconds = value.as_secs();
    let parts = [(seconds / 3_600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let parts: Vec<String> =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}")).collect();
    if parts.is_empty() { "0".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units;

    #[test]
    fn a_duration_is_read_as_it_is_shown() {
        for seconds in [0, 1, 59, 60, 90, 3_600, 5_401, 86_400, 172_800] {
            assert_eq!(units::seconds(&typed_duration(Duration::from_secs(seconds))), Ok(seconds));
        }
    }

    #[test]
    fn a_time_is_told_from_now() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        for (time, now, text) in [
            (0, 0, "now"),
            (0, 59, "59 s ago"),
            (0, 3_700, "1 h ago"),
            (300, 0, "in 5 min"),
            (0, 864_000, "10 days ago"),
            (0, 8_640_000, "1970-01-01"),
        ] {
            assert_eq!(Moment::new(at(time), at(now)).relative, text);
        }
    }
}
