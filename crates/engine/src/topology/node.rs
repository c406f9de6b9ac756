//! A primary as the topology describes it.

use super::slots::SlotSet;
use crate::target::Address;

/// A primary that the topology names; not connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrimaryNode {
    pub address: Address,
    /// The slots that it owns; empty outside of clusters.
    pub slots: SlotSet,
    /// Its replicas, as far as the topology names them.
    pub replicas: Vec<Address>,
}
