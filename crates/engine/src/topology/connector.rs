//! Everything that opening a link to a node takes.

use crate::{
    link::{Dialer, Link, LinkError},
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
        self.open_as(address, &self.target.credentials)
    }

    /// Opens a link with other credentials than the data nodes'.
    pub fn open_as(&self, address: &Address, credentials: &Credentials) -> Result<Link, LinkError> {
        Link::open(self.dialer, address, credentials, self.client_name, self.stop)
    }

    /// Returns the same connector with another stop.
    pub fn with_stop<'b>(self, stop: &'b Stop) -> Connector<'b>
    where
        'a: 'b,
    {
        Connector { stop, ..self }
    }
}
