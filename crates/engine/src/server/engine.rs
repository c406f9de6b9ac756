//! Engines that speak the protocol of Redis and gain nothing from a scan: they delete expired keys in ways of their own.

use super::check::{Check, ENGINE, Verdict};
use crate::link::{Info, Link, LinkError};

/// Returns why an engine gains nothing from a scan, a sentence; `None`: it may gain something. `engine`: its name as
/// [`Info::engine`](crate::link::Info::engine) has it.
pub fn gains_nothing(engine: &str) -> Option<&'static str> {
    Some(match engine {
        "dragonfly" => "Dragonfly gains nothing from a scan: each of its threads deletes expired keys by itself",
        "kvrocks" => {
            "Kvrocks gains nothing from a scan: its keys are on disk, and expired ones go when RocksDB compacts its files"
        }
        "garnet" => {
            "Garnet gains nothing from a scan: SCAN deletes no expired key there, and EXPDELSCAN is its own command for them"
        }
        _ => return None,
    })
}

/// Refuses a server whose engine gains nothing from a scan; `None`: it is another one, or refuses INFO.
pub(crate) fn engine_refusal(link: &mut Link) -> Result<Option<Check>, LinkError> {
    Ok(link.info(&["server"])?.and_then(|info| engine_check(&info)))
}

/// Returns the refusal of a server whose engine gains nothing from a scan.
pub(super) fn engine_check(info: &Info) -> Option<Check> {
    let finding = gains_nothing(info.engine())?;
    Some(Check::with_remedy(Verdict::Refused, ENGINE, finding, "scan Redis and Valkey servers only"))
}
