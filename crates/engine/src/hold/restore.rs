//! Restores a server's own settings from a record, whatever became of the process that wrote over them.

use std::time::{Duration, Instant};

use super::{
    action::Outcome,
    baseline::{BaselineRecord, Parameter},
    observation::setting,
    sentences::{left, setting as shown},
    writer,
};
use crate::{
    estimate::ServerProcess,
    failure::ShardError,
    link::{Dialer, Info, Link, LinkError},
    stale::CycleSetting,
    stop::{Cause, Stop},
    target::{Address, Target},
    topology::Connector,
};

/// Name of the connections in `CLIENT LIST`.
const CLIENT_NAME: &str = "keysweep:restore";
/// How long to wait before an unreachable server is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What an operator has to look at where a temporary value may have become permanent.
pub const IN_FILE: &str =
    "; its configuration file may contain a value that keysweep wrote: check active-expire-effort and hz there";

/// Which values a restore replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All that keysweep ever wrote.
    Written,
    /// What keysweep may have left in the server process that it wrote to: others may have set any other value, also one that
    /// keysweep once wrote. In another process such a value may have come back from the configuration file, so that all that
    /// keysweep ever wrote is replaced.
    Left,
}

/// What became of the settings of one server.
#[derive(Debug, Clone, PartialEq)]
pub enum RestoreOutcome {
    /// The server's own settings were restored.
    Restored {
        /// The settings before.
        from: CycleSetting,
        /// The settings now.
        to: CycleSetting,
    },
    /// The server had its own settings already.
    Unchanged,
    /// A setting has a value that keysweep did not write, and was left.
    Foreign(CycleSetting),
    /// Nothing may be restored: another holder has the server, as the cause says.
    Refused(String),
    /// The server was not reached in the time that there was, for this cause.
    Unreached(String),
    /// Nothing was restored, for this cause.
    Failed(String),
}

/// A server whose settings were to be restored.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// The server.
    pub address: Address,
    /// Identity of the server process; `None`: the server was not reached, or does not say.
    pub run_id: Option<String>,
    /// What became of its settings.
    pub outcome: RestoreOutcome,
    /// Whether a written value may be in the server's configuration file: the server was restarted with it, or ran CONFIG
    /// REWRITE, which Sentinels send at every reconfiguration.
    pub may_be_in_file: bool,
}

impl Restored {
    /// Returns the record of the server after the restore.
    pub fn recorded(&self, record: &BaselineRecord) -> BaselineRecord {
        let mut record = BaselineRecord { times: record.times.renewed(), ..record.clone() };
        match self.outcome {
            RestoreOutcome::Restored { to: left, .. } | RestoreOutcome::Foreign(left) => record.baseline.leave(left),
            RestoreOutcome::Unchanged => record.baseline.leave(record.baseline.setting()),
            RestoreOutcome::Refused(_) | RestoreOutcome::Unreached(_) | RestoreOutcome::Failed(_) => return record,
        }
        record.is_restored = true;
        // A value that is found in a later process has come back from the configuration file.
        if let Some(run_id) = &self.run_id {
            record.run_id.clone_from(run_id);
        }
        record
    }

    /// Returns what became of a server of which no more is known.
    pub fn without(address: &Address, outcome: RestoreOutcome) -> Self {
        Self { address: address.clone(), run_id: None, outcome, may_be_in_file: false }
    }

    /// Whether the server has its own settings, or those of others.
    pub fn is_done(&self) -> bool {
        use RestoreOutcome::{Failed, Refused, Unreached};
        !matches!(self.outcome, Refused(_) | Unreached(_) | Failed(_))
    }

    /// Whether the server was not reached, and may be gone.
    pub fn is_unreached(&self) -> bool {
        matches!(self.outcome, RestoreOutcome::Unreached(_))
    }
}

/// Restores the settings of one server by the record that `reserve` returns, with a reservation, for the process that is reached; an
/// error of it says why nothing may be restored. Retries while the server cannot be reached, until the stop is raised or its deadline
/// passes, and reserves again with each attempt. Returns what was reserved, too; `None`: nothing was.
pub fn restore<R>(
    dialer: &dyn Dialer,
    target: &Target,
    address: &Address,
    stop: &Stop,
    reserve: impl FnMut(&ServerProcess) -> Result<(R, BaselineRecord), String>,
) -> (Restored, Option<(R, BaselineRecord)>) {
    let connector = Connector { dialer, target, client_name: CLIENT_NAME, stop };
    retried(connector, address, Scope::Written, reserve)
}

/// Restores the settings of one server, which is reserved, where they have values of this scope. Retries as [`restore`] does.
pub fn restore_within(
    dialer: &dyn Dialer,
    target: &Target,
    record: &BaselineRecord,
    scope: Scope,
    stop: &Stop,
) -> Restored {
    let connector = Connector { dialer, target, client_name: CLIENT_NAME, stop };
    retried(connector, &record.address, scope, |_| Ok(((), record.clone()))).0
}

/// Restores the settings of one server without a second attempt. `None`: it cannot be reached now.
pub fn restore_once(
    dialer: &dyn Dialer,
    target: &Target,
    record: &BaselineRecord,
    scope: Scope,
    stop: &Stop,
) -> Option<Restored> {
    let connector = Connector { dialer, target, client_name: CLIENT_NAME, stop };
    attempt(connector, &record.address, scope, |_| Ok(((), record.clone()))).ok().map(|(restored, _)| restored)
}

