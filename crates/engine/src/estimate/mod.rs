//! Estimates how many keys are stale and how many bytes they take, by the most reliable method that a target allows.

mod advice;
mod backup;
mod cycle;
mod places;
mod primary;
mod replica;
mod report;
mod request;
mod rights;
mod sample;
mod slots;

pub(crate) use self::sample::sample_share;
pub use self::{
    advice::Verdict,
    backup::estimate_rdb,
    cycle::Cycle,
    primary::estimate,
    report::{DatabaseEstimate, Estimate, Finding, Method, PrimaryEstimate},
    request::Request,
    rights::KnownRights,
};
