//! How an estimate says what it is doing: one takes seconds on a primary, and minutes where it counts the keys of large replicas.

use std::{fmt::Debug, time::Duration};

use crate::target::Address;

/// What an estimate is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step<'a> {
    /// Measuring how fast keys expire, for this long at least.
    Expiry(Duration),
    /// Estimating one of the primaries of the target.
    Primary {
        /// Its address.
        address: &'a Address,
        /// Its number, from 1 on.
        number: usize,
        /// How many primaries there are.
        of: usize,
    },
    /// Counting the keys of a replica.
    Count {
        /// The replica.
        address: &'a Address,
        /// The part of them that is counted, 0–1.
        fraction: f64,
    },
}

/// Receives the steps of an estimate, from the thread that makes it.
pub trait Monitor: Debug + Send + Sync {
    /// Receives a step. Counts report each slice, so that this returns within microseconds.
    fn step(&self, step: Step<'_>);
}