fn retried<R>(
    connector: Connector<'_>,
    address: &Address,
    scope: Scope,
    mut reserve: impl FnMut(&ServerProcess) -> Result<(R, BaselineRecord), String>,
) -> (Restored, Option<(R, BaselineRecord)>) {
    let stop = connector.stop;
    loop {
        match attempt(connector, address, scope, &mut reserve) {
            Ok(restored) => return restored,
            Err(ShardError::Unreachable(_)) if !stop.is_raised() => stop.wait_until(Instant::now() + RETRY_INTERVAL),
            Err(error) => return (Restored::without(address, ended(address, stop.cause(), error)), None),
        }
    }
}

/// Returns what an attempt was that nothing follows.
fn ended(address: &Address, stopped: Option<Cause>, error: ShardError) -> RestoreOutcome {
    match (stopped, error) {
        (Some(Cause::Requested), ShardError::Stopped(_) | ShardError::Unreachable(_)) => {
            RestoreOutcome::Failed(format!("{address}: interrupted; nothing was restored"))
        }
        (_, ShardError::Stopped(_)) => {
            RestoreOutcome::Unreached(format!("{address} cannot be reached; nothing was restored"))
        }
        (_, error @ ShardError::Unreachable(_)) => RestoreOutcome::Unreached(error.into_failure(address).message),
        (_, error) => RestoreOutcome::Failed(error.into_failure(address).message),
    }
}

fn attempt<R>(
    connector: Connector<'_>,
    address: &Address,
    scope: Scope,
    mut reserve: impl FnMut(&ServerProcess) -> Result<(R, BaselineRecord), String>,
) -> Result<(Restored, Option<(R, BaselineRecord)>), ShardError> {
    let mut link = connector.open_node(address)?;
    let failed = |error| ShardError::at(address, error);
    let info = ask(&mut link).map_err(failed)?;
    let (reservation, record) = match reserve(&ServerProcess::of(&link, address, &info)) {
        Ok(reserved) => reserved,
        Err(cause) => {
            let refused = RestoreOutcome::Refused(format!("{address}: {cause}; nothing was restored"));
            return Ok((Restored::without(address, refused), None));
        }
    };
    let mut restored = by_record(&mut link, &info, &record, scope).map_err(failed)?;
    if let RestoreOutcome::Failed(cause) = &mut restored.outcome {
        cause.insert_str(0, &format!("{address}: "));
    }
    Ok((restored, Some((reservation, record))))
}

/// Restores the settings of the server behind a link, as far as keysweep ever wrote them.
pub fn through(link: &mut Link, record: &BaselineRecord) -> Result<Restored, LinkError> {
    let info = ask(link)?;
    by_record(link, &info, record, Scope::Written)
}

/// Asks a server who it is, and what it has run.
fn ask(link: &mut Link) -> Result<Info, LinkError> {
    Ok(link.info(&["server", "replication", "commandstats"])?.unwrap_or_default())
}

fn by_record(link: &mut Link, info: &Info, record: &BaselineRecord, scope: Scope) -> Result<Restored, LinkError> {
    let run_id = info.run_id();
    let before = setting(link)?;
    let is_same_process = run_id.as_ref().is_none_or(|run_id| *run_id == record.run_id);
    let baseline = match scope {
        Scope::Left if is_same_process => record.baseline.left_only(),
        Scope::Left | Scope::Written => record.baseline.clone(),
    };
    let outcome = match writer::restore(link, &baseline)? {
        Outcome::Done(now) => match before {
            _ if now != record.baseline.setting() => RestoreOutcome::Foreign(now),
            Some(from) if from != now => RestoreOutcome::Restored { from, to: now },
            _ => RestoreOutcome::Unchanged,
        },
        Outcome::Failed(cause) | Outcome::PutBack(cause) => RestoreOutcome::Failed(cause),
        Outcome::Unknown => RestoreOutcome::Failed("the connection broke".to_owned()),
    };
    let was_written = before.is_some_and(|before| is_written(record, before));
    let may_be_in_file = record.baseline.is_written() && ((was_written && !is_same_process) || has_rewritten(info));
    Ok(Restored { address: record.address.clone(), run_id, outcome, may_be_in_file })
}

/// Whether one of the settings has a value that keysweep wrote and that is not the server's own.
fn is_written(record: &BaselineRecord, setting: CycleSetting) -> bool {
    Parameter::ALL.into_iter().any(|parameter| {
        let (values, value) = (record.baseline.values(parameter), parameter.of(setting));
        value != values.baseline && values.written.contains(&value)
    })
}

/// Whether the server has, or may have, run CONFIG REWRITE since its start. Before Redis 7.0 the subcommands are not counted
/// apart: there a primary that was demoted may have, if it has a file.
fn has_rewritten(info: &Info) -> bool {
    let has_run = info.command("config|rewrite").is_some_and(|(calls, _)| calls > 0);
    let is_counted_as_one = info.command("config").is_some();
    let is_demoted =
        info.text("role") == Some("slave") && info.text("config_file").is_some_and(|file| !file.is_empty());
    has_run || (is_counted_as_one && is_demoted)
}

impl std::fmt::Display for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = &self.address;
        match &self.outcome {
            RestoreOutcome::Restored { from, to } => {
                write!(f, "{address}: restored {}, was {}", shown(*to), shown(*from))?;
            }
            RestoreOutcome::Unchanged => write!(f, "{address}: has its own settings")?,
            RestoreOutcome::Foreign(found) => {
                write!(f, "{address}: {}", left(*found))?;
            }
            RestoreOutcome::Refused(cause) | RestoreOutcome::Unreached(cause) | RestoreOutcome::Failed(cause) => {
                f.write_str(cause)?;
            }
        }
        match self.may_be_in_file {
            true => f.write_str(IN_FILE),
            false => Ok(()),
        }
    }
}
