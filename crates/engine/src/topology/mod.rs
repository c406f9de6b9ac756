//! From a target to the primaries that own its keys. SCAN on a replica succeeds and deletes nothing, so finding the
//! primaries, and noticing that they are such no longer, decides whether a sweep does anything at all.

mod cluster;
mod sentinel;
mod slots;

use std::time::Duration;

pub use self::slots::SlotSet;
use crate::{
    failure::{Failure, FailureKind, Trouble},
    link::{Dialer, Info, Link, LinkError, Reply, RoleView},
    stop::Stop,
    tables::find_database,
    target::{Address, Credentials, Mode, Target},
};

/// Replicas of replicas exist; longer chains than this are somebody's mistake, or a ring.
const MAX_HOPS: usize = 4;

/// How long a node may take to describe the topology: others know it as well.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// All that it takes to open a link to a node.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub dialer: &'a dyn Dialer,
    pub target: &'a Target,
    /// What `CLIENT LIST` shows.
    pub client_name: &'a str,
    pub stop: &'a Stop,
}

impl<'a> Access<'a> {
    /// Opens a link to a data node.
    pub fn open(&self, address: &Address) -> Result<Link, LinkError> {
        self.open_as(address, &self.target.credentials)
    }

    fn open_as(&self, address: &Address, credentials: &Credentials) -> Result<Link, LinkError> {
        Link::open(self.dialer, address, credentials, self.client_name, self.stop)
    }

    /// The same, for somebody with a stop of their own.
    pub fn with_stop<'b>(self, stop: &'b Stop) -> Access<'b>
    where
        'a: 'b,
    {
        Access { stop, ..self }
    }
}

/// A primary, found and connected to.
pub(crate) struct Primary {
    pub address: Address,
    pub link: Link,
    /// What it said of its role; `Unknown`: it is taken for a primary, for want of anything better.
    pub role: RoleView,
}

/// Where a primary is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub address: Address,
    /// The slots that it owns; empty outside of clusters.
    pub slots: SlotSet,
    /// Its replicas, as far as the topology names them.
    pub replicas: Vec<Address>,
}

impl Place {
    /// Whether it is this address, as it stands in the books.
    pub fn is_at(&self, address: &str) -> bool {
        self.address.to_string() == address
    }
}

/// Finds out where the primaries are, again and again, from whoever answers.
pub(crate) struct Scout<'a> {
    access: Access<'a>,
    /// The node or Sentinel that answered last.
    link: Option<(Address, Link)>,
    /// Nodes that were heard of beside the seeds.
    heard_of: Vec<Address>,
    /// One whose answer turned out not to be so.
    distrusted: Option<Address>,
}

impl<'a> Scout<'a> {
    pub fn new(access: Access<'a>) -> Self {
        Self { access, link: None, heard_of: Vec::new(), distrusted: None }
    }

    /// Asks until one answers. An error is that of the first who could not.
    pub fn look(&mut self) -> Result<Vec<Place>, Trouble> {
        let target = self.access.target;
        if matches!(target.mode, Mode::Server) {
            let place = Place { address: target.seed().clone(), slots: SlotSet::default(), replicas: Vec::new() };
            return Ok(vec![place]);
        }
        let (mut trouble, mut partial) = (None, None);
        let last = self.link.as_ref().map(|(address, _)| address.clone());
        let others = target.seeds.iter().chain(&self.heard_of).filter(|address| Some(*address) != last.as_ref());
        let mut candidates: Vec<Address> = last.iter().chain(others).cloned().collect();
        candidates.sort_by_key(|address| Some(address) == self.distrusted.as_ref());
        for address in candidates {
            match self.ask(&address) {
                Ok((places, true)) => {
                    let nodes = places.iter().flat_map(|place| place.replicas.iter().chain([&place.address]));
                    self.heard_of = nodes.filter(|node| !target.seeds.contains(node)).cloned().collect();
                    return Ok(places);
                }
                Ok((places, false)) => drop(partial.get_or_insert(places)),
                Err(Trouble::Halted(kind)) => return Err(Trouble::Halted(kind)),
                Err(error) => {
                    trouble.get_or_insert(error);
                    // The next look begins with somebody else.
                    self.distrusted = Some(address);
                }
            }
            self.link = None;
        }
        let nobody = || Trouble::Away(Failure::new(FailureKind::Unreachable, "no node of the target is known"));
        partial.ok_or_else(|| trouble.unwrap_or_else(nobody))
    }

