//! Redis and Valkey clusters of real servers.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Connection, Value};

use crate::binaries::Flavor;
use crate::condition::eventually;
use crate::dataset::DataSet;
use crate::launch::Launch;
use crate::server::Server;

const SLOTS: u32 = 16_384;
/// Time without an answer after which a node counts as failed and its replica takes over, milliseconds.
const NODE_TIMEOUT_MS: &str = "1000";
/// Longest time for a cluster to form, which takes a second or two on an idle machine.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of hash tags that are tried to find some for every node.
const TAGS: u32 = 400;
/// Number of hash tags for keys that are spread over many slots.
const MANY_TAGS: u32 = 2_000;

/// A cluster that a test started: primaries with equal shares of the slots, then their replicas. Killed on drop.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
    primaries: usize,
}

impl Cluster {
    /// Starts a cluster of this number of primaries, with one replica each if `replicas` is set, and waits until all nodes agree
    /// on it.
    ///
    /// # Panics
    /// If it does not form within 30 s.
    #[must_use]
    pub fn start(flavor: Flavor, primaries: usize, replicas: bool) -> Self {
        Self::launch(&Server::with(flavor), primaries, replicas)
    }

    /// Starts a cluster of servers with these options.
    ///
    /// # Panics
    /// See [`Cluster::start`].
    #[must_use]
    pub fn launch(launch: &Launch, primaries: usize, replicas: bool) -> Self {
        let count = if replicas { primaries * 2 } else { primaries };
        Self::of(&vec![launch.clone(); count], primaries)
    }

    /// Starts a cluster of these servers: first the primaries, then their replicas.
    ///
    /// # Panics
    /// See [`Cluster::start`].
    #[must_use]
    pub fn of(launches: &[Launch], primaries: usize) -> Self {
        let directives = |launch: &Launch| {
            launch.clone().arg("--cluster-enabled", "yes").arg("--cluster-node-timeout", NODE_TIMEOUT_MS)
        };
        let nodes: Vec<Server> = launches.iter().map(|launch| directives(launch).start()).collect();
        let cluster = Self { nodes, primaries };
        cluster.form();
        cluster
    }

    fn form(&self) {
        let first = &self.nodes[0];
        // With `tls-cluster no` the nodes talk to each other's plain ports.
        let address = first.tls_address().filter(|_| first.has_tls_bus()).unwrap_or(first.address());
        let (host, port) = (first.address().ip().to_string(), address.port());
        for (index, node) in self.nodes.iter().enumerate() {
            let mut connection = node.connection();
            // On replicas as well, since a replica may become a primary.
            redis::cmd("DEBUG").arg("SET-ACTIVE-EXPIRE").arg(0).exec(&mut connection).expect("DEBUG is allowed");
            redis::cmd("CLUSTER").arg("MEET").arg(&host).arg(port).exec(&mut connection).expect("nodes meet");
            if index < self.primaries {
                let share = |index: usize| SLOTS as usize * index / self.primaries;
                let mut add = redis::cmd("CLUSTER");
                add.arg("ADDSLOTS");
                for slot in share(index)..share(index + 1) {
                    add.arg(slot);
                }
                add.exec(&mut connection).expect("slots can be added");
            }
        }
        let sees_all =
            |node: &Server| cluster_info(&mut node.connection(), "cluster_known_nodes") == self.nodes.len().to_string();
        eventually("all nodes have met", FORM_TIMEOUT, || self.nodes.iter().all(sees_all).then_some(()));
        for (index, replica) in self.nodes.iter().enumerate().skip(self.primaries) {
            let id = self.id(index - self.primaries);
            let mut connection = replica.connection();
            eventually("a node becomes a replica", FORM_TIMEOUT, || {
                redis::cmd("CLUSTER").arg("REPLICATE").arg(&id).exec(&mut connection).ok()
            });
            replica.await_sync(self.nodes[index - self.primaries].port());
        }
        self.await_whole();
    }

    /// Waits until every node sees all slots served and all replicas listed.
    ///
    /// # Panics
    /// If that takes more than 30 s.
    pub fn await_whole(&self) {
        let is_whole = |node: &Server| {
            let mut connection = node.connection();
            let is_ok = cluster_info(&mut connection, "cluster_state") == "ok";
            let ranges: Vec<Vec<Value>> = redis::cmd("CLUSTER").arg("SLOTS").query(&mut connection).expect("slots");
            let replicas = ranges.iter().map(|range| range.len().saturating_sub(3)).sum::<usize>();
            is_ok && replicas + self.primaries >= self.nodes.len()
        };
        eventually("the cluster is whole", FORM_TIMEOUT, || self.nodes.iter().all(is_whole).then_some(()));
    }

