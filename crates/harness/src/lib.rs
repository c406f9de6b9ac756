//! Real servers and exact data sets for the tests of keysweep. For development only.
//!
//! Redis, Valkey and their versions differ in the behaviour that a scan relies on, so the harness has no mocks: it starts pinned
//! binaries, fills them through the `redis` crate (an implementation independent of the engine's link), and waits for
//! conditions. Its functions panic with a remedy instead of returning errors, since their callers are tests.
//!
//! ```no_run
//! use keysweep_harness::{DataSet, Flavor, Server};
//!
//! let server = Server::start(Flavor::Valkey91);
//! let loaded = DataSet::new().live(800).stale(200).database(3).stale(10).load(&server);
//! assert_eq!(loaded.stale, 210);
//! assert_eq!(loaded.per_database[&3].stale, 10);
//! ```

mod binaries;
mod certificates;
mod child;
mod churn;
mod clock;
mod cluster;
mod command;
mod condition;
mod dataset;
mod hostile;
mod installation;
mod key;
mod launch;
mod monitored;
mod port;
mod postgres;
mod proxy;
mod scan;
mod server;
mod service;
mod signer;
mod stalls;
mod vendor;

pub use binaries::Flavor;
pub use certificates::{Authority, Issued};
pub use child::KilledOnDrop;
pub use churn::Churn;
pub use clock::SteppedClock;
pub use cluster::Cluster;
pub use condition::eventually;
pub use dataset::{Counts, DataSet, Loaded};
pub use hostile::{HostileServer, Hostility};
pub use installation::Installation;
pub use key::{Kind, Names};
pub use launch::Launch;
pub use monitored::Monitored;
pub use port::free_port;
pub use postgres::Postgres;
pub use proxy::{Delay, Fault, Proxy};
pub use scan::{ScanTask, histories_path, scan_path, task_path};
pub use server::Server;
pub use service::{Answer, Service, id};
pub use signer::Signer;
pub use stalls::Stalls;
pub use vendor::{VendorProxy, Words};
