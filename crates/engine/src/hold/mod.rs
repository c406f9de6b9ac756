//! Holds the stale share of a server below a target: watches it, decides, raises and lowers two settings of its expiry cycle,
//! and restores them. The server's own settings are recorded before the first write.

mod action;
mod alarms;
mod baseline;
mod ceiling;
mod controller;
mod decision;
mod goal;
mod history;
mod holder;
mod host;
mod learned;
mod limits;
mod model;
mod node;
mod observation;
mod policy;
mod restore;
mod samples;
mod sentences;
mod signals;
#[cfg(test)]
mod simulated;
mod state;
mod steady;
mod surge;
mod times;
mod writer;
mod writes;

pub use self::{
    baseline::{Baseline, BaselineRecord, BaselineRegistry, Parameter, Values},
    holder::{Holder, NodeStatus},
    host::{Change, HolderHost, Reservation},
    policy::{Level, Policy, PolicyError},
    restore::{RestoreOutcome, Restored, restore},
    state::{HoldState, HoldStatus},
    times::RecordedTimes,
};
