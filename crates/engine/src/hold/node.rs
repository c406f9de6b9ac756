//! One server of a target that is held: its connection, its controller, and what the controller decided last.

use std::time::Duration;

use super::{
    action::{Action, Outcome, after_restore},
    baseline::{Baseline, BaselineRecord, Parameter},
    controller::Controller,
    host::{Change, HolderHost, Reservation},
    observation::{Expired, observe},
    policy::Policy,
    restore::{self, RestoreOutcome, Restored},
    sentences::restored,
    signals::Signals,
    state::{HoldState, HoldStatus},
    times::Clock,
    writer,
};
use crate::{
    estimate::{ServerProcess, sample_interval, sample_share},
    failure::ShardError,
    link::{Info, Link},
    stale::CycleSetting,
    target::Address,
    topology::Connector,
};

/// How long to wait for each reply: a round must not take longer than a few intervals.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// One server.
pub struct Node {
    address: Address,
    link: Option<Link>,
    controller: Controller,
    clock: Clock,
    policy: Policy,
    /// The record that this holder began with.
    known: Option<BaselineRecord>,
    /// The right to write to a process of the server, and which.
    reservation: Option<(String, Reservation)>,
    /// The process that was observed last.
    server: ServerProcess,
    /// Whether it is a replica, though its address was found to be that of a primary.
    is_elsewhere: bool,
    /// Identity of the server process that was written to last.
    written_to: String,
    /// Settings before a write whose reply was lost, and its reason.
    unknown: Option<(CycleSetting, String)>,
    /// The keys that have expired in this server process, without those that samples have reclaimed.
    expired: Expired,
    /// What is known of it.
    pub status: HoldStatus,
}

impl Node {
    /// Returns a server that was not observed yet. `record`: of an earlier holder.
    pub fn new(address: Address, policy: Policy, record: Option<BaselineRecord>, clock: Clock) -> Self {
        let is_finished = record.as_ref().is_some_and(|record| record.is_restored);
        let run_id = record.as_ref().map(|record| record.run_id.clone()).unwrap_or_default();
        let times = record.as_ref().map(|record| clock.recall(&record.times)).unwrap_or_default();
        let (known, baseline) = (record.clone(), record.map(|record| record.baseline));
        let server = ServerProcess { address: address.to_string(), run_id: run_id.clone() };
        Self {
            address,
            link: None,
            controller: Controller::new(policy, baseline, is_finished).after(times, &run_id),
            policy,
            known,
            reservation: None,
            clock,
            written_to: run_id,
            server,
            is_elsewhere: false,
            unknown: None,
            expired: Expired::default(),
            status: HoldStatus { state: HoldState::Measuring, ..HoldStatus::default() },
        }
    }

