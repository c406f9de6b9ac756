//! What a server reports about itself and allows: pre-flight checks, permissions, its state, its databases, and the
//! setting for lazy frees. Nothing here reads a key.

mod check;
mod checks;
mod clock;
mod commands;
mod cycle;
mod distance;
mod engine;
mod forecast;
mod inquiry;
mod inspect;
mod keyspace;
mod lazyfree;
mod removals;
mod rights;
mod settings;
mod state;

pub use self::{
    check::{Check, Verdict},
    checks::check,
    engine::gains_nothing,
    inspect::{ExpiredKeys, Inspection, inspect},
    lazyfree::{Holders, LazyFreeRegistry, release_lazyfree},
};
pub(crate) use self::{
    checks::{examine, failed_save, out_of_memory},
    cycle::{
        CycleOrder, DEFAULT_DATABASES, FASTER, cycle_seconds, measure_expiry, reading, speeds, wake, wake_in_chunks,
    },
    engine::engine_refusal,
    inquiry::Inquiry,
    keyspace::{find_databases, has_per_slot_tables, slot_scale},
    lazyfree::{Acquired, acquire},
    removals::Removals,
    rights::Rights,
    settings::{ExpirySettings, ReplyLimit, Setting, config, reply_limit},
    state::{Asked, Expiry, ScanStatistics, ServerState},
};
#[cfg(test)]
pub(crate) use self::{commands::CommandTimes, removals::KeyspaceCounters, state::EventLoop};
