//! Tests of the end check, some with a server whose keys clients and the server itself change between slices.

use proptest::prelude::*;

use super::*;
use crate::{
    record::{
        Tally,
        examples::{slice, tally},
    },
    server::{KeyspaceCounters, Removals},
};

fn pass(tally: Tally) -> Pass {
    Pass { database: 0, tally, is_even: true, is_divided: false, may_expire: true, removed: None }
}

/// Returns what is missing from database 0, where nothing is known of what others have removed.
fn missing(keys: u64) -> Vec<MissingKeys> {
    vec![MissingKeys { database: 0, keys, removed: None }]
}

#[test]
fn a_database_whose_sums_stay_wrong_is_swept_again_after_longer_waits_and_then_given_up() {
    let incomplete = tally(&[slice(1000, 1000, 300), slice(1000, 900, 400)]);
    let mut check = EndCheck::default();
    let mut judge = || check.judge(&[pass(incomplete), Pass { database: 3, ..pass(Tally::default()) }], false, false);
    for wait in REPEAT_AFTER {
        assert_eq!(judge(), Judgement { again: vec![0], wait, ..Judgement::default() });
    }
    assert_eq!(judge(), Judgement { given_up: missing(200), ..Judgement::default() });
}

/// Judges a pass until its database is not swept again.
fn last_judgement(pass: Pass, reports_expiry: bool) -> Judgement {
    let mut check = EndCheck::default();
    let mut judgements = (0..10).map(|_| check.judge(&[pass], reports_expiry, false));
    judgements.find(|judgement| judgement.again.is_empty()).expect("an end")
}

#[test]
fn a_few_missing_keys_of_a_small_busy_database_are_swept_again_and_then_no_failure() {
    let busy = tally(&[slice(200, 200, 95), slice(200, 200, 99)]);
    assert_eq!(last_judgement(pass(busy), false), Judgement { unproven: missing(6), ..Judgement::default() });
}

#[test]
fn where_removals_are_not_counted_clients_explain_missing_keys_of_an_uneven_keyspace() {
    let (quiet, busy) = (slice(1000, 1000, 250), slice(1010, 1010, 250));
    let uneven = |tally| last_judgement(Pass { is_even: false, ..pass(tally) }, false);
    assert_eq!(uneven(tally(&[quiet.clone(), quiet.clone()])).given_up, missing(500));
    assert_eq!(uneven(tally(&[quiet.clone(), busy.clone()])).unproven, missing(500));
    assert_eq!(last_judgement(pass(tally(&[quiet, busy])), false).given_up, missing(500));
}

#[test]
fn where_removals_are_counted_they_decide_in_any_keyspace() {
    // 500 of 1000 keys are missing while the database grows by ten.
    let busy = tally(&[slice(1000, 1000, 250), slice(1010, 1010, 250)]);
    for (is_even, reports_expiry) in [(true, true), (true, false), (false, true), (false, false)] {
        let judged = |removed| last_judgement(Pass { is_even, removed: Some(removed), ..pass(busy) }, reports_expiry);
        let missing = |removed| vec![MissingKeys { database: 0, keys: 500, removed: Some(removed) }];
        assert_eq!(judged(0).given_up, missing(0));
        assert_eq!(judged(499).given_up, missing(499), "one more than others can have removed");
        assert_eq!(judged(500), Judgement { unproven: missing(500), ..Judgement::default() });
    }
}

#[test]
fn a_single_key_that_nothing_has_removed_fails_the_scan_where_it_stays_missing() {
    let one_left = tally(&[slice(1000, 900, 400), slice(900, 801, 400)]);
    for reports_expiry in [true, false] {
        let judged = |removed| last_judgement(Pass { removed, ..pass(one_left) }, reports_expiry);
        assert_eq!(judged(Some(0)).given_up, [MissingKeys { database: 0, keys: 1, removed: Some(0) }]);
        assert_eq!(judged(Some(1)), Judgement::default());
        assert_eq!(judged(None), Judgement::default());
    }
}

#[test]
fn keys_that_vanish_between_two_slices_are_explained_although_the_server_does_not_count_them() {
    let dropped_slots = Pass { removed: Some(0), ..pass(tally(&[slice(1000, 1000, 400), slice(500, 500, 100)])) };
    assert_eq!(last_judgement(dropped_slots, true), Judgement::default());
}

