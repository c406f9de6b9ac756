//! Where the address of a node comes from, which decides what helps when the node cannot be connected to: the URL, the
//! address map, or another node that announces it.

use crate::{
    failure::{ConnectFault, Failure, FailureKind, ShardError},
    link::LinkError,
    target::{Address, Mode, Target},
};

/// Where an address comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Url,
    AddressMap,
    Sentinels,
    Cluster,
    Replica,
}

impl Origin {
    fn of(address: &Address, target: &Target) -> Self {
        match target.mode {
            // Sentinels do not hold keys, so that their addresses are never those of data nodes.
            _ if target.seeds.contains(address) => Self::Url,
            _ if target.address_map.leads_to(address) => Self::AddressMap,
            Mode::Sentinel { .. } => Self::Sentinels,
            Mode::Cluster => Self::Cluster,
            Mode::Server => Self::Replica,
        }
    }

    /// Returns a clause about the address, with a comma before it.
    fn clause(self) -> &'static str {
        match self {
            Self::Url => "",
            Self::AddressMap => ", to which the address map leads",
            Self::Sentinels => ", which the Sentinels announce",
            Self::Cluster => ", which the cluster announces",
            Self::Replica => ", which the replica names as its primary",
        }
    }

    /// Returns what to do about an address that does not lead to the node from here.
    fn remedy(self, address: &Address) -> String {
        let host = address.host().unwrap_or_default();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Self::AddressMap => "correct the address map".into(),
            _ => format!("if it is another one from here, map it with --address-map {host}=HOST"),
        }
    }

    /// Returns what to do where a port of a data node does not speak TLS.
    fn plain_port_remedy(self) -> &'static str {
        match self {
            Self::Url => "use the scheme without the second s",
            Self::AddressMap => "map to a port that speaks TLS, or use the scheme without the second s",
            Self::Sentinels => {
                "use redis-sentinel:// with ?sentinel_tls=on if only the Sentinels speak TLS, or map to its TLS port with --address-map"
            }
            Self::Cluster => {
                "set tls-cluster yes on the nodes, which then announce their TLS ports, or map to these with --address-map"
            }
            Self::Replica => "map to its TLS port with --address-map",
        }
    }
}

/// Classifies the error of opening a link to a data node.
pub(super) fn error_of_node(address: &Address, error: LinkError, target: &Target) -> ShardError {
    let origin = Origin::of(address, target);
    let unreachable = |sentence: String| Failure::new(FailureKind::Unreachable, sentence);
    let clause = origin.clause();
    match error {
        LinkError::Name(cause) if origin != Origin::Url => ShardError::Unreachable(unreachable(format!(
            "cannot resolve the host name of {address}{clause} ({cause}); {}",
            origin.remedy(address)
        ))),
        LinkError::Connect(cause) if origin != Origin::Url => ShardError::Unreachable(unreachable(format!(
            "cannot connect to {address}{clause}: {cause}; check that the server is running, and {}",
            origin.remedy(address)
        ))),
        LinkError::PlainPort => {
            let sentence = format!(
                "no encrypted connection to {address}{clause}: the server does not speak TLS on this port; {}",
                origin.plain_port_remedy()
            );
            ShardError::Fatal(unreachable(sentence).with_fault(ConnectFault::Tls))
        }
        error if may_require_tls(&error) && matches!(target.mode, Mode::Sentinel { .. }) => {
            let hint = "; if only the data nodes require TLS, use rediss-sentinel:// with ?sentinel_tls=off";
            with_hint(ShardError::at(address, error), if target.tls.is_none() { hint } else { "" })
        }
        error => ShardError::at(address, error),
    }
}

/// Classifies the error of opening a link to a Sentinel.
pub(super) fn error_of_sentinel(address: &Address, error: LinkError, target: &Target) -> ShardError {
    match error {
        LinkError::PlainPort => {
            let sentence = format!(
                "no encrypted connection to the Sentinel {address}: it does not speak TLS on this port; use --sentinel-tls off, in the URL ?sentinel_tls=off"
            );
            ShardError::Fatal(Failure::new(FailureKind::Unreachable, sentence).with_fault(ConnectFault::Tls))
        }
        error if may_require_tls(&error) && target.sentinel_tls().is_none() => {
            let hint = "; if the Sentinels require TLS, use --sentinel-tls on, in the URL ?sentinel_tls=on";
            with_hint(ShardError::at(address, error), hint)
        }
        error => ShardError::at(address, error),
    }
}

/// Whether a server that requires TLS answers so to a connection without it.
fn may_require_tls(error: &LinkError) -> bool {
    matches!(error, LinkError::Closed | LinkError::TimedOut(_) | LinkError::Protocol(_))
}

fn with_hint(error: ShardError, hint: &str) -> ShardError {
    let hinted = |failure: Failure| Failure { message: failure.message + hint, ..failure };
    match error {
        ShardError::Unreachable(failure) => ShardError::Unreachable(hinted(failure)),
        ShardError::Fatal(failure) => ShardError::Fatal(hinted(failure)),
        error => error,
    }
}
