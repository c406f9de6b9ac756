//! One primary over one connection: its databases one after the other, slice after slice.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    checkpoint::DatabaseCheckpoint,
    checks::{self, Check, RELEASES_WHILE_LISTENED_TO, Verdict},
    failure::{Failure, FailureKind, Trouble},
    lazyfree::{self, LazyFreeKeeper, let_go_lazyfree},
    ledger::{Ledger, State},
    link::{Abilities, Link, LinkError, RoleView},
    monitor::Monitor,
    pace::Limits,
    permits::Permits,
    progress,
    rhythm::{Memory, Rhythm, Turn},
    roster::{Roster, Seat, Whereabouts},
    stop::Stop,
    sweep::Options,
    tables::{guess_databases, has_a_table_a_slot, slot_scale},
    tally::{EndCheck, Tally},
    target::{Address, Mode, Target},
    topology::{self, Access, Primary, SlotSet},
};

/// How long the sizes after a sweep wait for memory that the server frees in the background.
const LAZY_FREE_PATIENCE: Duration = Duration::from_secs(2);

/// One shard's sweep.
pub(crate) struct Shard<'a> {
    pub access: Access<'a>,
    pub options: &'a Options,
    pub monitor: &'a dyn Monitor,
    pub roster: &'a Roster<'a>,
    pub seat: &'a Seat,
    /// How many shards may be swept at a time.
    pub permits: &'a Permits,
    /// Sentences for the report's `warnings`.
    pub warnings: &'a Mutex<Vec<String>>,
    /// Whether the target was ever reached, by this sweep or by the one that it goes on from. A first contact that
    /// fails, fails at once: the operator is watching and has mistyped something.
    pub known: bool,
    pub memory: Memory,
}

/// A connection ready for slices.
struct Session {
    address: Address,
    link: Link,
    abilities: Abilities,
    role: RoleView,
    /// Whether each slot has a table of its own, which shapes the cursors.
    table_a_slot: bool,
    lazyfree: Option<HeldLazyFree>,
}

/// A setting of the server's that this sweep has turned on, or counts on.
struct HeldLazyFree {
    keeper: Arc<dyn LazyFreeKeeper>,
    run_id: String,
}