#[test]
fn a_doubt_causes_one_more_pass_and_only_where_the_server_does_not_report_expiry() {
    let doubtful = tally(&[slice(1000, 900, 400), slice(900, 801, 400)]);
    let passes = [pass(doubtful)];
    let mut check = EndCheck::default();
    assert_eq!(check.judge(&passes, true, false), Judgement::default());
    assert_eq!(check.judge(&passes, false, false).again, [0]);
    assert_eq!(check.judge(&passes, false, false), Judgement::default());
}

#[test]
fn transactions_are_given_up_only_where_they_reclaimed_nothing() {
    let reclaiming = tally(&[slice(1000, 900, 400), slice(900, 801, 400)]);
    let found = EndCheck::default().judge(&[pass(reclaiming)], false, true);
    assert_eq!((found.again, found.plain), (vec![0], false));
    let idle = tally(&[slice(1000, 1000, 999)]);
    let mut check = EndCheck::default();
    assert!(!check.judge(&[pass(reclaiming)], false, true).plain);
    // The setting was turned in the middle of the first pass.
    let found = check.judge(&[pass(idle)], false, true);
    assert_eq!((found.again, found.plain), (vec![0], true));
    assert_eq!(check.judge(&[pass(idle)], false, false), Judgement::default());
}

#[test]
fn transactions_that_reclaimed_nothing_while_clients_wrote_are_given_up_whatever_the_sums_say() {
    // Clients add as many keys as transactions hide.
    let churned = |reclaimed: u64| tally(&[slice(1000, 1000 - reclaimed, 400), slice(1200, 1200, 600)]);
    let idle = Pass { removed: Some(0), ..pass(churned(0)) };
    assert_eq!(idle.tally.missing(), 0, "nothing shows in the sums");
    let mut check = EndCheck::default();
    let found = check.judge(&[idle], false, true);
    assert_eq!((found.again, found.plain, found.wait), (vec![0], true, Duration::ZERO));
    assert_eq!(check.judge(&[idle], false, false), Judgement::default(), "slices run without transactions now");

    let judged = |passes: &[Pass], in_doubt| EndCheck::default().judge(passes, false, in_doubt);
    assert_eq!(judged(&[idle], false), Judgement::default(), "the setting is known");
    assert_eq!(judged(&[Pass { may_expire: false, ..idle }], true), Judgement::default(), "no key has a TTL");
    assert_eq!(judged(&[pass(tally(&[slice(1000, 1000, 1000)]))], true), Judgement::default(), "no client writes");
    let reclaiming = Pass { database: 3, ..pass(churned(5)) };
    assert_eq!(
        judged(&[idle, reclaiming], true),
        Judgement::default(),
        "transactions reclaim keys of another database"
    );
}

#[test]
fn a_pass_in_chunks_is_repeated_in_chunks_and_forward_only_before_the_scan_fails() {
    let incomplete = Pass { is_divided: true, ..pass(tally(&[slice(1000, 1000, 300), slice(1000, 900, 400)])) };
    for (removed, repeats) in [(Some(0), 1), (None, REPEAT_AFTER.len())] {
        let (mut check, divided) = (EndCheck::default(), Pass { removed, ..incomplete });
        for _ in 0..repeats {
            let found = check.judge(&[divided], true, false);
            assert_eq!((found.again, found.forward), (vec![0], vec![]));
        }
        let found = check.judge(&[divided], true, false);
        assert_eq!((found.again, found.forward, found.given_up), (vec![0], vec![0], vec![]));
        let found = check.judge(&[Pass { is_divided: false, ..divided }], true, false);
        assert_eq!((found.again, found.given_up.len()), (vec![], 1));
    }
    // What clients may have removed says nothing about cursors.
    let unproven = Pass { is_even: false, ..pass(tally(&[slice(1000, 1000, 250), slice(1010, 1010, 250)])) };
    let judged = last_judgement(Pass { is_divided: true, ..unproven }, true);
    assert_eq!((judged.forward, judged.unproven.len()), (vec![], 1));
}

#[test]
fn missing_keys_that_removals_explain_cost_no_second_pass_where_the_server_reports_what_hides_keys() {
    let busy = Pass { removed: Some(500), ..pass(tally(&[slice(1000, 1000, 250), slice(1010, 1010, 250)])) };
    let unproven = vec![MissingKeys { database: 0, keys: 500, removed: Some(500) }];
    assert_eq!(EndCheck::default().judge(&[busy], true, false), Judgement { unproven, ..Judgement::default() });
    assert_eq!(EndCheck::default().judge(&[busy], false, false).again, [0], "expiry may have been paused");
    let left_out = Pass { removed: Some(499), ..busy };
    assert_eq!(EndCheck::default().judge(&[left_out], true, false).again, [0]);
}

