//! What a server says of itself: the CPU that its main thread has used, its keys, its memory.

use anyhow::{Context as _, Result};
use keysweep_engine::link::Info;
use keysweep_harness::Server;
use redis::Connection;

/// A connection that only asks.
pub struct Gauge {
    connection: Connection,
}

impl Gauge {
    /// Opens it.
    pub fn new(server: &Server) -> Self {
        Self { connection: server.connection() }
    }

    /// Seconds of CPU: of the main thread where the server tells, else of the whole process.
    pub fn cpu_seconds(&mut self) -> Result<f64> {
        let info = self.info("cpu")?;
        let sum = |suffix: &str| {
            let user = info.number::<f64>(&format!("used_cpu_user{suffix}"))?;
            Some(user + info.number::<f64>(&format!("used_cpu_sys{suffix}"))?)
        };
        sum("_main_thread").or_else(|| sum("")).context("INFO cpu has no used_cpu_user")
    }

    /// Keys of database 0.
    pub fn keys(&mut self) -> Result<u64> {
        Ok(redis::cmd("DBSIZE").query(&mut self.connection)?)
    }

    /// Bytes of `used_memory` without those that serve replicas, the log and clients: these come and go by themselves.
    pub fn keyspace_memory(&mut self) -> Result<u64> {
        let info = self.info("memory")?;
        let bytes = |field| info.number::<u64>(field).with_context(|| format!("INFO memory has no {field}"));
        // Since Redis 7.0 one buffer serves the backlog and the replicas; before, each had its own.
        let replication = match info.number("mem_total_replication_buffers") {
            Some(bytes) => bytes,
            None => bytes("mem_replication_backlog")? + bytes("mem_clients_slaves")?,
        };
        Ok(bytes("used_memory")?.saturating_sub(replication + bytes("mem_aof_buffer")? + bytes("mem_clients_normal")?))
    }

    /// One number of a section of INFO.
    pub fn number(&mut self, section: &str, field: &str) -> Result<u64> {
        self.info(section)?.number(field).with_context(|| format!("INFO {section} has no {field}"))
    }

    /// Whether no child process saves or rewrites anything.
    pub fn is_childless(&mut self) -> Result<bool> {
        let info = self.info("persistence")?;
        let none = |field| info.number(field) == Some(0);
        Ok(none("rdb_bgsave_in_progress") && none("aof_rewrite_in_progress"))
    }

    /// Whether the one replica has acknowledged all that was written.
    pub fn replica_is_level(&mut self) -> Result<bool> {
        let info = self.info("replication")?;
        let offset = info.text("slave0").and_then(|line| line.split("offset=").nth(1)?.split(',').next());
        Ok(offset.is_some_and(|offset| info.text("master_repl_offset") == Some(offset)))
    }

    /// Starts a BGSAVE.
    pub fn bgsave(&mut self) -> Result<()> {
        Ok(redis::cmd("BGSAVE").exec(&mut self.connection)?)
    }

    fn info(&mut self, section: &str) -> Result<Info> {
        let text: String = redis::cmd("INFO").arg(section).query(&mut self.connection)?;
        Ok(Info::read(&text))
    }
}
