//! RDB files, read for their stale keys. A file holds the keys that were stale when it was written, so that a backup of a
//! server that cannot be reached is a census of it. Keys and values are skipped, never kept.
//!
//! Reads the files of Redis 6.2 to 8.2 and Valkey 7.2 to 9.1.

mod census;
mod reader;
mod values;

pub use self::{
    census::{Census, DatabaseCensus, census},
    reader::RdbError,
};
