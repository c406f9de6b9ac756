//! Further connections to the primary of a shard, for several cursors at once.

use std::thread;

use super::{session::Session, sweeper::ShardSweeper};
use crate::{
    failure::ShardError,
    link::{Info, Link},
    target::Address,
};

/// Part of the server's client limit up to which a scan opens further connections, 0–1.
const MAX_CLIENTS: f64 = 0.9;

impl Session {
    /// Returns a connection; the first one is that of the session's own queries.
    pub fn connection(&mut self, index: usize) -> &mut Link {
        match index.checked_sub(1) {
            None => &mut self.link,
            Some(other) => &mut self.others[other],
        }
    }

    /// Selects a database on a connection.
    pub fn select(&mut self, connection: usize, database: u32) -> Result<(), ShardError> {
        let selected = self.connection(connection).call(&[b"SELECT", database.to_string().as_bytes()]);
        selected.map(drop).map_err(|error| ShardError::at(&self.address, error))
    }
}

impl ShardSweeper<'_> {
    /// Opens connections until there are `wanted`, as far as the server's client limit has room for them. Returns how many
    /// there are.
    pub(super) fn open_connections(&self, session: &mut Session, wanted: usize) -> usize {
        let missing = wanted.saturating_sub(1 + session.others.len()).min(room(&session.info));
        let (address, run_id) = (&session.address, session.info.text("run_id"));
        // All at once: each takes some round trips. A connection that fails, or leads to another server, is one less.
        let opened = thread::scope(|scope| {
            let opened: Vec<_> = (0..missing).map(|_| scope.spawn(|| self.open_another(address, run_id))).collect();
            opened.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect::<Vec<Link>>()
        });
        session.others.extend(opened);
        wanted.min(1 + session.others.len())
    }

    fn open_another(&self, address: &Address, run_id: Option<&str>) -> Option<Link> {
        let mut link = self.connector.open(address).ok()?;
        link.set_reply_timeout(self.options.reply_timeout);
        let info = link.info(&["server"]).ok()??;
        (run_id.is_some() && info.text("run_id") == run_id).then_some(link)
    }
}

/// Returns how many connections the server has room for; none where it does not report its limit.
fn room(info: &Info) -> usize {
    let limit = info.number::<f64>("maxclients").unwrap_or(0.0) * MAX_CLIENTS;
    (limit - info.number::<f64>("connected_clients").unwrap_or(f64::MAX)).max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_connections_leave_a_tenth_of_the_client_limit_free() {
        let room = |text: &str| room(&Info::read(text));
        assert_eq!(room("maxclients:10000\r\nconnected_clients:100\r\n"), 8_900);
        assert_eq!(room("maxclients:100\r\nconnected_clients:89\r\n"), 1);
        assert_eq!((room("maxclients:100\r\nconnected_clients:95\r\n"), room("")), (0, 0));
    }
}
