//! Connecting to primaries and reading their roles.

use super::{connector::Connector, database::find_database, scout::Scout};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Info, Link, LinkError, Reply, RoleView},
    target::{Address, Mode},
};

/// Longest chain of replicas of replicas that is followed; longer ones are mistakes, or a ring.
const MAX_HOPS: usize = 4;

/// A primary that is connected to.
pub(crate) struct Primary {
    pub address: Address,
    pub link: Link,
    /// The role that it reports; `Unknown`: it reports none, and is treated as a primary.
    pub role: RoleView,
}

/// Connects to the primary behind the server that the target names.
pub(crate) fn primary(connector: Connector<'_>) -> Result<Primary, ShardError> {
    let target = connector.target;
    let mut address = target.seed().clone();
    for _ in 0..MAX_HOPS {
        let (role, link) = role(&address, connector)?;
        match role {
            RoleView::Replica { host, port } => {
                let primary = target.address_map.dialled(Address::tcp(host, port));
                if !target.follow {
                    let sentence =
                        format!("{address} is a replica, where a scan reclaims nothing; scan its primary {primary}");
                    return Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
                }
                address = primary;
            }
            // On a replica SCAN succeeds and deletes nothing: the scan would look successful.
            RoleView::Unknown => {
                let sentence = format!(
                    "{address} reports its role neither by ROLE nor by INFO and may be a replica; grant +role or +info"
                );
                return Err(ShardError::Fatal(Failure::new(FailureKind::Denied, sentence)));
            }
            role => return with_database(Primary { address, link, role }, connector),
        }
    }
    let sentence = format!(
        "{} leads through more than {MAX_HOPS} replicas and to no primary; name the primary itself",
        target.seed()
    );
    Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)))
}

/// Connects to all primaries of the target, one after the other; each may fail for itself.
pub(crate) fn primaries<'a>(
    connector: Connector<'a>,
) -> Result<impl Iterator<Item = Result<Primary, ShardError>> + use<'a>, ShardError> {
    let nodes = Scout::new(connector).refresh()?;
    Ok(nodes.into_iter().map(move |node| match connector.target.mode {
        Mode::Server => primary(connector),
        _ => connect(&node.address, connector),
    }))
}

/// Connects to the primary that the topology names at this address.
pub(crate) fn connect(address: &Address, connector: Connector<'_>) -> Result<Primary, ShardError> {
    match role(address, connector)? {
        (RoleView::Replica { .. }, _) => Err(ShardError::Demoted),
        (role, link) => with_database(Primary { address: address.clone(), link, role }, connector),
    }
}

fn with_database(mut primary: Primary, connector: Connector<'_>) -> Result<Primary, ShardError> {
    if let Some(database) = connector.target.database {
        find_database(&mut primary.link, &primary.address, database)?;
    }
    Ok(primary)
}

/// Connects to a node and asks for its role.
pub(crate) fn role(address: &Address, connector: Connector<'_>) -> Result<(RoleView, Link), ShardError> {
    let failed = |error| ShardError::at(address, error);
    let mut link = connector.open_node(address)?;
    let role = match link.call(&[b"ROLE"]) {
        Ok(reply) if is_sentinel(&reply) => return Err(ShardError::Fatal(no_data_node(address))),
        Ok(reply) => RoleView::read(&reply),
        Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => {
            role_from_info(&link.info(&["replication"]).map_err(failed)?.unwrap_or_default())
        }
        Err(error) => return Err(failed(error)),
    };
    Ok((role, link))
}

fn is_sentinel(role: &Reply) -> bool {
    matches!(role, Reply::Array(items) if items.first().and_then(Reply::text) == Some("sentinel"))
}

fn no_data_node(address: &Address) -> Failure {
    Failure::new(
        FailureKind::Unsupported,
        format!(
            "{address} is a Sentinel, which holds no keys; name the primary that it monitors, as in redis-sentinel://{address}/mymaster"
        ),
    )
}

/// Reads the role from INFO, where ROLE is refused.
fn role_from_info(replication: &Info) -> RoleView {
    match (replication.text("role"), replication.text("master_host"), replication.number("master_port")) {
        (Some("master"), ..) => RoleView::Primary { max_lag: 0, replicas: 0, addresses: Vec::new() },
        (Some("slave"), Some(host), Some(port)) => RoleView::Replica { host: host.to_owned(), port },
        _ => RoleView::Unknown,
    }
}
