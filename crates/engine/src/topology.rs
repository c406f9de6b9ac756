//! From a target to the primary that owns its keys. SCAN on a replica succeeds and deletes nothing, so finding the
//! primary, and noticing that it is one no longer, decides whether a sweep does anything at all.

use crate::{
    failure::{Failure, FailureKind, Trouble},
    link::{Dialer, Info, Link, LinkError, Reply, RoleView},
    stop::Stop,
    target::{Address, Credentials, Target},
};

/// Replicas of replicas exist; longer chains than this are somebody's mistake, or a ring.
const MAX_HOPS: usize = 4;

/// All that it takes to open a link to a node.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub dialer: &'a dyn Dialer,
    pub credentials: &'a Credentials,
    /// What `CLIENT LIST` shows.
    pub client_name: &'a str,
    pub stop: &'a Stop,
}

impl Access<'_> {
    fn open(&self, address: &Address) -> Result<Link, LinkError> {
        Link::open(self.dialer, address, self.credentials, self.client_name, self.stop)
    }
}

/// A primary, found and connected to.
pub(crate) struct Primary {
    pub address: Address,
    pub link: Link,
    /// What it said of its role; `Unknown`: it is taken for a primary, for want of anything better.
    pub role: RoleView,
}

/// Finds the primary behind the target's address.
pub(crate) fn primary(target: &Target, access: Access<'_>) -> Result<Primary, Trouble> {
    let mut address = target.address.clone();
    for _ in 0..MAX_HOPS {
        let (role, link) = role(&address, access)?;
        match role {
            RoleView::Replica { host, port } if target.follow => address = Address { host, port },
            RoleView::Replica { host, port } => {
                let primary = Address { host, port };
                let sentence =
                    format!("{address} is a replica, where sweeping releases nothing; sweep its primary {primary}");
                return Err(Trouble::Fatal(Failure::new(FailureKind::Refused, sentence)));
            }
            role => return Ok(Primary { address, link, role }),
        }
    }
    let sentence = format!(
        "{} leads through more than {MAX_HOPS} replicas and to no primary; name the primary itself",
        target.address
    );
    Err(Trouble::Fatal(Failure::new(FailureKind::Refused, sentence)))
}

/// Connects to a node and asks for its role.
pub(crate) fn role(address: &Address, access: Access<'_>) -> Result<(RoleView, Link), Trouble> {
    let trouble = |error| Trouble::at(address, error);
    let mut link = access.open(address).map_err(trouble)?;
    let role = match link.call(&[b"ROLE"]) {
        Ok(reply) if is_sentinel(&reply) => return Err(Trouble::Fatal(sentinel(address))),
        Ok(reply) => RoleView::read(&reply),
        Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => {
            role_from_info(&link.info(&["replication"]).map_err(trouble)?.unwrap_or_default())
        }
        Err(error) => return Err(trouble(error)),
    };
    Ok((role, link))
}

fn is_sentinel(role: &Reply) -> bool {
    matches!(role, Reply::Array(items) if items.first().and_then(Reply::text) == Some("sentinel"))
}

fn sentinel(address: &Address) -> Failure {
    Failure::new(
        FailureKind::Unsupported,
        format!("{address} is a Sentinel, which holds no keys; name the primary that it watches"),
    )
}

/// The role where ROLE itself is refused.
fn role_from_info(replication: &Info) -> RoleView {
    match (replication.text("role"), replication.text("master_host"), replication.number("master_port")) {
        (Some("master"), ..) => RoleView::Primary { max_lag: 0, replicas: 0, addresses: Vec::new() },
        (Some("slave"), Some(host), Some(port)) => RoleView::Replica { host: host.to_owned(), port },
        _ => RoleView::Unknown,
    }
}
