//! The sweep itself: all primaries of a target, in a bounded number of threads, until the topology holds nothing unswept.

mod connections;
mod cursors;
mod database;
mod end_check;
mod fallback;
mod incomplete;
mod permits;
mod reporter;
mod retries;
mod run;
mod runaway;
mod sequence;
mod session;
mod shard_map;
mod slices;
mod summary;
mod sweeper;

pub use self::run::{MAX_SHARD_THREADS, sweep, sweep_through};