#[test]
fn what_is_removed_while_another_database_is_swept_again_explains_no_missing_key() {
    let gap = tally(&[slice(1000, 900, 400), slice(900, 850, 400)]);
    let left_out = Pass { removed: Some(0), ..pass(gap) };
    let mut check = EndCheck::default();
    assert_eq!(check.judge(&[left_out], true, false).again, [0]);
    let other = Pass { database: 3, ..left_out };
    let found = check.judge(&[left_out, other], true, false);
    assert_eq!((found.again, found.given_up.len()), (vec![3], 1));
    let later = [Pass { removed: Some(1_000), ..left_out }, Pass { removed: Some(1_000), ..other }];
    let given_up = check.judge(&later, true, false).given_up;
    assert_eq!(given_up, [MissingKeys { database: 0, keys: 50, removed: Some(0) }], "database 3 was swept again");
    check.forget_passes();
    assert!(check.judge(&later, true, false).given_up.is_empty(), "both were");
}

/// Places of a keyspace; a slice visits some of them, and the pass all.
const PLACES: usize = 400;
const SLICES: usize = 20;

/// What happens between two slices, at any place: clients may follow the scan, or keep ahead of it.
#[derive(Debug, Clone, Copy)]
enum Event {
    Add(usize),
    Remove(usize),
    Expire(usize),
    Overwrite,
    Rename(usize, usize),
    SaveBegins,
    SaveEnds,
}

/// A server, the scan of its only database, and what the scan hears of it.
#[derive(Default)]
struct Simulated {
    /// Live keys at each place.
    live: Vec<u64>,
    /// Stale keys, which slices reclaim.
    stale: Vec<u64>,
    /// Keys that slices neither return nor reclaim, as while expiry is paused.
    hidden: Vec<u64>,
    counters: KeyspaceCounters,
    /// Changes before the save that is under way.
    saved: u64,
}

impl Simulated {
    fn new(keys: &[(u64, u64)], hidden: &[usize]) -> Self {
        let mut server = Self { hidden: vec![0; PLACES], ..Self::default() };
        for place in 0..PLACES {
            let (live, stale) = keys[place % keys.len()];
            server.live.push(live);
            server.stale.push(stale);
        }
        hidden.iter().for_each(|place| server.hidden[*place] += 1);
        server
    }

    fn size(&self) -> u64 {
        [&self.live, &self.stale, &self.hidden].into_iter().flatten().sum()
    }

    fn happen(&mut self, event: Event) {
        let take = |keys: &mut u64| {
            let there = *keys > 0;
            *keys -= u64::from(there);
            u64::from(there)
        };
        let counters = &mut self.counters;
        match event {
            Event::Add(place) => (self.live[place], counters.changes) = (self.live[place] + 1, counters.changes + 1),
            Event::Remove(place) => counters.changes += take(&mut self.live[place]),
            Event::Expire(place) => counters.removed += take(&mut self.stale[place]),
            Event::Overwrite => counters.changes += 1,
            Event::Rename(from, to) => {
                let moved = take(&mut self.live[from]);
                self.live[to] += moved;
                counters.changes += moved;
            }
            Event::SaveBegins if !counters.is_saving => (self.saved, counters.is_saving) = (counters.changes, true),
            Event::SaveEnds if counters.is_saving => {
                counters.changes -= self.saved;
                counters.saved_at += 1;
                counters.is_saving = false;
            }
            Event::SaveBegins | Event::SaveEnds => {}
        }
        self.counters.commands += 1;
    }

    fn sample(&self) -> Option<KeyspaceCounters> {
        Some(KeyspaceCounters { keys: self.size(), ..self.counters })
    }

    /// Scans the database while events happen, with a sample of the counters after every `sampled` slices, and while a save is
    /// under way and after it.
    fn pass(&mut self, events: &[Vec<Event>], sampled: usize, is_even: bool) -> Pass {
        let mut removals = Removals::starting_at(self.sample());
        removals.begin_pass(0);
        let mut slices = Vec::new();
        for number in 0..SLICES {
            let was_saving = self.counters.is_saving;
            events.get(number).into_iter().flatten().for_each(|event| self.happen(*event));
            let (before, places) = (self.size(), PLACES / SLICES);
            let visited = number * places..(number + 1) * places;
            let returned: u64 = self.live[visited.clone()].iter().sum();
            let reclaimed: u64 = self.stale[visited].iter_mut().map(std::mem::take).sum();
            self.counters.removed += reclaimed;
            removals.record_reclaimed(reclaimed);
            slices.push(slice(before, before - reclaimed, returned));
            if number % sampled == 0 || was_saving || self.counters.is_saving {
                removals.record(self.sample());
            }
        }
        removals.record(self.sample());
        Pass { is_even, removed: removals.since_start_of(0), ..pass(tally(&slices)) }
    }
}

