//! When the next slice may run: the pace with its limits, the latency probe, the guard that backs off, and the reasons to
//! throttle.

mod baseline;
mod clients;
mod cost;
mod guard;
mod load;
mod pace;
mod probe;
mod profile;
mod queries;
mod reasons;
mod reply_cap;
mod signal;
mod throttle;
mod waits;

pub use self::pace::{Decision, Pace};
pub(crate) use self::{
    profile::PrimaryProfile,
    throttle::{Next, StartedSlice, Throttle, ThrottleContext},
};
