//! Scans of batches: when they are asked for, waited for, tried again, and not.

use super::{E1, quick, world::World};
use crate::hold::{action::Scan, policy::Policy, simulated::Server, state::HoldState};

#[test]
fn a_batch_is_scanned_before_anything_is_raised() {
    let mut server = Server::new(E1, 30.0, 1_000_000.0);
    server.batch(0.3);
    let mut world = World::new(quick(), server, 4);
    let mut scanned = false;
    (0..60).for_each(|_| {
        world.step();
        scanned |= world.state == HoldState::Scanning;
    });
    assert!(scanned && world.writes == 0, "{}", world.sentence);
    assert_eq!((world.state, world.server.share < 0.1), (HoldState::Holding, true), "{}", world.sentence);
}

#[test]
fn a_scan_that_waits_for_its_turn_is_waited_for() {
    let mut server = Server::new(E1, 30.0, 1_000_000.0);
    server.batch(0.3);
    let mut world = World::new(quick(), server, 4);
    world.queues = true;
    while world.state != HoldState::Scanning {
        world.step();
    }
    for _ in 0..400 {
        world.step();
        assert_eq!((world.state, world.writes), (HoldState::Scanning, 0), "{}", world.sentence);
    }
    assert!(world.sentence.contains("waits for its turn"), "{}", world.sentence);
    world.server.scan();
    world.steps(60);
    assert_eq!((world.state, world.server.share < 0.1), (HoldState::Holding, true), "{}", world.sentence);
    // A task that could not be created is not waited for.
    world.queues = false;
    world.server.batch(0.3);
    world.controller.scan = Scan::Asked(world.now);
    world.step();
    assert!(matches!(world.controller.scan, Scan::Ended(_)), "{:?}", world.controller.scan);
}

/// With an interval of a minute most scans begin and end between two observations.
#[test]
fn a_scan_that_ends_within_an_interval_counts_as_one() {
    let mut server = Server::new(E1, 30.0, 1_000_000.0);
    server.batch(0.3);
    let mut world = World::new(Policy { interval_seconds: 60, ..quick() }, server, 4);
    while world.state != HoldState::Scanning {
        world.step();
    }
    let (rate, scanned_at) = (world.controller.history.rate(), world.now);
    world.step();
    assert!(matches!(world.controller.scan, Scan::Ended(_)), "{:?}", world.controller.scan);
    assert_eq!(world.controller.history.rate(), rate, "the keys that it has reclaimed did not expire");
    world.steps(3);
    assert!(
        world.controller.share.is_some_and(|(at, share)| at > scanned_at && share.high < 0.1),
        "{}",
        world.sentence
    );
    assert_eq!((world.state, world.writes), (HoldState::Holding, 0), "{}", world.sentence);
}

/// A batch whose scan fails is still there, whatever the law says is held.
#[test]
fn a_scan_that_fails_is_tried_again_and_leaves_nothing_held() {
    let mut server = Server::new(E1, 30.0, 1_000_000.0);
    server.batch(0.3);
    let mut world = World::new(quick(), server, 4);
    world.fails_scans = true;
    while world.scans < 3 {
        world.step();
        assert_ne!(world.state, HoldState::Holding, "{}", world.sentence);
        assert!(world.now < 2_000.0, "{} scans: {}", world.scans, world.sentence);
    }
}

/// Where the share comes back behind each scan, it is the law that does not fit, and scans would go on for ever.
#[test]
fn scans_of_batches_do_not_go_on_for_ever() {
    let mut server = Server::new(E1, 1_000.0, 1_000_000.0);
    (server.bias, server.share) = (0.25, 0.4);
    let mut world = World::new(quick(), server, 31);
    while world.scans < 24 {
        world.step();
        assert!(world.now < 20_000.0, "{} scans: {}", world.scans, world.sentence);
    }
    let writes = world.writes;
    world.steps(5_000);
    assert_eq!(
        (world.scans, world.writes),
        (24, writes),
        "within {:.0} hours: {}",
        world.now / 3_600.0,
        world.sentence
    );
    assert_eq!((world.state, world.server.setting), (HoldState::CannotHold, E1), "{}", world.sentence);
    assert!(world.sentence.contains("24 scans a day are used up"), "{}", world.sentence);
    assert!(world.controller.learned.misfits(world.now), "{:?}", world.controller.learned);
}
