//! One connection to one node: sends commands, reads replies within deadlines, and runs slices.

mod budget;
mod cause;
pub mod certificate;
mod connection;
mod dial;
mod encode;
mod error;
mod info;
mod memory;
mod pipeline;
mod reply;
mod resp;
mod role;
mod slice;
mod tls;
mod transport;

pub use self::{
    budget::{Budget, ReplyLimit},
    connection::{CONNECT_TIMEOUT, Link, REPLY_TIMEOUT},
    dial::{Endpoint, Guarded, Plain},
    error::{LinkError, ServerError},
    info::{Info, Keyspace},
    memory::{MemoryShare, ReplyMemory},
    pipeline::Pipeline,
    reply::{ArrayHeader, Reply, ScanReply},
    resp::{FREE_REPLY, Reader, Source},
    role::RoleView,
    slice::{Capabilities, SliceReply},
    transport::{Dialer, Transport},
};
pub(crate) use self::{
    connection::TimeReading, info::saturating_sum, memory::Kept, pipeline::Replies, role::ACTIVE_REPLICA,
    transport::ToSentinels,
};
