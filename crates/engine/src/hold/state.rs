//! What holding a primary is doing, for reports.

use serde::{Deserialize, Serialize};

use crate::stale::{CycleSetting, Share};

/// State of a primary whose stale share is to be held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldState {
    /// Nothing is held, and the server has its own settings.
    #[default]
    Off,
    /// Too little is known yet to decide.
    Measuring,
    /// A batch has expired; a scan removes it before any setting is raised.
    Scanning,
    /// A setting was written, and the share still moves.
    Settling,
    /// The share is below the target.
    Holding,
    /// A setting would hold the target; the level, or the model, allows no write.
    Advising,
    /// The limits are reached, and the share is above the target.
    CannotHold,
    /// A limit was broken, or the server is busy with other things: it has its own settings for a while.
    BackingOff,
    /// A setting has a value that is neither the server's own nor what keysweep wrote last; nothing more is written.
    Foreign,
    /// The server's own settings are being restored.
    Restoring,
}

impl HoldState {
    /// All states.
    pub const ALL: [Self; 10] = [
        Self::Off,
        Self::Measuring,
        Self::Scanning,
        Self::Settling,
        Self::Holding,
        Self::Advising,
        Self::CannotHold,
        Self::BackingOff,
        Self::Foreign,
        Self::Restoring,
    ];

    /// Returns the name in reports, metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Measuring => "measuring",
            Self::Scanning => "scanning",
            Self::Settling => "settling",
            Self::Holding => "holding",
            Self::Advising => "advising",
            Self::CannotHold => "cannot_hold",
            Self::BackingOff => "backing_off",
            Self::Foreign => "foreign",
            Self::Restoring => "restoring",
        }
    }
}

/// What is known of a primary whose stale share is to be held. Shares are of all keys, 0–1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// The state.
    pub state: HoldState,
    /// What is done and why, one sentence.
    pub sentence: String,
    /// The last sample of the stale share.
    pub share: Option<Share>,
    /// The age of that sample, seconds.
    #[serde(default)]
    pub share_seconds: Option<f64>,
    /// The stale share that the current setting holds, by the model.
    pub expected: Option<f64>,
    /// The stale share that the server's own setting would hold, by the model.
    pub without: Option<f64>,
    /// Keys that expire a second.
    pub rate: Option<f64>,
    /// Settings of the cycle now (`CONFIG GET`).
    pub setting: Option<CycleSetting>,
    /// The server's own settings.
    pub baseline: Option<CycleSetting>,
    /// The setting that would hold the target, if it is not written.
    pub advised: Option<CycleSetting>,
    /// Seconds for which one cycle blocks clients, measured.
    pub stall_seconds: Option<f64>,
    /// Share of the main thread that the cycle takes, measured.
    pub cycle_cpu: Option<f64>,
}

impl HoldStatus {
    /// Whether the server has other settings than its own.
    pub fn differs(&self) -> bool {
        self.setting.is_some() && self.baseline.is_some() && self.setting != self.baseline
    }
}
