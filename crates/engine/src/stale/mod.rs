//! The mathematics of stale keys: what the server's own expiry cycle holds, what a sample says, and which lever holds a
//! target. Pure: no clock, no I/O.
//!
//! Shares are 0–1, rates are keys a second, times are seconds.

mod bytes;
mod cost;
mod interval;
mod law;
mod reading;
mod replica_count;
mod sample;
mod steer;
mod verdict;
mod workload;

pub use self::{
    bytes::{BytesPerKey, BytesSlice, bytes_per_stale_key},
    cost::{CycleCost, reversion_seconds},
    interval::{
        MAX_INTERVAL, ScanInterval, even_growth, interval_from_rate, interval_from_regrowth, regrowth,
        shortest_interval, smoothed,
    },
    law::{CycleSetting, EFFORTS, MAX_EFFORT, MIN_EFFORT, MIN_LAW_KEYS},
    reading::{Reading, expiry_rate},
    replica_count::ReplicaCount,
    sample::{SamplePlan, Sampled, Share, SliceSample, average_of_slots, weighted_share},
    steer::{MAX_ADVISED_HZ, MAX_STALL, weakest_setting},
    verdict::{Advice, Basis, Code, Gap, advise},
    workload::{DatabaseLoad, Workload},
};
pub(crate) use self::{
    cost::MIN_CYCLE_SECONDS,
    sample::{MIN_SAMPLED_KEYS, MIN_SLICES, NORMAL},
    steer::{HZ_STEP, LIMIT_PART, next_hz},
    verdict::{MARGIN, is_batch, percent},
};