fn events(most: usize) -> impl Strategy<Value = Vec<Vec<Event>>> {
    let place = || 0..PLACES;
    let event = prop_oneof![
        4 => place().prop_map(Event::Add),
        4 => place().prop_map(Event::Remove),
        2 => place().prop_map(Event::Expire),
        2 => Just(Event::Overwrite),
        1 => (place(), place()).prop_map(|(from, to)| Event::Rename(from, to)),
    ];
    prop::collection::vec(prop::collection::vec(event, 0..=most), SLICES)
}

/// Clients that remove keys ahead of the scan and add as many behind it, so that DBSIZE stays the same, and a save now and then.
fn hostile_events() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let pairs = prop::collection::vec((0..PLACES, 0..PLACES), 0..60);
    prop::collection::vec((pairs, 0u8..6), SLICES).prop_map(|slices| {
        let slices = slices.into_iter().enumerate().map(|(number, (pairs, save))| {
            let cursor = number * (PLACES / SLICES);
            let mut events = Vec::new();
            for (ahead, behind) in pairs {
                events.push(Event::Remove(cursor + ahead % (PLACES - cursor)));
                events.push(Event::Add(behind % cursor.max(1)));
            }
            events.extend(match save {
                0 => Some(Event::SaveBegins),
                1 => Some(Event::SaveEnds),
                _ => None,
            });
            events
        });
        slices.collect()
    })
}

fn keys() -> impl Strategy<Value = Vec<(u64, u64)>> {
    // A few places hold most of the keys, as hot slots do.
    let place = prop_oneof![(0u64..10, 0u64..5), (0u64..400, 0u64..100)];
    prop::collection::vec(place, 1..40)
}

proptest! {
    #[test]
    fn a_scan_that_visits_every_place_never_fails_whatever_clients_do(
        keys in keys(), random in events(60), hostile in hostile_events(), sampled in 1usize..30, is_even in any::<bool>(),
        reports_expiry in any::<bool>(),
    ) {
        for events in [random, hostile] {
            let pass = Simulated::new(&keys, &[]).pass(&events, sampled, is_even);
            prop_assert!(pass.removed.is_some() && pass.left_out() == 0, "{pass:?}");
            prop_assert!(last_judgement(pass, reports_expiry).given_up.is_empty());
        }
    }

    #[test]
    fn keys_that_expire_between_slices_explain_no_gap_twice(
        keys in prop::collection::vec((0u64..10, 1u64..8), 1..40), hidden in prop::collection::vec(0..PLACES, 1..600),
        mut expired in prop::collection::vec(prop::collection::vec((0..PLACES).prop_map(Event::Expire), 0..=90), SLICES),
        sampled in 1usize..30, reports_expiry in any::<bool>(),
    ) {
        // The server's own cycle may remove more keys than are hidden. What it removes before the first slice is in no sum.
        expired[0].clear();
        let pass = Simulated::new(&keys, &hidden).pass(&expired, sampled, true);
        prop_assert_eq!(pass.left_out(), hidden.len() as u64, "{:?}", pass);
        prop_assert_eq!(last_judgement(pass, reports_expiry).given_up.len(), 1);
    }

    #[test]
    fn a_gap_beyond_what_clients_did_fails_the_scan_in_any_keyspace(
        keys in keys(), events in events(3), hidden in prop::collection::vec(0..PLACES, 300..600), sampled in 1usize..30,
        is_even in any::<bool>(), reports_expiry in any::<bool>(),
    ) {
        let mut server = Simulated::new(&keys, &hidden);
        let pass = server.pass(&events, sampled, is_even);
        let judged = last_judgement(pass, reports_expiry);
        let [missing] = judged.given_up[..] else { panic!("no failure: {judged:?} of {pass:?}") };
        // Of 60 events some have added keys ahead of the scan, which stand for missing ones.
        prop_assert!(missing.keys.abs_diff(hidden.len() as u64) <= 60, "{:?}, {} are hidden", missing, hidden.len());
    }
}
