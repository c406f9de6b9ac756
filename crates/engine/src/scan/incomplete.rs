//! Failures of a scan that ran to the end, or would run for ever, without having visited every key.

use super::runaway::RunawayKind;
use crate::{
    failure::{Failure, FailureKind},
    target::Address,
};

/// Returns the failure of a scan that left keys out in every pass. `missing`: databases with the number of keys; `None`: no
/// key is missing.
pub(super) fn missing_keys(address: &Address, missing: &[(u32, u64)]) -> Option<Failure> {
    let sentence = || {
        format!(
            "{address} neither returned nor deleted {}, in every pass; expiry may be paused (CLIENT PAUSE, a failover, import-mode): scan again later",
            in_databases(missing)
        )
    };
    (!missing.is_empty()).then(|| Failure::new(FailureKind::Incomplete, sentence()))
}

fn in_databases(missing: &[(u32, u64)]) -> String {
    let places: Vec<String> =
        missing.iter().map(|(database, keys)| format!("{keys} keys in database {database}")).collect();
    places.join(" and ")
}

/// Returns the warning about keys that every pass left out, but that clients' writes may explain; `None`: there are none.
pub(super) fn unproven_keys(address: &Address, missing: &[(u32, u64)]) -> Option<String> {
    (!missing.is_empty()).then(|| {
        format!(
            "{address} neither returned nor deleted {}, in every pass; clients that add and delete keys meanwhile may explain it: for proof, scan again at a quieter time",
            in_databases(missing)
        )
    })
}

/// Returns the failure of a scan of a database whose cursor comes to no end.
pub(super) fn endless(address: &Address, database: u32, kind: RunawayKind) -> Failure {
    let finding = match kind {
        RunawayKind::Loop => "SCAN returned a cursor a second time".to_owned(),
        RunawayKind::Endless { visited, keys } => {
            format!("SCAN has not ended after {visited} keys, and the database holds {keys} keys")
        }
    };
    let sentence = format!(
        "the scan of database {database} of {address} comes to no end: {finding}; check what answers at this address"
    );
    Failure::new(FailureKind::Incomplete, sentence)
}
