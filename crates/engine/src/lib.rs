//! keysweep's engine: reclaims the memory that expired keys hold in live Redis and Valkey servers.
//!
//! A library of its own: plain blocking code, no HTTP, no SQL, no global state. A [`Target`] and [`Options`] say what to
//! sweep and how, a [`Monitor`] receives the progress, and a [`Stop`] ends the sweep.
//!
//! ```no_run
//! use keysweep_engine::{Options, Stop, Target, sweep};
//!
//! let target: Target = "redis://127.0.0.1:6379".parse()?;
//! let report = sweep(&target, &Options::default(), &(), &Stop::new());
//! println!("{} of {} keys were stale", report.totals.keys_reclaimed, report.totals.keys_scanned);
//! # Ok::<(), keysweep_engine::TargetError>(())
//! ```

mod address;
mod estimate;
mod failure;
mod hold;
mod limits;
pub mod link;
mod monitor;
mod options;
mod pacing;
pub mod rdb;
mod record;
mod scan;
mod server;
mod speed;
pub mod stale;
mod stop;
mod target;
mod topology;
mod url;

pub use self::{
    estimate::{
        Cycle, DatabaseEstimate, Estimate, Finding, KnownRights, MIN_SAMPLE_INTERVAL, Method,
        Monitor as EstimateMonitor, PrimaryEstimate, Request as EstimateRequest, SampleLimit, ServerProcess,
        Step as EstimateStep, Verdict as PrimaryVerdict, estimate, estimate_rdb,
    },
    failure::{ConnectFault, Failure, FailureKind, REQUIRES_PASSWORD},
    hold::{
        Baseline, BaselineRecord, BaselineRegistry, Change, HoldState, HoldStatus, Holder, HolderHost,
        Level as HoldLevel, NodeStatus, Parameter, Policy as HoldPolicy, PolicyError, RecordedTimes, Reservation,
        RestoreOutcome, Restored, Values, restore,
    },
    limits::{Limits, Preset},
    monitor::Monitor,
    options::Options,
    pacing::{Decision, Pace},
    record::{
        Checkpoint, DatabaseCheckpoint, HotSlot, Order, Outcome, Position, ProbeSeconds, Progress, Quantiles,
        Remaining, Report, ShardCheckpoint, ShardProgress, ShardReport, ShardStatus, Tally, Throttled, Totals, eta,
        fraction,
    },
    scan::{MAX_SHARD_THREADS, sweep, sweep_through},
    server::{
        Check, ExpiredKeys, Holders, Inspection, LazyFreeRegistry, Verdict, check, gains_nothing, inspect,
        release_lazyfree,
    },
    stop::{Stop, StopOnDrop},
    target::{Address, AddressError, AddressMap, Credentials, Mode, SentinelTls, Target, TargetError, Tls},
    topology::SlotSet,
};