    /// Returns a `redis-cluster://` URL with all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// Returns a node: the primaries come first, then their replicas in the same order.
    #[must_use]
    pub fn node(&self, index: usize) -> &Server {
        &self.nodes[index]
    }

    /// Returns a node to stop or kill.
    pub fn node_mut(&mut self, index: usize) -> &mut Server {
        &mut self.nodes[index]
    }

    /// Returns all nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// Returns the cluster id of a node.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn id(&self, index: usize) -> String {
        redis::cmd("CLUSTER").arg("MYID").query(&mut self.nodes[index].connection()).expect("an id")
    }

    /// Loads these numbers of live and stale keys into *each* primary, spread over up to 20 of its slots, and returns the totals.
    ///
    /// # Panics
    /// See [`DataSet::load`].
    pub fn load(&self, live: u64, stale: u64) -> (u64, u64) {
        self.load_database(0, live, stale)
    }

    /// Loads keys into a database other than 0 (Valkey 9); see [`Cluster::load`].
    ///
    /// # Panics
    /// See [`DataSet::load`].
    pub fn load_database(&self, database: u32, live: u64, stale: u64) -> (u64, u64) {
        self.load_tags(TAGS, 20, database, live, stale)
    }

    /// Loads these numbers of live and stale keys into *each* primary, spread over many of its slots, and returns the totals.
    ///
    /// # Panics
    /// See [`DataSet::load`].
    pub fn load_spread(&self, live: u64, stale: u64) -> (u64, u64) {
        self.load_tags(MANY_TAGS, MANY_TAGS as usize, 0, live, stale)
    }

    fn load_tags(&self, tried: u32, most: usize, database: u32, live: u64, stale: u64) -> (u64, u64) {
        let (mut all_live, mut all_stale) = (0, 0);
        for (index, tags) in self.tags(tried) {
            let tags: Vec<String> = tags.into_iter().take(most).collect();
            let share = |keys: u64, tag: usize| {
                keys * (tag as u64 + 1) / tags.len() as u64 - keys * tag as u64 / tags.len() as u64
            };
            let set = tags.iter().enumerate().fold(DataSet::new().database(database), |set, (number, tag)| {
                set.prefix(&format!("{{{tag}}}:{database}:")).live(share(live, number)).stale(share(stale, number))
            });
            let loaded = set.load(&self.nodes[index]);
            (all_live, all_stale) = (all_live + loaded.live, all_stale + loaded.stale);
        }
        (all_live, all_stale)
    }

    /// Returns the first hash tags by the primary that owned their slots when the cluster was started.
    fn tags(&self, tried: u32) -> BTreeMap<usize, Vec<String>> {
        let mut connection = self.nodes[0].connection();
        let mut tags: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for tag in 0..tried {
            let slot: u32 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(tag).query(&mut connection).expect("a slot");
            let owner = (1..=self.primaries).find(|index| (slot as usize) < SLOTS as usize * index / self.primaries);
            tags.entry(owner.expect("every slot has an owner") - 1).or_default().push(tag.to_string());
        }
        tags
    }

    /// Returns the indices of the running primaries.
    #[must_use]
    pub fn primaries_now(&mut self) -> Vec<usize> {
        let mut primaries = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.is_running() {
                let role: Vec<Value> = redis::cmd("ROLE").query(&mut node.connection()).expect("a role");
                if matches!(&role[0], Value::BulkString(role) if role == b"master") {
                    primaries.push(index);
                }
            }
        }
        primaries
    }

    /// Returns the number of keys on all primaries, in all databases.
    #[must_use]
    pub fn held(&mut self) -> u64 {
        let primaries = self.primaries_now();
        primaries.into_iter().map(|index| self.nodes[index].held()).sum()
    }
}

fn cluster_info(connection: &mut Connection, field: &str) -> String {
    let info: String = redis::cmd("CLUSTER").arg("INFO").query(connection).expect("CLUSTER INFO answers");
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_default().to_owned()
}
