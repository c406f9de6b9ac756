//! What a sweep records: the state of each shard, and the checkpoint, progress and report that are made of it.

mod checkpoint;
mod cursor;
mod order;
mod progress;
mod remaining;
mod report;
mod shard;
mod tally;

#[cfg(test)]
pub(crate) use self::tally::examples;
pub(crate) use self::{
    checkpoint::VERSION,
    cursor::{Scale, in_slot},
    order::{Advance, Call, Speeds, Walk},
    remaining::Counters,
    report::outcome,
    shard::{Shard, ShardState, nanoseconds, quantiles},
    tally::Pass,
};
pub use self::{
    checkpoint::{Checkpoint, DatabaseCheckpoint, ShardCheckpoint},
    cursor::fraction,
    order::{HotSlot, Order, Position},
    progress::{Progress, ShardProgress, ShardStatus, eta},
    remaining::Remaining,
    report::{Outcome, ProbeSeconds, Quantiles, Report, ShardReport, Throttled, Totals},
    tally::Tally,
};
