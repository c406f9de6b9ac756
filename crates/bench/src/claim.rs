//! One claim of the benchmark: a measured figure and the bound that it is held against.

use serde::Serialize;

/// Side of the bound on which a figure must lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Side {
    /// At most the bound.
    #[serde(rename = "≤")]
    AtMost,
    /// At least the bound.
    #[serde(rename = "≥")]
    AtLeast,
}

/// A claim about one server.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// The claim in words.
    pub text: String,
    /// The measured figure; `None` if a scenario that it needs was not run.
    pub measured: Option<f64>,
    /// The side that meets the claim.
    pub side: Side,
    /// The bound.
    pub bound: f64,
    /// Unit of figure and bound; empty for ratios.
    pub unit: &'static str,
}

impl Claim {
    /// Returns a claim of a ratio that must not exceed the bound.
    pub fn at_most(text: impl Into<String>, measured: Option<f64>, bound: f64) -> Self {
        Self { text: text.into(), measured, side: Side::AtMost, bound, unit: "" }
    }

    /// Returns a claim of a ratio that must reach the bound.
    pub fn at_least(text: impl Into<String>, measured: Option<f64>, bound: f64) -> Self {
        Self { side: Side::AtLeast, ..Self::at_most(text, measured, bound) }
    }

    /// Returns the claim with a unit.
    pub fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// Returns whether the claim is met; `None` if it was not measured.
    pub fn is_met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.side {
            Side::AtMost => measured <= self.bound,
            Side::AtLeast => measured >= self.bound,
        })
    }
}
