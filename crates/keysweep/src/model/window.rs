//! Maintenance windows: a time of day in a time zone, in which an instance may be scanned.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp,
    civil::{Date, Time},
    tz::TimeZone,
};

use super::{Instance, ScanType, Stored};

/// A window that opens and closes once a day, by the clocks of its time zone, daylight saving time included. A window
/// whose end is not after its beginning continues into the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    opens: Time,
    closes: Time,
    zone: TimeZone,
    zone_name: String,
}

/// A text that is not a maintenance window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid maintenance window {value:?}: {remedy}")]
pub struct WindowError {
    /// The text, shortened to 80 characters.
    pub value: String,
    /// What to write instead.
    pub remedy: &'static str,
}

impl FromStr for Window {
    type Err = WindowError;

    /// Reads `02:00-05:00 Europe/Paris`.
    fn from_str(value: &str) -> Result<Self, WindowError> {
        let wrong = |remedy| WindowError { value: value.chars().take(80).collect(), remedy };
        let form = "write it as 02:00-05:00 Europe/Paris";
        let (times, zone_name) = value.trim().split_once(' ').ok_or_else(|| wrong(form))?;
        // The dash that people type, and the one that their word processors make of it.
        let (opens, closes) = times.split_once(['-', '–']).ok_or_else(|| wrong(form))?;
        let time = |text: &str| {
            let is_short = text.len() == 5 && text.as_bytes()[2] == b':';
            is_short.then(|| Time::strptime("%H:%M", text).ok()).flatten().ok_or_else(|| wrong(form))
        };
        let (opens, closes) = (time(opens)?, time(closes)?);
        if opens == closes {
            return Err(wrong("it must not end when it begins; leave it out for all day"));
        }
        let zone_name = zone_name.trim();
        let zone = TimeZone::get(zone_name)
            .map_err(|_| wrong("its time zone is not known; write one as Europe/Paris, America/New_York or UTC"))?;
        Ok(Self { opens, closes, zone, zone_name: zone_name.to_owned() })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} {}", self.opens.strftime("%H:%M"), self.closes.strftime("%H:%M"), self.zone_name)
    }
}

impl Window {
    /// Returns whether the window is open.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.next_open(now) == now
    }

    /// Returns when the window is open next: now, if it is open.
    pub fn next_open(&self, now: Timestamp) -> Timestamp {
        let today = now.to_zoned(self.zone.clone()).date();
        // The day before, for a window that continues past midnight. A day on which the clocks skip the window has none.
        let days = today.yesterday().into_iter().chain(today.series(jiff::Span::new().days(1)).take(4));
        let next = days.filter_map(|day| self.on(day)).find(|(_, closes)| now < *closes);
        // Only at the end of the calendar is there no such day.
        next.map_or(Timestamp::MAX, |(opens, _)| opens.max(now))
    }

    /// Returns when the window opens and closes on a day; `None`: it stays closed.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        let last = if self.closes <= self.opens { day.tomorrow().ok()? } else { day };
        let at = |day: Date, time: Time| Some(day.to_datetime(time).to_zoned(self.zone.clone()).ok()?.timestamp());
        let (opens, closes) = (at(day, self.opens)?, at(last, self.closes)?);
        (opens < closes).then_some((opens, closes))
    }
}

impl Instance {
    /// Returns when a task of this kind may run, where the window binds it and is closed.
    ///
    /// A window that cannot be read counts as open here, so that a worker claims the task; the worker then ends the task
    /// with the field as the reason (see [`Instance::blocking_field`]).
    pub fn closed_until(&self, scan_type: ScanType, now: Timestamp) -> Option<Timestamp> {
        closed_until(self.window.as_ref(), self.window_binds_manual, scan_type, now)
    }
}

/// Returns the same for an instance of which only the window is known.
pub fn closed_until(
    window: Option<&Stored<Window>>,
    binds_manual: bool,
    scan_type: ScanType,
    now: Timestamp,
) -> Option<Timestamp> {
    if scan_type == ScanType::Manual && !binds_manual {
        return None;
    }
    let opens = window?.value().ok()?.next_open(now);
    (opens > now).then_some(opens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn window(text: &str) -> Window {
        text.parse().expect("a window")
    }

    #[test]
    fn a_window_is_written_as_it_is_read() {
        for text in ["02:00-05:00 Europe/Paris", "22:30-04:15 UTC"] {
            assert_eq!(window(text).to_string(), text);
        }
        assert_eq!(window("02:00–05:00 Europe/Paris"), window("02:00-05:00 Europe/Paris"));
    }

    #[test]
    fn what_is_no_window_is_refused_with_the_remedy() {
        for text in [
            "",
            "02:00-05:00",
            "2-5 UTC",
            "02:00-25:00 UTC",
            "02:00 UTC",
            "02:00-05:00 Mars/Olympus",
            "02:00-02:00 UTC",
        ] {
            let error = text.parse::<Window>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn it_opens_and_closes_by_the_clocks_of_its_zone() {
        let window = window("02:00-05:00 Europe/Paris");
        let cases = [
            ("2026-01-15T00:59:59Z", "2026-01-15T01:00:00Z"),
            ("2026-01-15T01:00:00Z", "2026-01-15T01:00:00Z"),
            ("2026-01-15T03:59:59Z", "2026-01-15T03:59:59Z"),
            ("2026-01-15T04:00:00Z", "2026-01-16T01:00:00Z"),
            // In summer an hour earlier.
            ("2026-07-15T04:00:00Z", "2026-07-16T00:00:00Z"),
        ];
        for (now, next) in cases {
            assert_eq!(window.next_open(time(now)), time(next), "{now}");
            assert_eq!(window.is_open(time(now)), now == next, "{now}");
        }
    }

    #[test]
    fn one_that_crosses_midnight_is_open_on_both_sides() {
        let window = window("22:00-04:00 UTC");
        for now in ["2026-01-15T22:00:00Z", "2026-01-15T23:59:59Z", "2026-01-16T03:59:59Z"] {
            assert!(window.is_open(time(now)), "{now}");
        }
        assert_eq!(window.next_open(time("2026-01-16T04:00:00Z")), time("2026-01-16T22:00:00Z"));
    }

    #[test]
    fn a_night_on_which_the_clocks_change_is_as_long_as_its_clocks_say() {
        // 29 March 2026: 02:00 becomes 03:00 in Paris. 25 October: 03:00 becomes 02:00.
        let spring = window("02:00-05:00 Europe/Paris");
        assert_eq!(spring.next_open(time("2026-03-29T00:30:00Z")), time("2026-03-29T01:00:00Z"));
        assert!(spring.is_open(time("2026-03-29T02:59:59Z")) && !spring.is_open(time("2026-03-29T03:00:00Z")));
        let autumn = window("02:00-05:00 Europe/Paris");
        assert!(autumn.is_open(time("2026-10-25T00:00:00Z")) && autumn.is_open(time("2026-10-25T03:59:59Z")));
        assert!(!autumn.is_open(time("2026-10-24T23:59:59Z")) && !autumn.is_open(time("2026-10-25T04:00:00Z")));
    }

    #[test]
    fn a_night_on_which_the_clocks_skip_all_of_it_has_none() {
        let window = window("02:00-03:00 Europe/Paris");
        assert_eq!(window.next_open(time("2026-03-29T00:00:00Z")), time("2026-03-30T00:00:00Z"));
    }
}
