//! keysweep's engine: releases the memory that expired keys hold in Redis and Valkey, gently, while clients go on.
//!
//! A library of its own: plain blocking code, no HTTP, no SQL, no global state. It hears what to do from a [`Target`]
//! and [`Options`], speaks through a [`Monitor`], and can be ended by a [`Stop`].
//!
//! ```no_run
//! use keysweep_engine::{Options, Stop, Target, sweep};
//!
//! let target: Target = "redis://127.0.0.1:6379".parse()?;
//! let report = sweep(&target, &Options::default(), &(), &Stop::new());
//! println!("{} of {} keys were dead", report.keys_released, report.keys_scanned);
//! # Ok::<(), keysweep_engine::TargetError>(())
//! ```

mod attempts;
mod checkpoint;
mod checks;
mod estimate;
mod failure;
mod guard;
mod inspect;
mod lazyfree;
mod ledger;
pub mod link;
mod look;
mod monitor;
mod pace;
mod permits;
mod probe;
mod progress;
mod report;
mod rhythm;
mod roster;
mod shard;
mod stop;
mod sweep;
mod tables;
mod tally;
mod target;
mod topology;
mod watch;

pub use self::{
    checkpoint::{Checkpoint, DatabaseCheckpoint, ShardCheckpoint},
    checks::{Check, Verdict, check},
    estimate::{Estimate, Method, estimate},
    failure::{Failure, FailureKind, WANTS_PASSWORD},
    inspect::{Inspection, inspect},
    lazyfree::{Holders, LazyFreeKeeper, let_go_lazyfree},
    monitor::Monitor,
    pace::{Limits, Pace, Preset, Step},
    progress::{Progress, ShardProgress, eta, fraction},
    report::{Held, Outcome, ProbeSeconds, Quantiles, Report, ShardReport},
    stop::Stop,
    sweep::{Options, sweep, sweep_through},
    tally::Tally,
    target::{Address, AddressMap, Credentials, Mode, Target, TargetError, Tls},
    topology::SlotSet,
};
