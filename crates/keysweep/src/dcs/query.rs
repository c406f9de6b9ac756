//! Query parameters and the values that they accept.

use super::error::DcsError;
use crate::request::query_value;

/// The query of a request, still encoded.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(pub(super) String);

impl Query {
    /// Returns the first value of a parameter, decoded.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        query_value(&self.0, name)
    }

    /// Returns `offset`: how many entries to skip [default: 0].
    pub(super) fn offset(&self) -> Result<u64, DcsError> {
        // The databases count in signed 64 bits.
        Ok(self.number("offset", 0)?.min(i64::MAX as u64))
    }

    /// Returns `limit`: the largest number of entries to return, 1–1000.
    pub(super) fn limit(&self, default: u64) -> Result<u64, DcsError> {
        let limit = self.number("limit", default)?;
        (1..=1000).contains(&limit).then_some(limit).ok_or(DcsError::Parameter("limit"))
    }

    fn number(&self, name: &'static str, default: u64) -> Result<u64, DcsError> {
        self.value(name).map_or(Ok(default), |digits| digits.parse().map_err(|_| DcsError::Parameter(name)))
    }
}
