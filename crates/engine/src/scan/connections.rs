//! Further connections to the primary of a shard, for several cursors at once.

use std::{ops::Range, thread, time::Duration};

use super::{session::Session, sweeper::ShardSweeper};
use crate::{
    failure::ShardError,
    link::{Info, Link},
    target::Address,
    topology::Connector,
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

    /// Selects a database on these connections, in one round trip.
    pub fn select(&mut self, mut connections: Range<usize>, database: u32) -> Result<(), ShardError> {
        let number = database.to_string();
        let words: [&[u8]; 2] = [b"SELECT", number.as_bytes()];
        let all = connections.clone();
        let mut selected = connections.try_for_each(|index| self.connection(index).send_command(&words));
        for index in all {
            selected = selected.and_then(|()| self.connection(index).receive().map(drop));
        }
        selected.map_err(|error| ShardError::at(&self.address, error))
    }
}

impl<'a> ShardSweeper<'a> {
    /// Opens connections until there are `wanted`, as far as the server's client limit has room for them. Returns how many
    /// there are.
    pub(super) fn open_connections(&self, session: &mut Session, wanted: usize) -> usize {
        session.others.extend(self.opener(session).open(wanted.saturating_sub(1 + session.others.len())));
        wanted.min(1 + session.others.len())
    }

    /// Returns what opens further connections of a session.
    pub(super) fn opener(&self, session: &Session) -> Opener<'a> {
        Opener {
            connector: self.connector,
            reply_timeout: self.options.reply_timeout,
            address: session.address.clone(),
            run_id: session.info.run_id(),
            room: room(&session.info),
        }
    }
}

/// Opens further connections to the server process of a session.
pub(super) struct Opener<'a> {
    connector: Connector<'a>,
    reply_timeout: Duration,
    address: Address,
    run_id: Option<String>,
    room: usize,
}

impl Opener<'_> {
    /// Opens so many connections at once, since each takes some round trips. One that fails, or leads to another server, is one
    /// less.
    pub fn open(&self, connections: usize) -> Vec<Link> {
        thread::scope(|scope| {
            let opened: Vec<_> = (0..connections.min(self.room)).map(|_| scope.spawn(|| self.open_one())).collect();
            opened.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
        })
    }

    fn open_one(&self) -> Option<Link> {
        let mut link = self.connector.open(&self.address).ok()?;
        link.set_reply_timeout(self.reply_timeout);
        let info = link.info(&["server"]).ok()??;
        (self.run_id.is_some() && info.run_id() == self.run_id).then_some(link)
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
