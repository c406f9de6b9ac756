//! Everything that opening a link to a node takes.

use super::origin::{error_of_node, error_of_sentinel};
use crate::{
    failure::ShardError,
    link::{Dialer, Link, LinkError, ToSentinels},
    stop::Stop,
    target::{Address, Credentials, Target},
};

/// Opens links to the nodes of one target.
#[derive(Clone, Copy)]
pub(crate) struct Connector<'a> {
    pub dialer: &'a dyn Dialer,
    pub target: &'a Target,
    /// Name of the connections in `CLIENT LIST`.
    pub client_name: &'a str,
    pub stop: &'a Stop,
}

impl<'a> Connector<'a> {
    /// Opens a link to a data node.
    pub fn open(&self, address: &Address) -> Result<Link, LinkError> {
        Link::open(self.dialer, address, &self.target.credentials, self.client_name, self.stop)
    }

    /// Opens a link to a data node. The error says where the address comes from.
    pub fn open_node(&self, address: &Address) -> Result<Link, ShardError> {
        self.open(address).map_err(|error| error_of_node(address, error, self.target))
    }

    /// Opens a link to a Sentinel, which has credentials of its own.
    pub fn open_sentinel(&self, address: &Address, credentials: &Credentials) -> Result<Link, ShardError> {
        Link::open(&ToSentinels(self.dialer), address, credentials, self.client_name, self.stop)
            .map_err(|error| error_of_sentinel(address, error, self.target))
    }

    /// Returns the same connector with another stop.
    pub fn with_stop<'b>(self, stop: &'b Stop) -> Connector<'b>
    where
        'a: 'b,
    {
        Connector { stop, ..self }
    }
}