    /// Replaces the policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.controller.set_policy(policy);
    }

    /// Whether nothing is to be restored.
    pub fn has_own_settings(&self) -> bool {
        !self.controller.baseline().is_some_and(Baseline::is_written)
            || (self.status.setting.is_some() && !self.status.differs())
    }

    /// Whether something that keysweep wrote is to be restored, as far as is known of a server that does not answer.
    pub fn has_to_restore(&self) -> bool {
        self.controller.has_to_restore()
    }

    /// Returns the record by which the server is to be restored when holding ends; `None`: there is nothing to restore, or another
    /// process holds the server.
    pub fn record_at_end(&mut self, target: &str, host: &dyn HolderHost) -> Option<BaselineRecord> {
        if !self.controller.has_to_restore() {
            return None;
        }
        self.controller.settle(self.clock.now());
        // Where no process of the server was seen, its holder is not known either.
        match self.has_reservation() || self.status.setting.is_none() {
            true => self.record(target),
            false => {
                let _reservation = host.reserve(&self.server, true).ok()?;
                // In another process of the server a value may have come back from the configuration file.
                let is_open = |record: &BaselineRecord| !record.is_restored || record.run_id != self.server.run_id;
                host.registry().find(&self.address).ok().flatten().filter(is_open)
            }
        }
    }

    /// Returns the record of this server; `None`: nothing was written to it.
    pub fn record(&self, target: &str) -> Option<BaselineRecord> {
        let baseline = self.controller.baseline().filter(|baseline| baseline.is_written())?.clone();
        Some(BaselineRecord {
            target: target.to_owned(),
            address: self.address.clone(),
            run_id: self.written_to.clone(),
            is_restored: false,
            times: self.clock.record(&self.controller.times()),
            baseline,
        })
    }

    /// Observes the server, decides and acts. `is_listed`: whether the topology names it as a primary; `None`: the topology is
    /// unknown.
    pub fn round(&mut self, is_listed: Option<bool>, connector: Connector<'_>, host: &dyn HolderHost) {
        let was_open = self.link.is_some();
        let mut result = self.attempt(is_listed, connector, host);
        // An idle connection may have been closed by the server.
        if was_open && matches!(result, Err(ShardError::Unreachable(_))) && !connector.stop.is_raised() {
            self.link = None;
            result = self.attempt(is_listed, connector, host);
        }
        if self.is_elsewhere {
            self.link = None;
        }
        if let Err(error) = result {
            self.link = None;
            self.status.state = HoldState::Measuring;
            self.status.sentence = error.into_failure(&self.address).message;
        }
    }

    fn attempt(
        &mut self,
        is_listed: Option<bool>,
        connector: Connector<'_>,
        host: &dyn HolderHost,
    ) -> Result<(), ShardError> {
        let address = self.address.clone();
        let failed = |error| ShardError::at(&address, error);
        let mut link = match self.link.take() {
            Some(link) => link,
            None => {
                let mut link = connector.open_node(&address)?;
                link.set_reply_timeout(REPLY_TIMEOUT);
                link
            }
        };
        let clock = self.clock;
        let now = || clock.now();
        let (mut signals, info) = observe(&mut link, clock.begun()).map_err(failed)?;
        if signals.run_id != self.server.run_id {
            self.expired = Expired::default();
        }
        self.server = ServerProcess::of(&link, &address, &info);
        if let Some(reading) = &mut signals.reading {
            reading.expired = self.expired.without_samples(reading.expired);
        }
        // Another process may have written: its record says what the server's own settings are.
        let is_other = self.status.setting.is_some() && signals.configured != self.status.setting;
        if is_other && !self.has_reservation() {
            let found = host.registry().find(&address).ok().flatten();
            self.take_over(found);
        }
        // A name may lead to another server by now, which is found by connecting again.
        self.is_elsewhere = is_listed == Some(true) && !signals.is_primary;
        signals.is_primary &= is_listed.unwrap_or(true);
        (signals.is_scanning, signals.may_write) = (host.is_scanning(&address), host.may_write());
        signals.is_scan_queued = !signals.is_scanning && host.is_scan_queued(&address);
        if self.controller.wants_sample(now(), &signals) {
            self.sample(&mut link, &info, now(), &signals, connector, host)?;
        }
        let (status, action) = self.controller.step(now(), &signals);
        let mut sentence = status.sentence.clone();
        self.status = status;
        self.report_unknown(host);
        let is_restore = action == Action::Restore;
        let outcome = match action {
            Action::None => {
                self.link = Some(link);
                return Ok(());
            }
            Action::Scan => {
                host.scan(&address);
                self.link = Some(link);
                return Ok(());
            }
            Action::Write { parameter, from, value } => {
                let run_id = self.server.run_id.clone();
                let reserved = self.reserve(host);
                let outcome = match &reserved {
                    Ok(true) => {
                        self.link = Some(link);
                        return Ok(());
                    }
                    Ok(false) => {
                        self.written_to = run_id;
                        self.write(&mut link, from, parameter, value, connector, host)
                    }
                    Err(cause) => Outcome::Failed(format!("{cause}; nothing was written")),
                };
                if let Outcome::Failed(cause) | Outcome::PutBack(cause) = &outcome {
                    // The next observation may be the next attempt, whose reason would hide why this one failed.
                    self.status.sentence.clone_from(cause);
                }
                self.controller.written(now(), outcome.clone());
                match (&outcome, self.record(&connector.target.to_string())) {
                    // The record is another holder's.
                    _ if reserved.is_err() => {}
                    // Until the settings are read again, they may not be the server's own.
                    (Outcome::Unknown, _) => {
                        (self.unknown, self.status.setting) = (Some((from, sentence.clone())), None);
                    }
                    // Where this fails the record says that either value may be found.
                    (_, Some(record)) => {
                        let _ = host.registry().save(&record);
                        self.known = Some(record);
                    }
                    (_, None) => self.take_back(connector, host),
                }
                outcome
            }
            Action::Restore => {
                let restore = self.restore(&mut link, connector, host);
                let outcome = restore.as_ref().map(|(outcome, _)| outcome);
                self.status.state = after_restore(&self.status, self.policy.level, outcome);
                let Some((outcome, remark)) = restore else {
                    self.link = Some(link);
                    return Ok(());
                };
                if matches!(outcome, Outcome::Done(_)) {
                    self.written_to.clone_from(&self.server.run_id);
                }
                sentence = restored(sentence, &outcome, self.status.baseline, remark);
                self.status.sentence.clone_from(&sentence);
                self.controller.restored(now(), outcome.clone());
                outcome
            }
        };
        if let (Outcome::Done(to), Some(from)) = (&outcome, self.status.setting) {
            self.status.setting = Some(*to);
            if is_restore && let Some(record) = self.record(&connector.target.to_string()) {
                // Where this fails the record says that the server is to be restored, which then changes nothing.
                let record = BaselineRecord { is_restored: true, ..record };
                let _ = host.registry().save(&record);
                self.known = Some(record);
            }
            if from != *to {
                host.changed(&Change { address, from, to: *to, reason: sentence, is_restore });
            }
        }
        if outcome != Outcome::Unknown {
            self.link = Some(link);
        }
        Ok(())
    }

    /// Reserves the writes of the server process, and takes over what another process has recorded since this one has read the
    /// record. Returns whether there is something to decide on afresh.
    fn reserve(&mut self, host: &dyn HolderHost) -> Result<bool, String> {
        if self.has_reservation() {
            return host.confirm(&self.server).map(|()| false);
        }
        let reservation = Some((self.server.run_id.clone(), host.reserve(&self.server, false)?));
        let found = host.registry().find(&self.address)?;
        let is_new = self.take_over(found);
        self.reservation = reservation;
        Ok(is_new)
    }

    /// Continues with a record that another process has made since this one has read it. Returns whether there is one.
    fn take_over(&mut self, found: Option<BaselineRecord>) -> bool {
        let is_new = found != self.known && found.as_ref().is_some_and(|record| record.baseline.is_written());
        if is_new {
            let status = std::mem::take(&mut self.status);
            let fresh = Self::new(self.address.clone(), self.policy, found, self.clock);
            *self = Self { status, expired: self.expired, server: self.server.clone(), ..fresh };
        }
        is_new
    }

    fn has_reservation(&self) -> bool {
        self.reservation.as_ref().is_some_and(|(run_id, _)| *run_id == self.server.run_id)
    }

    /// Records that nothing was written after all.
    fn take_back(&self, connector: Connector<'_>, host: &dyn HolderHost) {
        let Some(baseline) = self.controller.baseline() else { return };
        let (target, address) = (connector.target.to_string(), &self.address);
        // Only what this process has recorded: there is nothing else without a written value.
        if let Ok(Some(record)) = host.registry().find(address) {
            let times = self.clock.record(&self.controller.times());
            let record = BaselineRecord { target, is_restored: true, times, baseline: baseline.clone(), ..record };
            let _ = host.registry().save(&record);
        }
    }

    /// Restores the server's own settings. Returns what became of it, and a remark for the operator; `None`: another worker or
    /// process holds the server.
    fn restore(
        &mut self,
        link: &mut Link,
        connector: Connector<'_>,
        host: &dyn HolderHost,
    ) -> Option<(Outcome, &'static str)> {
        let record = self.record(&connector.target.to_string())?;
        if !host.is_ours() {
            self.status.sentence = "another worker holds this server; nothing was restored".into();
            return None;
        }
        let reserved = if self.has_reservation() { None } else { Some(host.reserve(&self.server, true)) };
        if let Some(Err(cause)) = reserved {
            self.status.sentence = format!("{cause}; nothing was restored");
            return None;
        }
        let Ok(Restored { outcome, may_be_in_file, .. }) = restore::through(link, &record) else {
            return Some((Outcome::Unknown, ""));
        };
        let outcome = match outcome {
            RestoreOutcome::Restored { to, .. } | RestoreOutcome::Foreign(to) => Outcome::Done(to),
            RestoreOutcome::Unchanged => Outcome::Done(record.baseline.setting()),
            RestoreOutcome::Refused(cause) | RestoreOutcome::Unreached(cause) | RestoreOutcome::Failed(cause) => {
                Outcome::Failed(cause)
            }
        };
        Some((outcome, if may_be_in_file { restore::IN_FILE } else { "" }))
    }

    /// Reports a change whose reply was lost, now that the settings are known.
    fn report_unknown(&mut self, host: &dyn HolderHost) {
        let Some(to) = self.status.setting else { return };
        let Some((from, reason)) = self.unknown.take().filter(|(from, _)| *from != to) else { return };
        let reason = format!("{reason} (the reply was lost)");
        host.changed(&Change { address: self.address.clone(), from, to, reason, is_restore: false });
    }

    /// Samples the server, unless it was sampled a short time ago for another purpose.
    fn sample(
        &mut self,
        link: &mut Link,
        info: &Info,
        now: f64,
        signals: &Signals,
        connector: Connector<'_>,
        host: &dyn HolderHost,
    ) -> Result<(), ShardError> {
        let server = self.server.clone();
        let is_urgent = self.controller.is_sample_urgent(now, signals);
        if !host.reserve_sample(&server, is_urgent) {
            return Ok(());
        }
        let mut has_begun = false;
        let found = sample_share(link, &self.address, info, connector, &mut has_begun);
        match has_begun {
            true => host.sampled(&server, sample_interval(self.controller.reversion(signals))),
            // An urgent sample has reserved nothing.
            false if is_urgent => {}
            false => host.sampled(&server, Duration::ZERO),
        }
        match found {
            Ok((share, reclaimed)) => {
                self.expired.sampled(reclaimed);
                self.controller.sampled(now, share);
            }
            // A right is missing, or the server must not be sampled now.
            Err(ShardError::Fatal(failure)) => self.controller.refused_sample(now, failure.message),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write(
        &mut self,
        link: &mut Link,
        from: CycleSetting,
        parameter: Parameter,
        value: u32,
        connector: Connector<'_>,
        host: &dyn HolderHost,
    ) -> Outcome {
        let target = connector.target.to_string();
        let clock = self.clock;
        writer::write(link, from, parameter, value, |parameter, value| {
            self.controller.intend(clock.now(), parameter, value);
            host.registry().save(&self.record(&target).ok_or("the server's own settings are unknown")?)
        })
    }
}
