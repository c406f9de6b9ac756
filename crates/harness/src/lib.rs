//! Real servers and exact data sets for the tests of keysweep. For development only.
//!
//! What a sweep may rely on differs between Redis and Valkey and between their versions, so nothing here
//! is a mock: tests start pinned binaries, fill them through the `redis` crate (a second opinion beside the
//! engine's own link), and wait on conditions. Everything panics with a message that says what to do,
//! since its callers are tests.
//!
//! ```no_run
//! use keysweep_harness::{DataSet, Flavor, Server};
//!
//! let server = Server::start(Flavor::Valkey91);
//! let loaded = DataSet::new().live(800).dead(200).database(3).dead(10).load(&server);
//! assert_eq!(loaded.dead, 210);
//! assert_eq!(loaded.per_database[&3].dead, 10);
//! ```

mod app;
mod binaries;
mod certificates;
mod child;
mod cluster;
mod condition;
mod dataset;
mod key;
mod launch;
mod port;
mod postgres;
mod proxy;
mod server;
mod signer;
mod stalls;

pub use app::{Answer, Installation, Service, id};
pub use binaries::Flavor;
pub use certificates::{Authority, Issued};
pub use child::KilledOnDrop;
pub use cluster::Cluster;
pub use condition::eventually;
pub use dataset::{Counts, DataSet, Loaded};
pub use key::{Kind, Names};
pub use launch::Launch;
pub use port::free_port;
pub use postgres::Postgres;
pub use proxy::{Fault, Proxy};
pub use server::Server;
pub use signer::Signer;
pub use stalls::Stalls;