    /// Whether the answer is that of a node which sees the whole comes beside it.
    fn ask(&mut self, address: &Address) -> Result<(Vec<Place>, bool), Trouble> {
        let access = self.access;
        let (credentials, watched) = match &access.target.mode {
            Mode::Sentinel { name, credentials } => (credentials, Some(name)),
            _ => (&access.target.credentials, None),
        };
        if self.link.is_none() {
            let opened = access.open_as(address, credentials).map_err(|error| Trouble::at(address, error));
            let mut link = match watched {
                Some(_) => opened.map_err(|trouble| sentinel::denied(address, credentials, trouble))?,
                None => opened?,
            };
            link.be_patient_for(ANSWER_PATIENCE);
            self.link = Some((address.clone(), link));
        }
        let Some((_, link)) = &mut self.link else { return Ok((Vec::new(), false)) };
        match watched {
            Some(name) => sentinel::ask(link, address, name, access).map(|place| (vec![place], true)),
            None => cluster::describe(link, address, access),
        }
    }

    /// Turns to another one, if there is one: what the last one says is not so, or not any more.
    pub fn distrust(&mut self) {
        self.distrusted = self.link.take().map(|(address, _)| address);
    }
}

/// Finds the primary behind a server that the target names.
pub(crate) fn primary(access: Access<'_>) -> Result<Primary, Trouble> {
    let target = access.target;
    let mut address = target.seed().clone();
    for _ in 0..MAX_HOPS {
        let (role, link) = role(&address, access)?;
        match role {
            RoleView::Replica { host, port } => {
                let primary = target.address_map.dialled(Address { host, port });
                if !target.follow {
                    let sentence =
                        format!("{address} is a replica, where sweeping releases nothing; sweep its primary {primary}");
                    return Err(Trouble::Fatal(Failure::new(FailureKind::Refused, sentence)));
                }
                address = primary;
            }
            // On a replica SCAN succeeds and releases nothing: that would pass for a success.
            RoleView::Unknown => {
                let sentence = format!(
                    "{address} tells its role neither by ROLE nor by INFO, so that it may be a replica; grant +role or +info"
                );
                return Err(Trouble::Fatal(Failure::new(FailureKind::Denied, sentence)));
            }
            role => return with_database(Primary { address, link, role }, access),
        }
    }
    let sentence = format!(
        "{} leads through more than {MAX_HOPS} replicas and to no primary; name the primary itself",
        target.seed()
    );
    Err(Trouble::Fatal(Failure::new(FailureKind::Refused, sentence)))
}

/// All primaries of the target, connected to one after the other; each may be in trouble of its own.
pub(crate) fn primaries<'a>(
    access: Access<'a>,
) -> Result<impl Iterator<Item = Result<Primary, Trouble>> + use<'a>, Trouble> {
    let places = Scout::new(access).look()?;
    Ok(places.into_iter().map(move |place| match access.target.mode {
        Mode::Server => primary(access),
        _ => enter(&place.address, access),
    }))
}

/// Connects to the primary that is said to be at this address.
pub(crate) fn enter(address: &Address, access: Access<'_>) -> Result<Primary, Trouble> {
    match role(address, access)? {
        (RoleView::Replica { .. }, _) => Err(Trouble::Demoted),
        (role, link) => with_database(Primary { address: address.clone(), link, role }, access),
    }
}

fn with_database(mut primary: Primary, access: Access<'_>) -> Result<Primary, Trouble> {
    if let Some(database) = access.target.database {
        find_database(&mut primary, database)?;
    }
    Ok(primary)
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
        format!(
            "{address} is a Sentinel, which holds no keys; name what it watches, as in redis-sentinel://{address}/mymaster"
        ),
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
