//! One pre-flight check: a verdict and, where the operator can act on it, a remedy.

use serde::{Deserialize, Serialize};

/// Reclaims a second, at most, while clients receive an event for each.
pub(super) const RECLAIMS_WITH_SUBSCRIBERS: u64 = 10_000;
/// Name of the check for values that block the main thread while they are freed.
pub(super) const FREEING: &str = "freeing";
/// Name of the check for engines that gain nothing from a scan.
pub(super) const ENGINE: &str = "engine";
/// Name of the check that sets that limit.
pub(super) const SUBSCRIBERS: &str = "subscribers";

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No obstacle.
    Ok,
    /// The scan will be slower.
    Slower,
    /// The operator should know.
    Warning,
    /// The scan will not start.
    Refused,
}

impl Verdict {
    /// Returns the word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slower => "slower",
            Self::Warning => "warning",
            Self::Refused => "refused",
        }
    }
}

/// One pre-flight check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, in a word or two.
    pub name: String,
    /// Result.
    pub verdict: Verdict,
    /// What was found.
    pub finding: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Check {
    /// Returns a check without objection.
    pub(super) fn ok(name: &str, finding: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, finding: finding.into(), remedy: None }
    }

    /// Returns a check with this verdict and a remedy.
    pub(super) fn with_remedy(verdict: Verdict, name: &str, finding: impl Into<String>, remedy: &str) -> Self {
        Self { name: name.into(), verdict, finding: finding.into(), remedy: Some(remedy.into()) }
    }

    /// Whether the check is about large values that are freed in the main thread.
    pub(crate) fn is_about_freeing(&self) -> bool {
        self.name == FREEING
    }

    /// Whether the check refuses an engine that gains nothing from a scan.
    pub(crate) fn is_about_engine(&self) -> bool {
        self.name == ENGINE
    }

    /// Returns the limit of reclaims a second that the check sets, because clients receive an event for each.
    pub(crate) fn reclaims_cap(&self) -> Option<u64> {
        (self.name == SUBSCRIBERS && self.verdict == Verdict::Slower).then_some(RECLAIMS_WITH_SUBSCRIBERS)
    }
}
