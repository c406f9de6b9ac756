//! One shard over one connection: its databases one after the other, slice after slice.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    end_check::EndCheck,
    incomplete::{failure_of_missing_keys, warning_of_missing_keys},
    session::{LazyFreeLease, Session, counters},
    sweeper::ShardSweeper,
};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    pacing::{Throttle, ThrottleContext},
    record::{Order, Pass},
    server::{self, Acquired, ExpirySettings, Setting, release_lazyfree},
    speed::{DISTANT, expected_cost, useful_cursors},
    target::Address,
};

/// How long the sizes after a sweep wait for memory that the server frees in the background.
const LAZY_FREE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two reads of the sizes meanwhile.
const LAZY_FREE_INTERVAL: Duration = Duration::from_millis(50);

impl ShardSweeper<'_> {
    /// Sweeps over one connection, from the checkpoint to the end or to an error.
    pub fn sweep(&mut self) -> Result<(), ShardError> {
        let mut session = self.connect()?;
        self.ever_reached = true;
        // One throttle for the whole connection: the CPU limit is a share of the server, not of a database.
        let context = ThrottleContext {
            options: self.options,
            limits: self.limits(),
            stop: self.connector.stop,
            monitor: self.monitor,
            shard: self.shard,
            tells_time: session.tells_time,
            reports_import_mode: session.settings.reports_import_mode(),
            expected_cost: expected_cost(&session.info),
        };
        // While the latency is measured the network carries this as well.
        let (opener, ahead) = (self.opener(&session), self.connections_ahead(&session));
        let (address, role, state) = (session.address.clone(), session.role.clone(), session.state.clone());
        let (link, profile) = (&mut session.link, &mut self.profile);
        let (throttle, others) = thread::scope(|scope| {
            let opened = (ahead > 0).then(|| scope.spawn(|| opener.open(ahead)));
            let throttle = Throttle::start(link, &address, context, profile, role, state);
            (throttle, opened.and_then(|thread| thread.join().ok()).unwrap_or_default())
        });
        let mut throttle = throttle?;
        session.others = others;
        self.acquire_lazyfree(&mut session)?;
        let swept = self.sweep_databases(&mut session, &mut throttle);
        self.profile.cost_per_unit = throttle.cost_per_unit().or(self.profile.cost_per_unit);
        if let Err(ShardError::Fatal(Failure { kind: FailureKind::Incomplete, .. })) = swept {
            // The sizes are worth reporting also where keys are missing; without a reply the report lacks them.
            let _ = self.record_end(&mut session, &mut throttle, false);
        }
        if let Err(ShardError::Stopped(_)) = swept {
            // A last sample, so that a later run need not repeat the last second. Without a reply it repeats it.
            if throttle.is_clean(&mut session.link) {
                self.state().commit();
            }
            let _ = self.record_end(&mut session, &mut throttle, false);
        }
        if let (Err(ShardError::Stopped(_) | ShardError::Fatal(_)), Some(lease)) = (&swept, &session.lazyfree) {
            // The connection may be what failed; then the owner of the registry releases it later.
            let _ = release_lazyfree(&mut session.link, &*lease.registry, &session.address, &lease.run_id);
        }
        swept?;
        self.record_end(&mut session, &mut throttle, true)?;
        if let Some(lease) = &session.lazyfree {
            let released = release_lazyfree(&mut session.link, &*lease.registry, &session.address, &lease.run_id);
            released.map_err(|error| ShardError::at(&session.address, error))?;
        }
        Ok(())
    }

    /// Returns how many further connections to open before the round trip was measured: those for the keyspace's largest
    /// database, where the server is at a distance beyond doubt.
    fn connections_ahead(&self, session: &Session) -> usize {
        let keys = session.info.keyspace().iter().map(|line| line.keys).max().unwrap_or(0);
        let is_wanted = session.link.round_trip() > DISTANT
            && session.info.is_redis_or_valkey()
            && session.state.0.scan.is_some()
            && Order::is_divided(keys);
        let round_trip = session.link.round_trip();
        if is_wanted { useful_cursors(self.limits().over(round_trip), round_trip) - 1 } else { 0 }
    }

    /// Turns on lazy frees while the sweep runs, where the options ask for it.
    fn acquire_lazyfree(&self, session: &mut Session) -> Result<(), ShardError> {
        let run_id = self.state().checkpoint.run_id.clone();
        let (Some(registry), Some(run_id)) = (&self.options.lazyfree, run_id) else { return Ok(()) };
        let acquired = server::acquire(&mut session.link, &**registry, &session.address, &run_id);
        match acquired.map_err(|error| ShardError::at(&session.address, error))? {
            Acquired::Counted => {
                session.lazyfree = Some(LazyFreeLease { registry: Arc::clone(registry), run_id });
            }
            Acquired::AlreadyOn => {}
            Acquired::Refused(cause) => self.warn(format!("freeing: lazyfree-lazy-expire is left unchanged: {cause}")),
        }
        Ok(())
    }

    /// Sweeps every database that is not done, until a sample shows that expiry was live all the while, or the sums show
    /// it where the server does not report it.
    fn sweep_databases(&mut self, session: &mut Session, throttle: &mut Throttle<'_>) -> Result<(), ShardError> {
        let mut end_check = EndCheck::default();
        loop {
            let databases = self.state().checkpoint.databases.clone();
            let mut roll_back = false;
            for (index, database) in databases.iter().enumerate().filter(|(_, database)| !database.done) {
                roll_back = self.sweep_database(session, throttle, index, database)?.is_break();
                if roll_back {
                    break;
                }
            }
            if roll_back || !throttle.observe(&mut session.link)? {
                match throttle.reports_expiry() {
                    true => self.state().roll_back(),
                    // Whether the pause has ended is unknown, and only the sums of whole passes would show it.
                    false => {
                        end_check.forget_passes();
                        self.state().restart_databases(|_| true);
                    }
                }
                continue;
            }
            let removed = |database| throttle.removals.since_start_of(database);
            let passes = self.state().passes(removed, |database| session.may_expire(database));
            let transactions_in_doubt =
                session.capabilities.transaction && session.settings.nested_expiry == Setting::Unread;
            if self.state().checkpoint.restricted_to.is_some() {
                // The sums of some slots show nothing about a database, but that the pass reclaimed nothing does.
                let reclaimed_nothing = passes.iter().all(|pass| pass.tally.has_reclaimed_nothing());
                if passes.is_empty() || !transactions_in_doubt || !reclaimed_nothing {
                    return Ok(());
                }
                self.review_settings(session, true)?;
                if session.capabilities.transaction {
                    return Ok(());
                }
                self.state().restart_databases(|_| true);
                continue;
            }
            let reports_expiry = throttle.reports_expiry() && !session.settings.are_unread();
            let found = end_check.judge(&passes, reports_expiry, transactions_in_doubt);
            if let Some(sentence) = warning_of_missing_keys(&session.address, &found.unproven) {
                self.warn(sentence);
            }
            if found.again.is_empty() {
                self.state().in_doubt = !found.unproven.is_empty() || passes.iter().any(|pass| pass.tally.is_blurred());
                self.note_repeats(&session.address, &passes);
                let failure = failure_of_missing_keys(&session.address, &found.given_up);
                return failure.map_or(Ok(()), |failure| Err(failure.into()));
            }
            self.monitor.note(match found.plain {
                true => "nothing was reclaimed, and transactions may delete no expired key, so the database is scanned again",
                false => {
                    "keys were neither returned nor reclaimed; expiry may have been paused, so the database is scanned again"
                }
            });
            self.review_settings(session, found.plain)?;
            throttle.wait_for_hidden_pause(found.wait)?;
            self.profile.forward_databases.extend(&found.forward);
            self.state().restart_databases(|database| found.again.contains(&database));
        }
    }

    /// Marks the counts as not exact where the end check could not have found missing keys beside the repeated ones.
    fn note_repeats(&self, address: &Address, passes: &[Pass]) {
        for pass in passes.iter().filter(|pass| pass.tally.is_blurred()) {
            self.state().exact = false;
            self.warn(format!(
                "order: {address} returned many keys of database {} twice, as while its table shrinks, so that keys which the scan left out would not show and the count is not exact; scan again for proof",
                pass.database
            ));
        }
    }

    /// Reads the settings again after a pass whose sums do not add up: one that keeps expired keys may have been changed
    /// since. Where they cannot be read and transactions may hide stale keys, the next pass runs without transactions.
    fn review_settings(&mut self, session: &mut Session, may_hide: bool) -> Result<(), ShardError> {
        let settings = ExpirySettings::read(&mut session.link, &session.info);
        session.settings = settings.map_err(|error| ShardError::at(&session.address, error))?;
        self.apply_check(&session.address, &session.settings.check())?;
        let in_doubt = may_hide && session.settings.nested_expiry == Setting::Unread;
        if session.capabilities.transaction && (in_doubt || session.settings.nested_expiry == Setting::Off) {
            if in_doubt {
                self.warn(format!(
                    "expiry: {} may delete no expired key in transactions (lazyexpire-nested-arbitrary-keys, which CONFIG does not show), so that slices run without one and the count is not exact; grant +config|get",
                    session.address
                ));
            }
            session.capabilities.transaction = false;
            self.profile.plain_slices = true;
            self.state().exact = false;
        }
        Ok(())
    }

    /// Records the sizes once the server has freed what it frees in the background, and what the scan has left if `is_complete`.
    fn record_end(
        &mut self,
        session: &mut Session,
        throttle: &mut Throttle<'_>,
        mut is_complete: bool,
    ) -> Result<(), ShardError> {
        let deadline = Instant::now() + LAZY_FREE_TIMEOUT;
        loop {
            let info = session.link.info(&["memory", "cpu", "persistence", "stats", "keyspace"]);
            let Some(info) = info.map_err(|error| ShardError::at(&session.address, error))? else { return Ok(()) };
            if let Some(check) = server::failed_save(&info) {
                // A warning is no error.
                let _ = self.apply_check(&session.address, &check);
            }
            let mut state = self.state();
            // Once: keys go on to expire.
            if std::mem::take(&mut is_complete)
                && let Some(after) = counters(&info, &state.checkpoint.databases)
            {
                state.record_remaining(after);
            }
            state.checkpoint.used_memory_after = info.number("used_memory");
            state.checkpoint.rss_after = info.number("used_memory_rss");
            drop(state);
            throttle.record_cpu(info.cpu());
            let pending: u64 = info.number("lazyfree_pending_objects").unwrap_or(0);
            if pending == 0 || Instant::now() >= deadline || self.stop().is_raised() {
                return Ok(());
            }
            self.stop().wait_until(Instant::now() + LAZY_FREE_INTERVAL);
        }
    }
}
