//! What the next holder of a server continues with after a crash.

use super::{E1, quick, world::World};
use crate::hold::{
    policy::{Level, Policy},
    simulated::Server,
    state::HoldState,
};
use crate::stale::{CycleCost, CycleSetting};

/// The next holder continues with the times of the last one.
#[test]
fn a_crash_frees_no_holder_from_the_settling_time_or_from_the_twelve_changes_a_day() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 300_000.0), 20);
    while world.writes == 0 {
        world.step();
    }
    let raised = world.server.setting;
    world.crash();
    world.step();
    assert_eq!((world.state, world.server.setting), (HoldState::Settling, raised), "{}", world.sentence);
    // Three time constants of a share of 15 %, which are longer than the floor.
    world.steps(40);
    assert_eq!(world.writes, 1, "{}", world.sentence);
    let mut busy = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 13);
    for _ in 0..40 {
        busy.steps(160);
        busy.server.is_saving = true;
        busy.steps(1);
        busy.server.is_saving = false;
        busy.crash();
    }
    assert!((10..=12).contains(&busy.writes), "{} writes in {} hours", busy.writes, busy.now / 3_600.0);
}

#[test]
fn a_crash_does_not_end_backing_off() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 6);
    world.steps(40);
    world.server.is_saving = true;
    world.steps(1);
    world.server.is_saving = false;
    world.crash();
    world.steps(100);
    assert_eq!((world.state, world.server.setting), (HoldState::BackingOff, E1), "{}", world.sentence);
    world.steps(60);
    assert_ne!(world.server.setting, E1, "{}", world.sentence);
}

#[test]
fn a_crash_behind_a_lost_reply_leaves_either_value_and_no_other() {
    for is_applied in [true, false] {
        let mut world = World::new(Policy { below: 0.06, ..quick() }, Server::new(E1, 1_000.0, 30_000.0), 21);
        world.loses_reply = Some(is_applied);
        while world.writes == 0 {
            world.step();
        }
        assert_eq!(world.server.setting != E1, is_applied);
        world.crash();
        world.steps(60);
        assert_eq!((world.state, world.writes > 1), (HoldState::Holding, true), "{}", world.sentence);
    }
}

/// A file may hold what was written before the last write. It was not left there, so nothing goes on with it; a restore replaces it.
#[test]
fn a_value_that_was_written_before_the_last_one_is_foreign_and_restored() {
    let mut world = World::new(Policy { below: 0.06, ..quick() }, Server::new(E1, 1_000.0, 30_000.0), 22);
    while world.writes == 0 {
        world.step();
    }
    world.server.file = world.server.setting;
    world.steps(40);
    let (first, last) = (world.server.file, world.server.setting);
    assert!(world.writes > 1 && first != last, "{first:?}, then {last:?}");
    let writes = world.writes;
    world.server.restart(false);
    world.crash();
    world.steps(40);
    assert_eq!((world.state, world.server.setting, world.writes), (HoldState::Foreign, first, writes));
    world.end();
    world.steps(3);
    assert_eq!((world.state, world.server.setting), (HoldState::Off, E1), "{}", world.sentence);
}

/// Behind a scan the cycle visits many keys for each that it removes, which says nothing about what a visit costs.
#[test]
fn a_holder_that_begins_behind_a_scan_takes_the_cycle_for_no_dearer() {
    let mut world = World::new(quick(), Server::new(E1, 1_500.0, 440_000.0), 30);
    world.server.slowness = 2.0;
    world.server.scan();
    for _ in 0..12 {
        world.server.advance(5.0);
    }
    assert!(world.server.share < 0.08, "{:?}", world.server);
    world.steps(6);
    let (learned, real) = (world.controller.learned.cost, CycleCost::default());
    assert!((1.6..2.5).contains(&(learned.visit / real.visit)), "{learned:?}: {}", world.sentence);
}

/// A refused value was never there: an operator who follows the advice sets it, and it is the server's own then.
#[test]
fn a_refused_value_is_not_taken_for_a_written_one() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 25);
    world.refuses = true;
    while world.record.is_none() {
        world.step();
    }
    assert_eq!((world.server.setting, world.writes), (E1, 0));
    world.server.setting.effort = 4;
    for _ in 0..2 {
        world.steps(60);
        assert_eq!(world.state, HoldState::Holding, "{}", world.sentence);
        world.crash();
    }
    world.end();
    world.steps(3);
    assert_eq!((world.state, world.server.setting.effort), (HoldState::Off, 4), "{}", world.sentence);
}

/// A setting that an operator sets after a finished restore is left, though keysweep once wrote the same value.
#[test]
fn what_an_operator_sets_after_a_restore_is_left() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 26);
    world.steps(40);
    let raised = world.server.setting;
    world.end();
    world.steps(3);
    assert_eq!(world.server.setting, E1, "{}", world.sentence);
    world.crash();
    world.controller.set_policy(Policy { level: Level::Advise, ..world.policy });
    world.server.setting = raised;
    world.steps(20);
    assert_eq!((world.state, world.server.setting), (HoldState::Foreign, raised), "{}", world.sentence);
    world.end();
    world.steps(3);
    assert_eq!((world.state, world.server.setting), (HoldState::Off, raised), "{}", world.sentence);
}

/// The Sentinels have rewritten the file of a primary before it was restored: each restart brings back what was temporary.
#[test]
fn a_restored_replica_that_restarts_with_what_was_written_last_is_restored_again() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 33);
    world.steps(40);
    let raised = world.server.setting;
    (world.server.file, world.server.is_primary) = (raised, false);
    world.step();
    assert_eq!(world.server.setting, E1, "{}", world.sentence);
    for crashes in [false, true] {
        world.server.restart(false);
        if crashes {
            world.crash();
        }
        assert_eq!(world.server.setting, raised);
        world.steps(2);
        assert_eq!(world.server.setting, E1, "{:?}: {}", world.state, world.sentence);
    }
}

/// A restart has brought back the server's own settings before keysweep did: nothing of keysweep is left there.
#[test]
fn what_an_operator_sets_after_a_restart_is_left_though_keysweep_wrote_the_same_value_before() {
    for crashes in [false, true] {
        let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 34);
        world.steps(40);
        let raised = world.server.setting;
        world.server.restart(false);
        assert_eq!((world.server.setting, raised != E1), (E1, true));
        if crashes {
            world.crash();
        }
        world.end();
        world.steps(2);
        let record = world.record.clone().expect("a record");
        assert!(world.state == HoldState::Off && record.is_restored, "{record:?}");
        world.server.setting = raised;
        world.controller.set_policy(Policy { level: Level::Advise, ..world.policy });
        world.steps(20);
        assert_eq!((world.state, world.server.setting), (HoldState::Foreign, raised), "{}", world.sentence);
    }
}

/// After a restore an operator changes the configuration file and restarts the server.
#[test]
fn what_a_restored_server_is_restarted_with_is_its_own_where_keysweep_never_wrote_it() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 35);
    world.steps(40);
    world.server.is_primary = false;
    world.step();
    assert_eq!(world.server.setting, E1, "{}", world.sentence);
    let own = CycleSetting { effort: 10, hz: 10 };
    (world.server.file, world.server.is_primary) = (own, true);
    world.server.restart(false);
    world.steps(60);
    assert_eq!((world.state, world.server.setting), (HoldState::Holding, own), "{}", world.sentence);
    world.end();
    world.steps(3);
    assert_eq!((world.state, world.server.setting), (HoldState::Off, own), "{}", world.sentence);
}
