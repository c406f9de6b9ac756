//! Whether a user may change a server's settings, which a verdict depends on.
//!
//! A command that is refused to a user becomes an entry in the server's ACL LOG, which operators watch. `ACL DRYRUN` asks without
//! one, where the user may ask it; an answer that left an entry is remembered for a day.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    link::{Info, Link, LinkError, ServerError},
    target::Address,
};

/// How long an answer is remembered: the operator may have granted the right meanwhile.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);
/// Most answers that are remembered; beyond them all are forgotten.
const MAX_REMEMBERED: usize = 10_000;
/// User of a connection that does not name one.
const DEFAULT_USER: &str = "default";

/// Answers that left an entry in the ACL LOG of a server, by its address and user. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct KnownRights(Arc<Mutex<HashMap<(Address, String), Answer>>>);

/// A remembered answer.
#[derive(Debug, Clone)]
struct Answer {
    is_allowed: bool,
    /// The server process; empty where INFO is refused. Another one has an ACL LOG of its own.
    run_id: String,
    at: Instant,
}

impl KnownRights {
    /// Returns whether the user of a connection may call CONFIG SET. `info`: the server's INFO reply; `None`: it is refused.
    pub(super) fn may_configure(
        &self,
        link: &mut Link,
        address: &Address,
        user: Option<&str>,
        info: Option<&Info>,
    ) -> Result<bool, LinkError> {
        let key = (address.clone(), user.unwrap_or(DEFAULT_USER).to_owned());
        let run_id = info.and_then(Info::run_id).unwrap_or_default();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known.filter(|known| known.run_id == run_id && known.at.elapsed() < REMEMBERED) {
            return Ok(known.is_allowed);
        }
        let (is_allowed, is_logged) = ask(link, &key.1, info)?;
        if is_logged {
            let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.len() >= MAX_REMEMBERED {
                answers.clear();
            }
            answers.insert(key, Answer { is_allowed, run_id, at: Instant::now() });
        }
        Ok(is_allowed)
    }
}

/// Asks the server. Returns the answer, and whether the question left an entry in its ACL LOG.
fn ask(link: &mut Link, user: &str, info: Option<&Info>) -> Result<(bool, bool), LinkError> {
    let mut is_logged = false;
    // A Redis before 7.0 does not have the command, and logs that it is refused to those without any of ACL.
    if info.is_some_and(|info| info.is_since((0, 0), Some((7, 0)))) {
        let command: [&[u8]; 7] =
            [b"ACL", b"DRYRUN", user.as_bytes(), b"CONFIG", b"SET", b"active-expire-effort", b"1"];
        match link.call(&command) {
            Ok(reply) => return Ok((reply.text() == Some("OK"), false)),
            Err(LinkError::Server(error)) => is_logged = is_refused_to_user(&error),
            Err(error) => return Err(error),
        }
    }
    // An unknown directive changes nothing, and shows whether the command itself is refused.
    match link.call(&[b"CONFIG", b"SET", b"keysweep-asks-whether-config-set-is-allowed", b"no"]) {
        Ok(_) => Ok((true, is_logged)),
        Err(LinkError::Server(error)) => {
            let is_allowed = !error.is_denied() && !error.is_unknown_command();
            Ok((is_allowed, is_logged || is_refused_to_user(&error)))
        }
        Err(error) => Err(error),
    }
}

fn is_refused_to_user(error: &ServerError) -> bool {
    error.code() == "NOPERM"
}
