//! Connecting to primaries and reading their roles.

use super::{connector::Connector, database::find_database, node::PrimaryNode, scout::Scout};
use crate::{
    address::is_host,
    failure::{ConnectFault, Failure, FailureKind, ShardError},
    link::{ACTIVE_REPLICA, Info, Link, LinkError, Reply, RoleView},
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
    for _ in 0..=MAX_HOPS {
        let (role, link) = role(&address, connector)?;
        match role {
            RoleView::Replica { host, port, .. } => {
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
                let failure = Failure::new(FailureKind::Denied, sentence).with_fault(ConnectFault::Permission);
                return Err(ShardError::Fatal(failure));
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
        _ => connect(&node, connector),
    }))
}

/// Connects to a primary that the topology names.
pub(crate) fn connect(node: &PrimaryNode, connector: Connector<'_>) -> Result<Primary, ShardError> {
    match node_role(node, connector)? {
        (RoleView::Replica { .. }, _) => Err(ShardError::Demoted),
        (role, link) => with_database(Primary { address: node.address.clone(), link, role }, connector),
    }
}

/// Connects to a node that the topology names, and asks for its role.
pub(crate) fn node_role(node: &PrimaryNode, connector: Connector<'_>) -> Result<(RoleView, Link), ShardError> {
    let mut link = node.open(connector)?;
    Ok((ask_role(&mut link, &node.address)?, link))
}

fn with_database(mut primary: Primary, connector: Connector<'_>) -> Result<Primary, ShardError> {
    if let Some(database) = connector.target.database {
        find_database(&mut primary.link, &primary.address, database)?;
    }
    Ok(primary)
}

/// Connects to a server and asks for its role.
pub(crate) fn role(address: &Address, connector: Connector<'_>) -> Result<(RoleView, Link), ShardError> {
    let mut link = connector.open_node(address)?;
    Ok((ask_role(&mut link, address)?, link))
}

fn ask_role(link: &mut Link, address: &Address) -> Result<RoleView, ShardError> {
    let failed = |error| ShardError::at(address, error);
    Ok(match link.call_optional(&[b"ROLE"]) {
        Ok(Some(reply)) if is_sentinel(&reply) => return Err(ShardError::Fatal(no_data_node(address))),
        Ok(Some(reply)) => RoleView::read(&reply),
        Ok(None) => role_from_info(&link.info(&["replication"]).map_err(failed)?.unwrap_or_default()),
        Err(LinkError::Closed) => return Err(failed(LinkError::ClosedAt("ROLE"))),
        Err(error) => return Err(failed(error)),
    })
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
        (Some("master" | ACTIVE_REPLICA), ..) => RoleView::PRIMARY,
        (Some("slave"), Some(host), Some(port)) if is_host(host) => {
            let in_sync = replication.text("master_link_status").is_none_or(|status| status == "up");
            RoleView::Replica { host: host.to_owned(), port, in_sync }
        }
        _ => RoleView::Unknown,
    }
}
