//! Sizes, durations and times with units, parsed and formatted the same way in the console and on the command line.

use std::time::Duration;

use indicatif::HumanCount;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// Formats bytes as `8,192 B` or `125.3 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if bytes < 10_240 { format!("{} B", HumanCount(bytes)) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Parses a time: how long ago it was, or a point in time.
///
/// # Errors
/// The expected format.
pub fn since(text: &str) -> Result<Timestamp, String> {
    let expected = || "expected a duration such as 24h or 7d, or a time such as 2026-01-31T12:00:00Z".to_owned();
    match duration(text) {
        Ok(ago) => Timestamp::now().checked_sub(ago).map_err(|_| expected()),
        Err(_) => text.parse().map_err(|_| expected()),
    }
}

/// Parses a duration with units: `90s`, `5m`, `1h 30m` or `2 days`.
///
/// # Errors
/// The expected format.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = |_| "expected a duration such as 90s, 5m or 1h30m".to_owned();
    let span: Span = text.trim().to_ascii_lowercase().parse().map_err(invalid)?;
    let time: SignedDuration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(invalid)?;
    Duration::try_from(time).map_err(|_| "must not be negative".to_owned())
}

/// Parses a duration into whole seconds; a bare number counts as seconds, as in the API.
///
/// # Errors
/// The expected format.
pub fn seconds(text: &str) -> Result<u64, String> {
    let invalid = || "expected a duration such as 24h or 90m, or a number of seconds".to_owned();
    if let Ok(seconds) = text.trim().parse() {
        return Ok(seconds);
    }
    let time = duration(text).map_err(|_| invalid())?;
    if time.subsec_nanos() == 0 { Ok(time.as_secs()) } else { Err(invalid()) }
}

/// Parses a percentage, as `5`, `5 %` or `0,5%`, into a share; `None`: it is no number.
pub fn percent(text: &str) -> Option<f64> {
    let text = text.trim();
    let number = text.strip_suffix('%').unwrap_or(text).trim_end().replace(',', ".");
    number.parse().ok().filter(|percent: &f64| percent.is_finite()).map(|percent| percent / 100.0)
}

/// Rounds a waiting time up to whole seconds, at least one.
pub fn whole_seconds(wait: Duration) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.max(1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Duration::ZERO, 1)]
    #[case(Duration::from_millis(1), 1)]
    #[case(Duration::from_secs(2), 2)]
    #[case(Duration::from_millis(2_001), 3)]
    fn a_wait_is_rounded_up_to_whole_seconds(#[case] wait: Duration, #[case] seconds: u64) {
        assert_eq!(whole_seconds(wait), seconds);
    }

    #[rstest]
    #[case(0, "0 B")]
    #[case(10_239, "10,239 B")]
    #[case(131_386_573, "125.3 MiB")]
    #[case(3 << 29, "1.5 GiB")]
    #[case(1 << 42, "4.0 TiB")]
    #[case(1 << 52, "4096.0 TiB")]
    fn a_size_is_formatted_in_a_fitting_unit(#[case] bytes: u64, #[case] text: &str) {
        assert_eq!(size(bytes), text);
    }

    #[rstest]
    #[case("24h", Some(86_400))]
    #[case("24H", Some(86_400))]
    #[case("1h 30m", Some(5_400))]
    #[case("1h30m", Some(5_400))]
    #[case("90 min", Some(5_400))]
    #[case("1.5h", Some(5_400))]
    #[case("2 days", Some(172_800))]
    #[case("0", Some(0))]
    #[case(" 3600 ", Some(3_600))]
    #[case("soon", None)]
    #[case("-1h", None)]
    #[case("-90", None)]
    #[case("1500ms", None)]
    #[case("1 month", None)]
    #[case("", None)]
    #[case("99999999999999999999h", None)]
    fn seconds_are_parsed_with_and_without_units(#[case] text: &str, #[case] read: Option<u64>) {
        assert_eq!(seconds(text).ok(), read);
    }

    #[rstest]
    #[case("5", Some(0.05))]
    #[case("5%", Some(0.05))]
    #[case(" 5 % ", Some(0.05))]
    #[case("0,5%", Some(0.005))]
    #[case("-1", Some(-0.01))]
    #[case("", None)]
    #[case("%", None)]
    #[case("NaN", None)]
    #[case("inf", None)]
    #[case("5 percent", None)]
    fn a_percentage_is_parsed_into_a_share(#[case] text: &str, #[case] share: Option<f64>) {
        assert_eq!(percent(text), share);
    }

    #[test]
    fn a_duration_requires_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert!(duration("90").is_err() && duration("-5s").is_err());
    }
}