impl Shard<'_> {
    /// Sweeps over one connection, from where the books stand to the end or to what breaks it.
    pub fn sweep(&mut self) -> Result<(), Trouble> {
        let mut session = self.connect()?;
        self.known = true;
        // One rhythm for the whole connection: a duty is a share of the server, not of a database.
        let mut rhythm = Rhythm::begin(&mut session.link, &session.address, self, session.role.clone())?;
        self.hold_lazyfree(&mut session)?;
        let swept = self.sweep_databases(&mut session, &mut rhythm);
        if let Err(Trouble::Halted(_)) = swept {
            // A last look, so that whoever goes on need not repeat the last second. No answer, no harm.
            if rhythm.is_clean(&mut session.link) {
                self.ledger().confirm();
            }
            let _ = self.close_books(&mut session, &mut rhythm);
        }
        if let (Err(Trouble::Halted(_) | Trouble::Fatal(_)), Some(held)) = (&swept, &session.lazyfree) {
            // The connection may be what broke; then the record of it is put right by whoever keeps it.
            let _ = let_go_lazyfree(&mut session.link, &*held.keeper, &session.address, &held.run_id);
        }
        swept?;
        if let Some(held) = &session.lazyfree {
            let gone = let_go_lazyfree(&mut session.link, &*held.keeper, &session.address, &held.run_id);
            gone.map_err(|error| Trouble::at(&session.address, error))?;
        }
        self.close_books(&mut session, &mut rhythm)
    }

    /// Has large values freed in the background while the sweep runs, where that is wished for.
    fn hold_lazyfree(&self, session: &mut Session) -> Result<(), Trouble> {
        let run_id = self.ledger().standing.run_id.clone();
        let (Some(keeper), Some(run_id)) = (&self.options.lazyfree, run_id) else { return Ok(()) };
        let held = lazyfree::hold(&mut session.link, &**keeper, &session.address, &run_id);
        match held.map_err(|error| Trouble::at(&session.address, error))? {
            lazyfree::Held::Ours => session.lazyfree = Some(HeldLazyFree { keeper: Arc::clone(keeper), run_id }),
            lazyfree::Held::OnAnyway => {}
            lazyfree::Held::Refused(cause) => {
                self.warn(format!("freeing: lazyfree-lazy-expire stays as it is: {cause}"))
            }
        }
        Ok(())
    }

    /// Sweeps what is not done, until a look finds that expiry was alive all the while, or the sums do where the server
    /// does not tell.
    fn sweep_databases(&mut self, session: &mut Session, rhythm: &mut Rhythm<'_>) -> Result<(), Trouble> {
        let mut end_check = EndCheck::default();
        loop {
            let databases = self.ledger().standing.databases.clone();
            let mut turned_back = false;
            for (index, database) in databases.iter().enumerate().filter(|(_, database)| !database.done) {
                turned_back = self.sweep_database(session, rhythm, index, database)?.is_break();
                if turned_back {
                    break;
                }
            }
            if turned_back || !rhythm.look(&mut session.link)? {
                match rhythm.shows_expiry() {
                    true => self.ledger().rewind(),
                    // Whether it is still paused is not known, and only the sums of whole passes would tell.
                    false => self.ledger().repeat(|_| true),
                }
                continue;
            }
            // The sums of some slots say nothing about a database.
            if self.ledger().standing.only.is_some() {
                return Ok(());
            }
            let tallies = self.ledger().standing.databases.clone().into_iter().map(|line| (line.database, line.tally));
            let found = end_check.judge(tallies, rhythm.shows_expiry());
            for (database, missing) in found.given_up {
                self.warn(format!(
                    "in database {database} {missing} keys were neither returned nor released, time and again; expiry may be paused (CLIENT PAUSE, a failover): sweep again later"
                ));
            }
            if found.again.is_empty() {
                return Ok(());
            }
            self.monitor.note(
                "keys were neither returned nor released; expiry may have been paused, so the database is swept again",
            );
            rhythm.hold_for_hidden_pause(found.wait)?;
            self.ledger().repeat(|database| found.again.contains(&database));
        }
    }

    /// Finds the primary, now.
    fn find(&mut self) -> Result<(Primary, SlotSet), Trouble> {
        if matches!(self.target().mode, Mode::Server) {
            return Ok((topology::primary(self.access)?, SlotSet::default()));
        }
        match self.roster.whereabouts(self.seat) {
            Whereabouts::At(place) => Ok((topology::enter(&place.address, self.access)?, place.slots)),
            Whereabouts::Dissolved => Err(Trouble::Dissolved),
            Whereabouts::Unknown => Err(Trouble::Demoted),
        }
    }

    /// Finds the primary and decides what of the books is still good for it.
    fn connect(&mut self) -> Result<Session, Trouble> {
        let (mut primary, slots) = self.find()?;
        let moved = self.ledger().standing.address != primary.address.to_string();
        if moved {
            // Another server has other replicas, other rights and other clients.
            self.memory = Memory::default();
        }
        if !self.memory.is_checked() {
            let checks = checks::examine(&mut primary, self.access);
            self.heed(&primary.address, checks.map_err(|error| Trouble::at(&primary.address, error))?)?;
        }
        let Primary { address, mut link, role } = primary;
        link.be_patient_for(self.options.reply_patience);
        let trouble = |error| Trouble::at(&address, error);
        let info = link.info(&["server", "memory", "cluster", "keyspace"]).map_err(trouble)?;
        let (abilities, _) = checks::rights(&mut link).map_err(trouble)?;
        if role == RoleView::Unknown {
            self.warn(format!("{address} does not tell its role; it is taken for a primary"));
        }
        let run_id = info.as_ref().and_then(|info| info.text("run_id")).map(str::to_owned);
        let databases = match &info {
            Some(info) => info.keyspace().into_iter().map(|line| (line.database, line.keys)).collect(),
            None => guess_databases(&mut link).map_err(trouble)?,
        };
        let wanted = |database: u32| self.target().database.is_none_or(|only| only == database);
        let databases: Vec<(u32, u64)> = databases.into_iter().filter(|(database, _)| wanted(*database)).collect();
        if let Some((database, _)) = databases.iter().find(|(database, _)| *database != 0 && !abilities.select) {
            let sentence = format!(
                "{address} refuses SELECT, without which database {database} cannot be swept; grant +select, or name database 0 in the URL"
            );
            return Err(Trouble::Fatal(Failure::new(FailureKind::Denied, sentence)));
        }
        let info = info.unwrap_or_default();
        let table_a_slot = has_a_table_a_slot(&info);

        let mut ledger = self.ledger();
        ledger.server = info.engine_version().map(|version| format!("{} {version}", info.engine()));
        ledger.state = State::Sweeping;
        ledger.exact &= abilities.exact();
        ledger.home = slots.clone();
        let standing = &mut ledger.standing;
        if moved && (!standing.address.is_empty() || self.leads_elsewhere(&address)) {
            self.monitor.note(&format!("{} leads to the primary {address}, which is swept", self.target()));
        }
        if moved || standing.run_id.is_none() || standing.run_id != run_id {
            (standing.address, standing.run_id, standing.covered) = (address.to_string(), run_id, slots);
            ledger.start_again();
        }
        // Slices since the last clean look may have run while expiry was paused, for all that we know now.
        ledger.rewind();
        let standing = &mut ledger.standing;
        standing.used_memory_before = standing.used_memory_before.or(info.number("used_memory"));
        standing.rss_before = standing.rss_before.or(info.number("used_memory_rss"));
        if !table_a_slot {
            standing.only = None;
        }
        let first = standing.only.as_ref().and_then(|only| only.next_from(0)).map_or(0, u64::from);
        for (database, keys) in databases {
            if !standing.databases.iter().any(|known| known.database == database) {
                standing.databases.push(DatabaseCheckpoint {
                    database,
                    keys,
                    cursor: first,
                    done: false,
                    tally: Tally::default(),
                });
            }
        }
        ledger.confirm();
        drop(ledger);
        Ok(Session { address, link, abilities, role, table_a_slot, lazyfree: None })
    }

    /// Whether a server that the target names has led to another.
    fn leads_elsewhere(&self, address: &Address) -> bool {
        matches!(self.target().mode, Mode::Server) && address != self.target().seed()
    }

    /// Does what the checks before the sweep ask for.
    fn heed(&mut self, address: &Address, checks: Vec<Check>) -> Result<(), Trouble> {
        // Where there are several primaries, a warning says which one it is about.
        let whose = if matches!(self.target().mode, Mode::Cluster) { format!("{address}: ") } else { String::new() };
        for check in &checks {
            let remedy = check.remedy.as_deref().unwrap_or_default();
            match check.verdict {
                Verdict::Ok => {}
                // It is about to be turned on.
                Verdict::Warning if check.is_of_freeing() && self.options.lazyfree.is_some() => {}
                Verdict::Slower | Verdict::Warning => {
                    self.warn(format!("{whose}{}: {}; {remedy}", check.name, check.finding));
                }
                Verdict::Refused if check.name == "rights" => {
                    let sentence = format!("{address} may not be swept: {}; {remedy}", check.finding);
                    return Err(Trouble::Fatal(Failure::new(FailureKind::Denied, sentence)));
                }
                Verdict::Refused => {
                    let sentence = format!("{whose}{}: {}; {remedy}", check.name, check.finding);
                    return Err(Trouble::Fatal(Failure::new(FailureKind::Refused, sentence)));
                }
            }
        }
        self.memory.checked(checks.iter().any(Check::caps_releases).then_some(RELEASES_WHILE_LISTENED_TO));
        Ok(())
    }

    /// Says something once, to whoever listens and in the report.
    fn warn(&self, sentence: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&sentence) {
            self.monitor.note(&sentence);
            warnings.push(sentence);
        }
    }

    fn sweep_database(
        &mut self,
        session: &mut Session,
        rhythm: &mut Rhythm<'_>,
        index: usize,
        database: &DatabaseCheckpoint,
    ) -> Result<ControlFlow<()>, Trouble> {
        let address = session.address.clone();
        let trouble = |error| Trouble::at(&address, error);
        self.ledger().database = Some(database.database);
        if database.database != 0 || self.ledger().standing.databases.len() > 1 {
            session.link.call(&[b"SELECT", database.database.to_string().as_bytes()]).map_err(trouble)?;
        }
        let only = self.ledger().standing.only.clone();
        if session.table_a_slot {
            let scale = slot_scale(&mut session.link, only.as_ref(), self.stop()).map_err(trouble)?;
            self.ledger().scales.insert(database.database, scale);
        }
        let mut cursor = database.cursor;
        loop {
            let Turn::Go(count) = rhythm.wait_for_turn(&mut session.link)? else { return Ok(ControlFlow::Break(())) };
            let (sent, offset) = (Instant::now(), rhythm.now());
            let mut slice = session.link.slice(cursor, count, session.abilities).map_err(|error| {
                // An answer that never came may have been a slice that was executed.
                self.ledger().exact &= matches!(error, LinkError::Server(_));
                trouble(error)
            })?;
            let cost = sent.elapsed().saturating_sub(rhythm.others());
            if matches!(slice.role, RoleView::Replica { .. }) {
                return Err(Trouble::Demoted);
            }
            rhythm.record(offset, cost, count, &slice);
            slice.cursor = only.as_ref().map_or(slice.cursor, |only| progress::within(slice.cursor, only));
            self.ledger().enter(index, &slice, cost);
            self.monitor.slice(cost);
            cursor = slice.cursor;
            if cursor == 0 {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// Takes the sizes after the sweep, once the server has freed what it frees in the background.
    fn close_books(&mut self, session: &mut Session, rhythm: &mut Rhythm<'_>) -> Result<(), Trouble> {
        let deadline = Instant::now() + LAZY_FREE_PATIENCE;
        loop {
            let info = session.link.info(&["memory", "cpu"]).map_err(|error| Trouble::at(&session.address, error))?;
            let Some(info) = info else { return Ok(()) };
            let mut ledger = self.ledger();
            ledger.standing.used_memory_after = info.number("used_memory");
            ledger.standing.rss_after = info.number("used_memory_rss");
            drop(ledger);
            rhythm.enter_cpu(info.cpu());
            let pending: u64 = info.number("lazyfree_pending_objects").unwrap_or(0);
            if pending == 0 || Instant::now() >= deadline || self.stop().is_raised() {
                return Ok(());
            }
            self.stop().wait_until(Instant::now() + Duration::from_millis(50));
        }
    }

    /// What may be taken of this shard.
    pub fn limits(&self) -> Limits {
        let limits = self.options.limits;
        // Who says how many releases a second there may be has thought of who listens.
        Limits { releases_per_second: limits.releases_per_second.or(self.memory.releases_cap()), ..limits }
    }

    pub fn target(&self) -> &Target {
        self.access.target
    }

    /// Where the primary was last, or where the target begins.
    pub fn address(&self) -> Address {
        self.ledger().standing.address.parse().unwrap_or_else(|_| self.target().seed().clone())
    }

    pub fn stop(&self) -> &Stop {
        self.access.stop
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.seat.ledger()
    }
}
