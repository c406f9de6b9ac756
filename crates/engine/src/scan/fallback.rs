//! How the slices of a session go on where the server refuses transactions because it is out of memory, or closes the
//! connection within the reply to a slice.

use std::time::{Duration, Instant};

use super::{session::Session, sweeper::ShardSweeper};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Capabilities, Link, LinkError},
    server::{self, ReplyLimit},
    target::Address,
};

/// How long slices run without a transaction before one is tried again.
const OUT_OF_MEMORY_INTERVAL: Duration = Duration::from_millis(25);

impl Session {
    /// Returns the commands of the next slice. While the server is out of memory it refuses every transaction, and a plain slice
    /// reclaims memory all the same.
    pub fn slice_capabilities(&self) -> Capabilities {
        let is_plain = self.plain_until.is_some_and(|until| Instant::now() < until);
        Capabilities { transaction: self.capabilities.transaction && !is_plain, ..self.capabilities }
    }
}

impl ShardSweeper<'_> {
    /// Records the reply to a slice with this COUNT that was sent with these commands.
    pub fn record_reply(&mut self, session: &mut Session, count: u32, sent: Capabilities) {
        self.profile.reply_cap.record_reply(count);
        match sent.transaction {
            true => session.plain_until = None,
            false => self.note_plain_slice(session),
        }
    }

    /// Records that the slices of a session run without a transaction for a while, because the server is out of memory.
    pub fn run_plain(&mut self, session: &mut Session) {
        session.plain_until = Some(Instant::now() + OUT_OF_MEMORY_INTERVAL);
        self.note_plain_slice(session);
    }

    fn note_plain_slice(&mut self, session: &Session) {
        if session.plain_until.is_some() {
            self.state().exact = false;
            // A warning is no error.
            let _ = self.apply_check(&session.address, &server::out_of_memory());
        }
    }

    /// Returns the error of a shard whose slice with this COUNT failed. It names the limit of replies where that is known, or
    /// where the connection was closed more than once.
    pub fn slice_error(&mut self, address: &Address, count: u32, error: LinkError) -> ShardError {
        if matches!(error, LinkError::Closed) {
            self.profile.reply_cap.record_close(count);
        }
        // Without a reply the server may still have run the slice.
        self.state().exact &= matches!(error, LinkError::Server(_));
        let profile = &self.profile;
        let is_cut_off = profile.reply_cap.closed() > 1 || profile.reply_limit.is_some();
        if !matches!(error, LinkError::Closed) || !is_cut_off {
            return ShardError::at(address, error);
        }
        let limit = profile.reply_limit.as_deref().unwrap_or("client-output-buffer-limit or maxmemory-clients");
        let sentence = format!(
            "{address} closed the connection within the reply to a slice with COUNT {count}; its {limit} may be too low for its key names: raise it"
        );
        ShardError::Unreachable(Failure::new(FailureKind::Unreachable, sentence))
    }

    /// Finds out whether a limit of the server closed the last connection. Without one COUNT is as it was.
    pub fn review_reply_cap(&mut self, link: &mut Link, address: &Address) -> Result<(), ShardError> {
        if self.profile.reply_cap.closed() == 0 || self.profile.reply_limit.is_some() {
            return Ok(());
        }
        match server::reply_limit(link).map_err(|error| ShardError::at(address, error))? {
            ReplyLimit::Set(limit) => {
                self.warn(format!(
                    "replies: {address} closes the connections of clients with large replies ({limit}), so that slices ask for fewer keys and may have reclaimed keys that are not counted; raise it"
                ));
                self.profile.reply_limit = Some(limit);
            }
            ReplyLimit::None => self.profile.reply_cap = Default::default(),
            ReplyLimit::Unread if self.profile.reply_cap.closed() > 1 => self.warn(format!(
                "replies: {address} closed the connection within replies to slices, so that slices ask for fewer keys and may have reclaimed keys that are not counted; CONFIG is refused, so that its limit is unknown: see client-output-buffer-limit and maxmemory-clients"
            )),
            ReplyLimit::Unread => {}
        }
        Ok(())
    }
}
