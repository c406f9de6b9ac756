//! All shards of a sweep: who sweeps which primary, and what of it still counts when the topology changes.
//!
//! A shard's seat belongs to the slots that it began with, not to a node: when their primary fails over, the shard goes
//! with them. What a primary covers are the slots that it has owned without a break since its sweep began; slots that
//! come later bring dead keys along that its sweep may have missed, and are swept there again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    checkpoint::{Checkpoint, ShardCheckpoint},
    failure::{Failure, FailureKind},
    ledger::{Ledger, State},
    stop::Stop,
    target::{Mode, Target},
    topology::{Place, SlotSet},
};

/// One shard of a sweep.
pub(crate) struct Seat {
    pub stop: Stop,
    ledger: Mutex<Ledger>,
}

impl Seat {
    fn new(standing: ShardCheckpoint, stop: &Stop) -> Arc<Self> {
        let mut ledger = Ledger::new(standing);
        ledger.home = ledger.standing.covered.clone();
        Arc::new(Self { stop: stop.recallable(), ledger: Mutex::new(ledger) })
    }

    /// The books of the shard.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the shard by a fault of keysweep's own.
    pub fn fail(&self, sentence: String) {
        self.ledger().failure = Some(Failure::new(FailureKind::Internal, sentence));
    }
}

/// Where a shard's primary is now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// There.
    At(Place),
    /// Its slots have gone to primaries that others sweep.
    Dissolved,
    /// Not to be made out now.
    Unknown,
}

/// All shards of a sweep.
pub(crate) struct Roster<'a> {
    target: &'a Target,
    stop: &'a Stop,
    seats: Mutex<Vec<Arc<Seat>>>,
    /// Where the primaries were when somebody last looked.
    places: Mutex<Vec<Place>>,
    /// Whether what an earlier run counted is exact.
    exact_before: bool,
}

impl<'a> Roster<'a> {
    /// The shards that an earlier run of the sweep knew of.
    pub fn new(target: &'a Target, checkpoint: Option<&Checkpoint>, stop: &'a Stop) -> Self {
        let standings = checkpoint.into_iter().flat_map(|checkpoint| checkpoint.shards.iter().cloned());
        let seats: Vec<Arc<Seat>> = standings.map(|standing| Seat::new(standing, stop)).collect();
        let exact_before = checkpoint.is_none_or(|checkpoint| checkpoint.exact);
        Self { target, stop, seats: Mutex::new(seats), places: Mutex::default(), exact_before }
    }

    /// All shards, those that are done and those that have failed included.
    pub fn seats(&self) -> Vec<Arc<Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of where the primaries are now: what has left a primary is no longer covered by its sweep, and who
    /// sweeps a node that is no primary any more is called back.
    pub fn update(&self, places: Vec<Place>) {
        for seat in self.seats() {
            let mut ledger = seat.ledger();
            let place = places.iter().find(|place| place.is_at(&ledger.standing.address));
            match place {
                Some(place) => ledger.standing.covered = ledger.standing.covered.and(&place.slots),
                None if matches!(self.target.mode, Mode::Server) => {}
                None => {
                    ledger.standing.covered = SlotSet::default();
                    if ledger.state == State::Sweeping {
                        seat.stop.recall();
                    }
                }
            }
        }
        *self.places() = places;
    }

    /// Whether a shard is looking for its primary in vain.
    pub fn has_lost_one(&self) -> bool {
        self.seats().iter().any(|seat| seat.ledger().state == State::Away)
    }

    /// The shards that have something to sweep, by where the primaries are now.
    pub fn assign(&self) -> Vec<Arc<Seat>> {
        let places = self.places().clone();
        let mut seats = self.seats();
        match self.target.mode {
            Mode::Cluster => {
                for place in &places {
                    seat_for(place, &places, &mut seats, self.stop);
                }
            }
            Mode::Sentinel { .. } | Mode::Server => {
                if seats.is_empty() {
                    seats.push(Seat::new(ShardCheckpoint::default(), self.stop));
                }
                for seat in seats.iter().filter(|_| matches!(self.target.mode, Mode::Sentinel { .. })) {
                    let mut ledger = seat.ledger();
                    let moved = !places.iter().any(|place| place.is_at(&ledger.standing.address));
                    if ledger.standing.done && moved {
                        ledger.begin_again(None);
                    }
                }
            }
        }
        if let Some(first) = seats.first().filter(|_| !self.exact_before) {
            first.ledger().exact = false;
        }
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&seats);
        seats.retain(|seat| {
            let ledger = seat.ledger();
            !ledger.standing.done && ledger.failure.is_none()
        });
        seats
    }

    /// Where a shard's primary is, as far as is known now.
    pub fn whereabouts(&self, seat: &Seat) -> Whereabouts {
        let places = self.places().clone();
        if !matches!(self.target.mode, Mode::Cluster) {
            return places.into_iter().next().map_or(Whereabouts::Unknown, Whereabouts::At);
        }
        let home = seat.ledger().home.clone();
        let address = seat.ledger().standing.address.clone();
        let shared = |place: &&Place| place.slots.and(&home).len();
        let own = places.iter().find(|place| place.is_at(&address));
        // As long as the shard's own primary keeps any of them, it is the shard's: the others' part is for others.
        let owner = own.filter(|place| shared(place) > 0).or_else(|| places.iter().max_by_key(shared));
        let Some(place) = owner.filter(|place| shared(place) > 0).or(own) else {
            return if places.is_empty() { Whereabouts::Unknown } else { Whereabouts::Dissolved };
        };
        let theirs = place.address.to_string();
        let others = self.seats();
        let taken =
            others.iter().any(|other| !std::ptr::eq(&**other, seat) && other.ledger().standing.address == theirs);
        if taken { Whereabouts::Dissolved } else { Whereabouts::At(place.clone()) }
    }
}

