//! The server's own figures: CPU of its main thread, keys, memory.

use anyhow::{Context as _, Result};
use keysweep_engine::link::Info;
use keysweep_harness::Server;
use redis::Connection;

/// A connection that reads figures and writes no keys.
pub struct Gauge {
    connection: Connection,
}

impl Gauge {
    /// Opens the connection.
    pub fn new(server: &Server) -> Self {
        Self { connection: server.connection() }
    }

    /// Returns the CPU time of the main thread in seconds, or of the whole process on servers that do not report the former.
    pub fn cpu_seconds(&mut self) -> Result<f64> {
        let info = self.info("cpu")?;
        let sum = |suffix: &str| {
            let user = info.number::<f64>(&format!("used_cpu_user{suffix}"))?;
            Some(user + info.number::<f64>(&format!("used_cpu_sys{suffix}"))?)
        };
        sum("_main_thread").or_else(|| sum("")).context("INFO cpu has no used_cpu_user")
    }

    /// Returns the number of keys in database 0.
    pub fn keys(&mut self) -> Result<u64> {
        Ok(redis::cmd("DBSIZE").query(&mut self.connection)?)
    }

    /// Returns `used_memory` in bytes without the buffers for replicas, AOF and clients, whose size varies on its own.
    pub fn keyspace_memory(&mut self) -> Result<u64> {
        let info = self.info("memory")?;
        let bytes = |field| info.number::<u64>(field).with_context(|| format!("INFO memory has no {field}"));
        // Since Redis 7.0 backlog and replicas share one buffer; earlier versions report one figure for each.
        let replication = match info.number("mem_total_replication_buffers") {
            Some(bytes) => bytes,
            None => bytes("mem_replication_backlog")? + bytes("mem_clients_slaves")?,
        };
        Ok(bytes("used_memory")?.saturating_sub(replication + bytes("mem_aof_buffer")? + bytes("mem_clients_normal")?))
    }

    /// Returns one number of a section of INFO.
    pub fn number(&mut self, section: &str, field: &str) -> Result<u64> {
        self.info(section)?.number(field).with_context(|| format!("INFO {section} has no {field}"))
    }

    /// Returns whether no background save is running.
    pub fn has_no_background_save(&mut self) -> Result<bool> {
        let info = self.info("persistence")?;
        let none = |field| info.number(field) == Some(0);
        Ok(none("rdb_bgsave_in_progress") && none("aof_rewrite_in_progress"))
    }

    /// Returns whether the only replica has acknowledged all writes.
    pub fn replica_is_in_sync(&mut self) -> Result<bool> {
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
