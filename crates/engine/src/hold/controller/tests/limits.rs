//! Limits of what the cycle takes: predicted before a raise, watched afterwards.

use super::{E1, quick, world::World};
use crate::hold::{policy::Policy, simulated::Server, state::HoldState};

/// Where the operator consents to a higher hz, it spreads the same work over more cycles; the settings need not be given up.
#[test]
fn cycles_that_become_too_long_are_made_shorter_by_hz_and_much_longer_ones_are_given_up_at_once() {
    let held = |max_hz| {
        let policy = Policy { max_hz, max_effort: 6, max_added_cpu: 0.1, ..quick() };
        let mut world = World::new(policy, Server::new(E1, 2_000.0, 60_000.0), 14);
        world.steps(60);
        assert_eq!((world.state, world.server.setting.hz), (HoldState::Holding, 10), "{}", world.sentence);
        let usual = world.controller.history.load.expect("a load") / 10.0;
        // The stall that lies a little above the limit of one millisecond.
        world.server.slowness = (usual + 0.0013) / usual;
        world.step();
        world
    };
    let mut consented = held(Some(50));
    assert!(
        consented.server.setting.hz > 10 && consented.sentence.contains("makes it shorter"),
        "{}",
        consented.sentence
    );
    consented.steps(60);
    assert_eq!(consented.state, HoldState::Holding, "{}", consented.sentence);
    let mut refused = held(None);
    assert_ne!(refused.state, HoldState::BackingOff, "one interval is chance: {}", refused.sentence);
    // Then the model knows that every cycle of this server takes longer, also those with its own settings.
    refused.steps(20);
    assert_eq!((refused.state, refused.writes > 0), (HoldState::Holding, true), "{}", refused.sentence);
    refused.server.slowness *= 4.0;
    refused.step();
    assert_eq!((refused.state, refused.server.setting), (HoldState::BackingOff, E1), "{}", refused.sentence);
}

/// On some machines a stronger setting costs more than the law predicts. It is given up at once; then the highest that keeps the
/// limits is held, so that the settings do not go up and down for ever.
#[test]
fn an_effort_that_breaks_a_limit_is_given_up_and_not_tried_again_while_as_many_keys_expire() {
    let reached = |steep| {
        let mut server = Server::new(E1, 20_000.0, 500_000.0);
        server.steep = steep;
        let mut world = World::new(quick(), server, 5);
        world.steps(200);
        assert_eq!(world.state, HoldState::CannotHold, "{}", world.sentence);
        world
    };
    let without = reached(None);
    let lawful = without.server.setting.effort;
    assert!(lawful > 2 && without.restores == 0, "{lawful}");
    let mut world = reached(Some((lawful, 1.3)));
    assert_eq!(world.restores, 1, "it was tried once");
    assert!((2..lawful).contains(&world.server.setting.effort), "{:?}: {}", world.server.setting, world.sentence);
    let said = format!("at effort {lawful}, a cycle blocks clients");
    assert!(
        world.sentence.contains("the limits are reached; effort") && world.sentence.contains(&said),
        "{}",
        world.sentence
    );
    let writes = world.writes;
    world.steps(400);
    // The next holder knows which effort broke the limit.
    world.crash();
    world.steps(400);
    assert_eq!((world.state, world.writes), (HoldState::CannotHold, writes), "{}", world.sentence);
    assert!(world.sentence.contains(&said), "{}", world.sentence);
    (world.server.rate, world.server.keys) = (1_000.0, 30_000.0);
    world.steps(200);
    assert_eq!(world.state, HoldState::Holding, "{}", world.sentence);
}

/// The cost is measured with the server's own settings, before the first raise.
#[test]
fn a_server_whose_cycles_take_twice_as_long_is_raised_less_from_the_start() {
    let reached = |slowness| {
        let mut server = Server::new(E1, 20_000.0, 500_000.0);
        server.slowness = slowness;
        let mut world = World::new(quick(), server, 19);
        for _ in 0..100 {
            world.step();
            assert_ne!(world.state, HoldState::BackingOff, "{}", world.sentence);
        }
        assert_eq!(world.state, HoldState::CannotHold, "{}", world.sentence);
        world.server.setting.effort
    };
    assert!(reached(2.0) < reached(1.0));
}

#[test]
fn a_limit_that_is_broken_while_nothing_can_be_recorded_restores_the_baseline() {
    let mut world = World::new(quick(), Server::new(E1, 20_000.0, 500_000.0), 5);
    world.steps(60);
    let raised = world.server.setting;
    assert!(raised.effort > 2, "{raised:?}");
    world.server.steep = Some((raised.effort, 1.3));
    world.controller.failure = Some("the disk is full".into());
    let mut steps = 0;
    while world.server.setting == raised && steps < 20 {
        world.step();
        steps += 1;
    }
    assert_eq!((world.state, world.server.setting), (HoldState::BackingOff, E1), "{}", world.sentence);
}

/// After a restart with the raised setting in its file, what the cycle takes may be the cost of that setting alone, and a limit must not
/// be broken unseen. A slow server gets its own settings back then, where its cost is measured.
#[test]
fn a_cost_that_was_never_measured_with_the_servers_own_settings_is_not_taken_for_theirs() {
    for (steep, slowness) in [(Some((4, 1.9)), 1.0), (None, 1.9)] {
        let mut world =
            World::new(Policy { below: 0.04, max_effort: 5, ..quick() }, Server::new(E1, 4_000.0, 100_000.0), 34);
        world.steps(60);
        assert_eq!(world.server.setting.effort, 5, "{}", world.sentence);
        world.server.restart(true);
        (world.server.steep, world.server.slowness) = (steep, slowness);
        world.steps(40);
        assert_eq!(world.server.setting.effort, 5, "{}", world.sentence);
        world.server.rate = 20_000.0;
        world.steps(10);
        assert_eq!((world.state, world.server.setting), (HoldState::BackingOff, E1), "{}", world.sentence);
        world.steps(400);
        // Then an effort that keeps the limits is held: below the dear ones, or lower on a slow server.
        assert!((2..5).contains(&world.server.setting.effort), "{}", world.sentence);
    }
}

/// A floor of ten minutes must not let a limit be broken for ten minutes.
#[test]
fn a_limit_that_a_write_breaks_by_far_is_seen_at_once() {
    let policy = Policy { settle_floor_seconds: 600, ..quick() };
    let mut world = World::new(policy, Server::new(E1, 1_000.0, 30_000.0), 27);
    while world.writes == 0 {
        world.step();
    }
    world.server.steep = Some((2, 30.0));
    world.step();
    assert_eq!((world.state, world.server.setting), (HoldState::BackingOff, E1), "{}", world.sentence);
    assert!(world.sentence.contains("a cycle blocks clients"), "{}", world.sentence);
}

/// The stale keys that a stronger setting no longer leaves are removed once, which takes seconds where keys are many.
#[test]
fn what_a_write_makes_the_cycle_remove_breaks_no_limit() {
    let policy = Policy { interval_seconds: 20, settle_floor_seconds: 60, ..Policy::default() };
    let mut world = World::new(policy, Server::new(E1, 10_000.0, 20_000_000.0), 29);
    while world.writes == 0 {
        world.step();
    }
    let raised = world.server.setting;
    world.step();
    let stall = world.true_stall();
    assert!(stall > 2.0 * policy.max_added_stall_ms / 1e3, "{stall} s in the first interval");
    world.steps(300);
    assert_eq!(world.restores, 0, "{}", world.sentence);
    assert!(world.server.setting.effort >= raised.effort, "{:?}", world.server.setting);
}