/// Finds or makes the seat of a cluster's primary, and has slots swept again that came to it later.
fn seat_for(place: &Place, places: &[Place], seats: &mut Vec<Arc<Seat>>, stop: &Stop) {
    let address = place.address.to_string();
    let sits = |seat: &&Arc<Seat>| seat.ledger().standing.address == address;
    let orphaned = |seat: &&Arc<Seat>| {
        let ledger = seat.ledger();
        let has_place = places.iter().any(|other| other.is_at(&ledger.standing.address));
        !has_place && !ledger.standing.done && !ledger.home.and(&place.slots).is_empty()
    };
    let Some(seat) = seats.iter().find(sits).or_else(|| seats.iter().find(orphaned)) else {
        let standing = ShardCheckpoint { address, ..ShardCheckpoint::default() };
        let seat = Seat::new(standing, stop);
        seat.ledger().home = place.slots.clone();
        seats.push(seat);
        return;
    };
    let mut ledger = seat.ledger();
    let uncovered = place.slots.without(&ledger.standing.covered);
    if ledger.standing.done && !uncovered.is_empty() {
        ledger.begin_again(Some(&uncovered));
    }
    ledger.home = place.slots.clone();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: &str, slots: &str) -> Place {
        let address = address.parse().expect("an address");
        Place { address, slots: slots.parse().expect("slots"), replicas: Vec::new() }
    }

    fn cluster() -> Target {
        "redis-cluster://a:1,b:1".parse().expect("a target")
    }

    /// What a shard enters into its books when it connects, and when it is through.
    fn sweep(seat: &Seat, place: &Place) {
        let mut ledger = seat.ledger();
        ledger.standing.address = place.address.to_string();
        (ledger.standing.covered, ledger.home) = (place.slots.clone(), place.slots.clone());
        ledger.standing.done = true;
    }

    fn address_of(seat: &Seat) -> String {
        seat.ledger().standing.address.clone()
    }

    #[test]
    fn slots_that_come_to_a_primary_that_was_swept_are_swept_there_and_only_those() {
        let (target, stop) = (cluster(), Stop::new());
        let roster = Roster::new(&target, None, &stop);
        let before = [place("a:1", "0-99"), place("b:1", "100-16383")];
        roster.update(before.to_vec());
        for (seat, place) in roster.assign().iter().zip(&before) {
            sweep(seat, place);
        }
        assert!(roster.assign().is_empty());
        roster.update(vec![place("a:1", "0-199"), place("b:1", "200-16383")]);
        let again = roster.assign();
        assert_eq!(again.iter().map(|seat| address_of(seat)).collect::<Vec<_>>(), ["a:1"]);
        assert_eq!(again[0].ledger().standing.only.clone().map(|only| only.to_string()).as_deref(), Some("100-199"));
    }

    #[test]
    fn a_shard_stays_with_its_primary_as_long_as_that_keeps_one_of_its_slots() {
        let (target, stop) = (cluster(), Stop::new());
        let roster = Roster::new(&target, None, &stop);
        roster.update(vec![place("a:1", "0-99"), place("b:1", "100-16383")]);
        let seats = roster.assign();
        roster.update(vec![place("a:1", "99"), place("b:1", "0-98,100-16383")]);
        assert_eq!(roster.whereabouts(&seats[0]), Whereabouts::At(place("a:1", "99")));
        roster.update(vec![place("b:1", "0-16383")]);
        assert_eq!(roster.whereabouts(&seats[0]), Whereabouts::Dissolved);
        roster.update(vec![place("c:1", "0-99"), place("b:1", "100-16383")]);
        assert_eq!(roster.whereabouts(&seats[0]), Whereabouts::At(place("c:1", "0-99")), "a failover");
    }

    #[test]
    fn a_primary_that_took_over_after_its_shard_was_done_is_swept_as_well() {
        let (target, stop) = (cluster(), Stop::new());
        let roster = Roster::new(&target, None, &stop);
        roster.update(vec![place("a:1", "0-16383")]);
        sweep(&roster.assign()[0], &place("a:1", "0-16383"));
        roster.update(vec![place("c:1", "0-16383")]);
        let seats = roster.assign();
        assert_eq!((seats.len(), address_of(&seats[0]).as_str()), (1, "c:1"));
    }
}
