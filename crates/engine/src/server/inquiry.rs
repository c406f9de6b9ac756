//! What a scan asks a server before its first slice, in two round trips: over a long path each takes as long as dozens of slices.

use std::time::Instant;

use super::{
    clock::{ahead, now},
    removals::are_counted,
    rights::{ClusterCommands, Commands, Rights},
    settings::ExpirySettings,
    state::ServerState,
};
use crate::{
    link::{Info, Link, LinkError, Pipeline},
    stop::Stop,
    target::Mode,
};

/// The sections of INFO that describe a server.
const SECTIONS: [&str; 8] =
    ["server", "clients", "memory", "persistence", "replication", "stats", "keyspace", "cluster"];
/// The settings that the pre-flight checks judge.
const SETTINGS: [&str; 3] = ["notify-keyspace-events", "appendfsync", "lazyfree-lazy-expire"];

/// A server's answers.
pub(crate) struct Inquiry {
    /// Its INFO reply; `None`: INFO is refused.
    pub info: Option<Info>,
    pub rights: Rights,
    /// The commands for clusters, where the target is one.
    pub(super) cluster: Option<ClusterCommands>,
    /// Seconds by which its clock is ahead of this machine's; `None` where TIME is refused.
    pub skew: Option<f64>,
    pub settings: ExpirySettings,
    /// `notify-keyspace-events`, as far as the server shows it.
    pub(super) events: Option<String>,
    /// `appendfsync`, as far as the server shows it.
    pub(super) fsync: Option<String>,
    /// `lazyfree-lazy-expire`, as far as the server shows it.
    pub(super) lazy_free: Option<String>,
    pub state: ServerState,
    /// When the state was sampled.
    pub sampled: Instant,
}

impl Inquiry {
    /// Asks the server.
    pub fn make(link: &mut Link, mode: &Mode, stop: &Stop) -> Result<Self, LinkError> {
        let is_cluster = matches!(mode, Mode::Cluster);
        let mut first = Pipeline::default();
        first.add_info(&SECTIONS);
        Commands::add(&mut first);
        first.add(&[b"TIME"]);
        ExpirySettings::add(&mut first);
        first.add_settings(&SETTINGS);
        if is_cluster {
            ClusterCommands::add(&mut first);
        }
        let asked = now();
        let mut replies = link.ask(&first)?;
        let middle = (asked + now()) / 2.0;
        let info = replies.info(SECTIONS.len())?;
        let commands = Commands::take(&mut replies)?;
        let skew = replies.optional()?.and_then(|reply| ahead(&reply, middle));
        let settings = ExpirySettings::take(&mut replies, info.as_ref().unwrap_or(&Info::default()))?;
        let [events, fsync, lazy_free] = [replies.setting()?, replies.setting()?, replies.setting()?];
        let cluster = match is_cluster {
            true => Some(ClusterCommands::take(&mut replies)?),
            false => None,
        };
        // The next reply may take a second after a stop.
        if stop.is_raised() {
            return Err(LinkError::Stopped);
        }
        let mut second = Pipeline::default();
        let counts = info.as_ref().is_some_and(are_counted);
        ServerState::add(&mut second, counts);
        commands.add_transaction(&mut second);
        let mut replies = link.ask(&second)?;
        let sampled = Instant::now();
        let state = ServerState::take(&mut replies, link, counts)?;
        let rights = commands.rights(&mut replies)?;
        Ok(Self { info, rights, cluster, skew, settings, events, fsync, lazy_free, state, sampled })
    }
}
