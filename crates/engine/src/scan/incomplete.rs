//! Failures of a scan that ran to the end, or would run for ever, without having visited every key.

use super::{end_check::MissingKeys, runaway::RunawayKind};
use crate::{
    failure::{Failure, FailureKind},
    target::Address,
};

/// Returns the failure of a scan that left keys out in every pass; `None`: no key is missing.
pub(super) fn failure_of_missing_keys(address: &Address, missing: &[MissingKeys]) -> Option<Failure> {
    let sentence = || {
        format!(
            "{address} neither returned nor deleted {}, in every pass; expiry may be paused (CLIENT PAUSE, a failover, import-mode): scan again later",
            in_databases(missing)
        )
    };
    (!missing.is_empty()).then(|| Failure::new(FailureKind::Incomplete, sentence()))
}

fn in_databases(missing: &[MissingKeys]) -> String {
    let place = |MissingKeys { database, keys, removed }: &MissingKeys| {
        let noun = if *keys == 1 { "key" } else { "keys" };
        let explained = match removed {
            Some(removed) if *removed > 0 => format!(" (of which others removed {removed} at most)"),
            _ => String::new(),
        };
        format!("{keys} {noun} in database {database}{explained}")
    };
    missing.iter().map(place).collect::<Vec<_>>().join(" and ")
}

/// Returns the warning about keys that the last pass left out, but that clients may have removed; `None`: there are none.
pub(super) fn warning_of_missing_keys(address: &Address, missing: &[MissingKeys]) -> Option<String> {
    (!missing.is_empty()).then(|| {
        format!(
            "{address} neither returned nor deleted {}; clients that add and delete keys meanwhile may explain it: for proof, scan again at a quieter time",
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
        RunawayKind::Unsized { asked } => {
            format!("SCAN has not ended after it was asked for {asked} keys, twice as many as a server can hold")
        }
        RunawayKind::Empty { calls } => format!("SCAN has not ended after {calls} calls in a row without a key"),
    };
    let sentence = format!(
        "the scan of database {database} of {address} comes to no end: {finding}; check what answers at this address"
    );
    Failure::new(FailureKind::Incomplete, sentence)
}
