//! Everything that is kept, in SQLite or PostgreSQL: one `Store` whose verbs stand in a file for each kind of row.
//!
//! Every verb is one transaction, none waits for a server, and none that changes a running task works without the task's
//! lease. A verb of one statement reads through `Store::reader`, one of several through `Store::snapshot`; a verb that
//! writes begins with `Store::begin`, or with `Store::begin_request` if requests call it, and ends with `Store::commit`, which
//! also inserts the audit entries of [`Store::with_audit`]. Without a commit nothing is kept.
//!
//! On SQLite one connection writes. On PostgreSQL verbs run at READ COMMITTED: a statement sees what was committed before it
//! began, and a row that it waits for as it is when the wait ends, but only that row. So a verb first locks the rows that it
//! relies on, and reads them afterwards. Instances are locked first, then schedules, leases, tasks, everywhere, so that
//! verbs wait for each other and never in a circle; a claim, which goes by leases, waits for none of them. Claims queue at a
//! lock of their own: which scans run, and where, is in many rows.

mod access_keys;
mod audit;
mod auto_scan;
mod claims;
mod clock;
mod db;
mod error;
mod estimates;
mod handle;
mod health;
mod held;
mod held_servers;
mod hold;
mod hosts;
mod instances;
mod inventory;
mod json;
mod lazyfree;
mod leases;
mod marks;
mod merge;
mod overview;
mod projects;
mod samples;
mod schedule;
mod secrets;
mod surveys;
mod tasks;
mod timing;
mod tokens;
mod users;

pub use self::{
    audit::AuditPage,
    claims::{Claim, ClaimLimits, MAX_ATTEMPTS},
    clock::{Clock, ClockDifference},
    db::{Import, OpenError, backup},
    error::StoreError,
    estimates::Pruned,
    handle::Store,
    held_servers::ServerReservation,
    hold::HoldRenewal,
    inventory::InstanceChanges,
    leases::{Heartbeat, HeartbeatOutcome, TaskResult},
    overview::{InstanceOverview, Overview},
    schedule::{DuePlans, Plan},
    secrets::{Resealed, SecretAt, SecretField},
    tasks::{Created, Page, PageRequest, ProjectPageRequest, ProjectTask},
    timing::{QueryMetrics, Timing},
    tokens::TokenBounds,
};
