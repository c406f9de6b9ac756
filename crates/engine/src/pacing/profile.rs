//! What is known of a primary before its first slice, kept from one connection to the next.

use std::{collections::BTreeSet, time::Duration};

use super::reply_cap::ReplyCap;

/// Profile of a primary.
#[derive(Debug, Clone, Default)]
pub(crate) struct PrimaryProfile {
    /// The p90 of a PING before the first slice.
    pub baseline_p90: Option<Duration>,
    /// Seconds of SCAN for each unit of COUNT, as the server reported on an earlier connection.
    pub cost_per_unit: Option<f64>,
    /// Replicas that were attached at the start.
    pub replicas: Option<usize>,
    /// Whether slices run without a transaction, because the server deletes no expired key in one.
    pub plain_slices: bool,
    /// Whether scans run forward, because cursors are no positions in a table.
    pub distrusts_chunks: bool,
    /// Databases that are scanned forward, because every scan in chunks left keys out.
    pub forward_databases: BTreeSet<u32>,
    /// The largest COUNT whose replies the server delivers.
    pub reply_cap: ReplyCap,
    /// The server's limit that closes connections with larger replies, once it is known.
    pub reply_limit: Option<String>,
    /// The limit that the pre-flight checks set; `None`: they have not run.
    checked: Option<Checked>,
}

#[derive(Debug, Clone, Copy)]
struct Checked {
    reclaims_cap: Option<u64>,
}

impl PrimaryProfile {
    /// Whether the pre-flight checks have run.
    pub fn is_checked(&self) -> bool {
        self.checked.is_some()
    }

    /// Whether a database is scanned forward, whatever the order of the server's own expiry cycle.
    pub fn forces_forward(&self, database: u32) -> bool {
        self.distrusts_chunks || self.forward_databases.contains(&database)
    }

    /// Records that the checks have run, and the reclaims a second that they allow at most.
    pub fn set_checked(&mut self, reclaims_cap: Option<u64>) {
        self.checked = Some(Checked { reclaims_cap });
    }

    /// Returns the reclaims a second that the checks allow at most.
    pub fn reclaims_cap(&self) -> Option<u64> {
        self.checked?.reclaims_cap
    }
}
