//! Formats numbers and times for people.

use std::time::Duration;

use indicatif::HumanCount;
use jiff::{SignedDuration, Timestamp};

/// Distance from which a date is shown instead of a relative time.
const FAR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A time relative to now, with its absolute forms.
#[derive(Debug, Clone)]
pub(super) struct RelativeTime {
    /// `2026-11-24T15:00:00Z`.
    pub(super) iso: String,
    /// `2026-11-24 15:00:00 UTC`.
    pub(super) utc: String,
    /// `in 5 min`, `1 h ago`, or a date.
    pub(super) relative: String,
}

impl RelativeTime {
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

/// Formats a duration in its largest unit.
fn coarse(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Formats an error message, which is written to follow a colon, as a sentence.
pub(super) fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect::<String>() + ".")
}

/// Formats a number as `1,021,174`.
pub(super) fn count(value: u64) -> String {
    HumanCount(value).to_string()
}

/// Formats a share of 0–1 as `20.4 %`, with a space that does not break.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", share * 100.0)
}

/// Formats a share as a person types it into a field for percent.
pub(super) fn typed_percent(share: f64) -> String {
    ((share * 1e4).round() / 100.0).to_string()
}

/// Formats seconds as `0.8 s`, `12 s`, `3 min 20 s` or `2 h 5 min`.
pub(super) fn seconds(value: f64) -> String {
    let whole = value.max(0.0).round() as u64;
    match whole {
        _ if value < 9.95 => format!("{:.1} s", value.max(0.0)),
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
    }
}

/// Formats a latency, given in seconds, as `139 µs` or `1.2 ms`.
pub(super) fn latency(seconds: f64) -> String {
    let micros = seconds * 1e6;
    match micros {
        _ if micros < 999.5 => format!("{micros:.0} µs"),
        _ if micros < 99_950.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.0} ms", micros / 1e3),
    }
}

/// Formats a latency; a dash if it is unknown.
pub(super) fn latency_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "–".to_owned(), latency)
}

/// Formats a duration for a form field, as `units` parses it: `24h`, `1h 30m`, `90s`, `0`.
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
    fn a_formatted_duration_is_parsed_to_the_same_duration() {
        for seconds in [0, 1, 59, 60, 90, 3_600, 5_401, 86_400, 172_800] {
            assert_eq!(units::seconds(&typed_duration(Duration::from_secs(seconds))), Ok(seconds));
        }
    }

    #[test]
    fn a_time_is_formatted_relative_to_now() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        for (time, now, text) in [
            (0, 0, "now"),
            (0, 59, "59 s ago"),
            (0, 3_700, "1 h ago"),
            (300, 0, "in 5 min"),
            (0, 864_000, "10 days ago"),
            (0, 8_640_000, "1970-01-01"),
        ] {
            assert_eq!(RelativeTime::new(at(time), at(now)).relative, text);
        }
    }
}
