//! From a target to the primaries that own its keys. SCAN on a replica succeeds and deletes nothing, so finding the
//! primaries, and noticing demotions, decides whether a sweep has any effect.

mod cluster;
mod connector;
mod database;
mod node;
mod origin;
mod primary;
mod scout;
mod sentinel;
mod slots;

pub use self::slots::SlotSet;
pub(crate) use self::{
    connector::Connector,
    node::PrimaryNode,
    primary::{Primary, connect, node_role, primaries, primary, role},
    scout::Scout,
    slots::SLOTS,
};
