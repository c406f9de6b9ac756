//! What a sweep may take of a primary: the limits of a pace, and the named presets.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// How far the presets let the p90 of a PING rise.
const GUARD: Duration = Duration::from_millis(1);

/// What a sweep may take of a primary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Share of the primary's main thread, 0–1.
    #[serde(alias = "duty")]
    pub max_cpu: f64,
    /// Longest time that one slice should block other clients.
    pub max_slice: Duration,
    /// The same over a path so long that slices take little of the time even so; `None`: as `max_slice` says.
    #[serde(default)]
    pub distant_slice: Option<Duration>,
    /// How far the p90 of a PING may rise above the p90 before the sweep; beyond it the sweep backs off. `None`: no limit.
    pub guard: Option<Duration>,
    /// Keys scanned a second, at most; `None`: as many as `max_cpu` allows.
    pub keys_per_second: Option<u64>,
    /// Keys reclaimed a second, at most; `None`: no limit.
    #[serde(alias = "releases_per_second")]
    pub reclaims_per_second: Option<u64>,
}

impl Limits {
    /// Cursors that walk through a database at once over a long path, at most.
    pub(crate) const CURSORS: u32 = 4;
    /// Share of the time below which the p90 of clients does not depend on how long slices are, 0–1.
    const SELDOM: f64 = 0.09;

    /// Share of the time that slices longer than the pause limit may take, 0–1: the cursors wait for the network for the rest, so
    /// that each has to bring more keys along.
    const IN_PART: f64 = 0.6;

    /// Part of a cursor's share of a round trip that lies between the starts of two slices, at least, 0–1. Sent together, or after each
    /// other, they would arrive within one iteration of the server's event loop, and clients would wait for all of them.
    const APART: f64 = 0.75;

    /// Returns the time between the starts of two slices over a path with this round trip, at least.
    pub(crate) fn spacing(round_trip: Duration) -> Duration {
        round_trip.mul_f64(Self::APART / f64::from(Self::CURSORS))
    }

    /// Returns the limits over a path with this round trip, on which as many slices as there are cursors run in each.
    ///
    /// A client that comes at any moment meets a slice with the probability of their share of the time, and waits for what is left of
    /// it: the p90 of these waits is the length of a slice minus a tenth of the time between the starts of two. With that tenth on top,
    /// slices of twice the pause limit let the p90 rise by no more than this.
    pub(crate) fn over(self, round_trip: Duration) -> Self {
        let each = |share: f64| round_trip.mul_f64(share / f64::from(Self::CURSORS));
        let longer = each(Self::IN_PART).min(2 * self.max_slice + each(Self::SELDOM));
        let longer = self.distant_slice.map(|longest| longest.min(longer));
        Self { max_slice: self.max_slice.max(longer.unwrap_or_default()), ..self }
    }
}

#[cfg(test)]
impl Limits {
    /// Returns a quarter of the main thread in slices of 200 µs.
    pub(crate) fn quarter() -> Self {
        Self { max_cpu: 0.25, max_slice: Duration::from_micros(200), distant_slice: None, ..Preset::Normal.limits() }
    }
}

/// A named set of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// 8 % of the main thread in slices of 250 µs, with backoff: for servers whose clients feel every microsecond. Below a tenth
    /// of the time the p90 of clients does not see a slice, whatever its length.
    Gentle,
    /// 80 % in slices of 90 µs, with backoff: for servers that serve. Clients wait no longer than one slice, however close together
    /// slices are, and a core that stays awake scans cheaper.
    #[default]
    Normal,
    /// All that clients leave in slices of 160 µs, with backoff: for quiet hours.
    Fast,
    /// The whole main thread in slices of 1 ms, without backoff: for a server without clients.
    Max,
}

impl Preset {
    /// All presets, the gentlest first.
    pub const ALL: [Self; 4] = [Self::Gentle, Self::Normal, Self::Fast, Self::Max];

    /// Returns the name on the command line, in the API and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gentle => "gentle",
            Self::Normal => "normal",
            Self::Fast => "fast",
            Self::Max => "max",
        }
    }

    /// Returns the limits of the preset.
    pub fn limits(self) -> Limits {
        let (max_cpu, micros, distant_micros, guard) = match self {
            Self::Gentle => (0.08, 250, 250, Some(GUARD)),
            Self::Normal => (0.8, 90, 600, Some(GUARD)),
            Self::Fast => (1.0, 160, 800, Some(GUARD)),
            Self::Max => (1.0, 1000, 1000, None),
        };
        let (max_slice, distant_slice) = (Duration::from_micros(micros), Some(Duration::from_micros(distant_micros)));
        Limits { max_cpu, max_slice, distant_slice, guard, keys_per_second: None, reclaims_per_second: None }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.as_str() == name)
            .ok_or_else(|| format!("invalid pace {name:?}: expected gentle, normal, fast or max"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_longer_over_a_path_on_which_they_take_less_of_the_time() {
        let normal = Preset::Normal.limits();
        let slice = |micros: u64| normal.over(Duration::from_micros(micros)).max_slice.as_micros();
        assert_eq!(
            [0, 500, 900, 1_300, 2_700, 8_000, 22_000, 500_000].map(slice),
            [90, 90, 135, 195, 240, 360, 600, 600]
        );
        for micros in (0..2_000).map(|tens| 10 * tens) {
            let (length, interval) = (slice(micros) as f64, micros as f64 / f64::from(Limits::CURSORS));
            let p90 = length - 0.1 * interval.max(length);
            assert!(p90 <= 180.0, "clients wait for {p90} µs over {micros} µs");
            assert!(length <= 90.0 || length / interval <= 0.6, "slices of {length} µs over {micros} µs");
        }
        let given = Limits { distant_slice: None, ..normal };
        assert_eq!(given.over(Duration::from_millis(22)).max_slice, normal.max_slice, "a given pause limit holds");
    }
}
