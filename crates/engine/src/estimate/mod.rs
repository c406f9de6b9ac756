//! Estimates how many keys are stale and how many bytes they take, by the most reliable method that a target allows.

mod advice;
mod backup;
mod cycle;
mod limit;
mod monitor;
mod places;
mod primary;
mod replica;
mod report;
mod request;
mod rights;
mod sample;
mod slots;

pub use self::{
    advice::Verdict,
    backup::estimate_rdb,
    cycle::Cycle,
    limit::{MIN_SAMPLE_INTERVAL, SampleLimit, ServerProcess},
    monitor::{Monitor, Step},
    primary::estimate,
    report::{DatabaseEstimate, Estimate, Finding, Method, PrimaryEstimate},
    request::Request,
    rights::KnownRights,
};
pub(crate) use self::{limit::sample_interval, sample::sample_share};
