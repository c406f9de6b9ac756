//! How DCS describes an instance: its mode, status and nodes, as of the last poll.

use keysweep_engine::{Address, Mode};

use crate::model::Instance;

/// The unit of memory in answers.
pub(super) const MIB: u64 = 1024 * 1024;

/// Returns single, ha or cluster.
pub(super) fn mode(instance: &Instance) -> &'static str {
    let named = instance.url.value().map(|target| &target.mode);
    let is_cluster = instance.stats.as_ref().is_some_and(|stats| stats.cluster);
    match named {
        Ok(Mode::Cluster) => "cluster",
        _ if is_cluster => "cluster",
        Ok(Mode::Sentinel { .. }) => "ha",
        Ok(Mode::Server) | Err(_) => "single",
    }
}

/// Returns the instance's status as DCS names it.
pub(super) fn status(instance: &Instance) -> &'static str {
    match (instance.paused, &instance.stats) {
        (true, _) => "FROZEN",
        (false, Some(stats)) => {
            let is_ready = stats.unsupported().is_none() && instance.unreachable.is_none();
            if is_ready && instance.unreadable_fields().is_empty() { "RUNNING" } else { "ERROR" }
        }
        (false, None) => "ERROR",
    }
}

/// Returns the primaries of the last poll, one for each shard. Before the first poll, and for a single server, the nodes in
/// the instance's URL.
pub(super) fn primaries(instance: &Instance) -> Vec<Address> {
    let seen = instance.stats.as_ref().map_or(&[][..], |stats| &stats.primaries);
    let nodes = if seen.is_empty() || mode(instance) == "single" { instance.seeds() } else { seen };
    nodes.to_vec()
}

/// Returns what DCS shows as the IP address of a node: its host, or the path of its unix socket.
pub(super) fn ip(node: &Address) -> String {
    node.host().map_or_else(|| node.to_string(), str::to_owned)
}
