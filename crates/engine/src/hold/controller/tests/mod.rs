//! The controller against a simulated server: what it does in each situation, and that its promises hold for thousands of
//! histories.

mod handover;
mod histories;
mod measured;
mod second;
mod world;

use super::*;
use crate::hold::{simulated::Server, state::HoldState};
use world::World;

const E1: CycleSetting = CycleSetting { effort: 1, hz: 10 };

fn quick() -> Policy {
    Policy { interval_seconds: 5, settle_floor_seconds: 15, ..Policy::default() }
}

#[test]
fn churn_that_the_law_explains_is_held_and_the_baseline_restored() {
    let mut world = World::new(Policy { below: 0.08, ..quick() }, Server::new(E1, 1_000.0, 30_000.0), 1);
    world.steps(60);
    assert_eq!(world.state, HoldState::Holding, "{}", world.sentence);
    assert!(world.server.share <= 0.08 && world.server.setting.effort > 4, "{:?}", world.server);
    assert!(world.sentence.contains("it would be 15."), "{}", world.sentence);
    world.end();
    world.steps(2);
    assert_eq!((world.state, world.server.setting), (HoldState::Off, E1));
}

/// What the law explains is no backlog: a scan first, or waiting for one, would be a deadlock.
#[test]
fn a_step_of_the_rate_at_effort_four_is_answered_without_a_scan() {
    let policy = Policy { max_effort: 9, max_hz: Some(30), ..quick() };
    let mut world = World::new(policy, Server::new(E1, 700.0, 20_000.0), 2);
    world.steps(60);
    let before = world.server.setting;
    assert!((3..=5).contains(&before.effort), "{before:?}");
    (world.server.rate, world.server.keys) = (7_000.0, 200_000.0);
    let mut back = None;
    for step in 0..40 {
        world.step();
        assert_ne!(world.state, HoldState::Scanning, "{}", world.sentence);
        if back.is_none() && step > 3 && world.server.share <= 0.1 {
            back = Some(step);
        }
    }
    assert!(back.is_some_and(|step| step * 5 <= 60), "{back:?}: {:?}", world.server);
    assert!(world.server.setting.effort > before.effort && world.state == HoldState::Holding, "{}", world.sentence);
}

#[test]
fn a_setting_is_lowered_when_fewer_keys_expire() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 3);
    world.steps(60);
    let raised = world.server.setting;
    world.server.rate = 10.0;
    world.steps(700);
    assert!(raised.effort > 1 && world.server.setting == E1, "{raised:?}, then {:?}", world.server.setting);
}

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
fn a_target_out_of_reach_is_reported_with_what_would_hold_it() {
    let mut world = World::new(quick(), Server::new(E1, 20_000.0, 500_000.0), 5);
    world.steps(60);
    assert_eq!(world.state, HoldState::CannotHold, "{}", world.sentence);
    assert!(world.sentence.contains("the limits are reached; effort"), "{}", world.sentence);
    assert!(world.sentence.contains("max_added_stall"), "{}", world.sentence);
    assert!(world.server.setting.effort > 1, "what the limits allow is written");
}

#[test]
fn a_cycle_that_always_reaches_its_time_limit_is_reported_as_a_target_out_of_reach() {
    let mut server = Server::new(E1, 1_000.0, 30_000.0);
    server.is_capped = true;
    let mut world = World::new(quick(), server, 15);
    world.steps(60);
    assert_eq!((world.state, world.writes), (HoldState::CannotHold, 0), "{}", world.sentence);
    assert!(world.sentence.contains("reaches its own time limit"), "{}", world.sentence);
}

#[test]
fn a_background_save_restores_the_baseline_for_ten_minutes() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 6);
    world.steps(40);
    assert_ne!(world.server.setting, E1);
    world.server.is_saving = true;
    world.steps(1);
    assert_eq!((world.state, world.server.setting), (HoldState::BackingOff, E1));
    world.server.is_saving = false;
    world.steps(100);
    assert_eq!(world.state, HoldState::BackingOff, "{}", world.sentence);
    world.steps(60);
    assert_ne!(world.server.setting, E1);
}

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

#[test]
fn a_policy_that_allows_less_than_was_written_is_obeyed_though_the_share_rises() {
    let policy = Policy { below: 0.08, max_effort: 9, max_hz: Some(30), ..quick() };
    let mut world = World::new(policy, Server::new(E1, 10_000.0, 300_000.0), 16);
    world.steps(80);
    let raised = world.server.setting;
    assert!(raised.effort > 3 && raised.hz > 10, "{raised:?}: {}", world.sentence);
    world.allow(Policy { max_effort: 3, max_hz: None, ..policy });
    world.steps(30);
    assert_eq!(world.server.setting, CycleSetting { effort: 3, hz: 10 }, "{}", world.sentence);
    assert_eq!(world.controller.baseline().map(Baseline::setting), Some(E1));
}

/// An operator who changes the server's own setting after a restore need not know what keysweep has recorded.
#[test]
fn a_value_that_was_left_is_the_servers_own_for_the_next_hold() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 18);
    world.steps(40);
    world.server.setting.effort = 10;
    world.steps(2);
    assert_eq!(world.state, HoldState::Foreign, "{}", world.sentence);
    world.end();
    world.steps(3);
    assert_eq!(world.state, HoldState::Off, "{}", world.sentence);
    world.server.setting.effort = 2;
    world.crash();
    world.server.file.effort = 2;
    world.steps(60);
    assert_eq!(world.state, HoldState::Holding, "{}", world.sentence);
    world.end();
    world.steps(3);
    assert_eq!(world.server.setting, CycleSetting { effort: 2, hz: 10 }, "{}", world.sentence);
}

#[test]
fn a_value_of_others_stops_everything_and_is_left() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 7);
    world.steps(40);
    world.server.setting.effort = 10;
    world.steps(100);
    assert_eq!((world.state, world.server.setting.effort), (HoldState::Foreign, 10));
    world.end();
    world.steps(3);
    assert_eq!((world.state, world.server.setting.effort), (HoldState::Off, 10), "{}", world.sentence);
    let mut untouched = World::new(quick(), Server::new(E1, 10.0, 30_000.0), 8);
    untouched.steps(10);
    untouched.server.setting.effort = 3;
    untouched.steps(10);
    assert_eq!(untouched.state, HoldState::Holding, "nothing was written before: {}", untouched.sentence);
}

/// Sentinels send CONFIG REWRITE: what was temporary is in the file, and must not be taken for the server's own.
#[test]
fn a_written_value_that_comes_back_from_the_configuration_file_is_no_baseline() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 9);
    world.steps(40);
    let raised = world.server.setting;
    world.server.restart(true);
    world.crash();
    world.steps(5);
    assert_eq!(world.controller.baseline().map(Baseline::setting), Some(E1));
    assert_eq!((world.server.setting, world.state != HoldState::Foreign), (raised, true), "{}", world.sentence);
    world.end();
    world.steps(2);
    assert_eq!(world.server.setting, E1);
}

#[test]
fn a_demoted_node_gets_its_baseline_on_sight() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 10);
    world.steps(40);
    world.server.is_primary = false;
    world.step();
    assert_eq!(world.server.setting, E1, "{}", world.sentence);
}

#[test]
fn a_server_that_refuses_info_gets_its_baseline_and_the_missing_right_is_named() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 32);
    world.steps(40);
    let refused = Signals { configured: Some(world.server.setting), may_write: true, ..Signals::default() };
    let (status, action) = world.controller.step(world.now + 5.0, &refused);
    assert_eq!((status.state, action), (HoldState::Restoring, Action::Restore), "{}", status.sentence);
    assert!(status.sentence.starts_with("INFO is refused; grant +info"), "{}", status.sentence);
    let own = Signals { configured: Some(E1), ..refused };
    let (status, action) = world.controller.step(world.now + 10.0, &own);
    assert_eq!(
        (status.state, action, status.sentence.as_str()),
        (HoldState::Measuring, Action::None, "INFO is refused; grant +info")
    );
}

#[test]
fn a_model_that_does_not_fit_writes_nothing_more() {
    let mut server = Server::new(E1, 1_000.0, 30_000.0);
    server.bias = -0.08;
    let mut world = World::new(Policy { below: 0.02, ..quick() }, server, 11);
    world.steps(2_000);
    assert_eq!((world.state, world.server.setting), (HoldState::Advising, E1), "{}", world.sentence);
    assert!(world.sentence.contains("does not fit"), "{}", world.sentence);
}

#[test]
fn advice_writes_nothing_and_names_the_setting() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 12);
    world.controller.set_policy(Policy { level: Level::Advise, ..world.policy });
    world.steps(20);
    assert_eq!((world.state, world.writes), (HoldState::Advising, 0));
    assert!(world.sentence.contains("effort 4 at hz 10 would hold"), "{}", world.sentence);
}

#[test]
fn twelve_changes_a_day_are_enough() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 13);
    for _ in 0..40 {
        world.steps(160);
        world.server.is_saving = true;
        world.steps(1);
        world.server.is_saving = false;
    }
    assert!((10..=12).contains(&world.writes), "{} writes in {} hours", world.writes, world.now / 3_600.0);
}

#[test]
fn while_the_store_is_away_nothing_is_written_and_nothing_is_restored() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 23);
    world.steps(40);
    let raised = world.server.setting;
    world.stores = false;
    (world.server.rate, world.server.is_saving) = (10_000.0, true);
    world.steps(120);
    assert_eq!((world.state, world.server.setting), (HoldState::Measuring, raised), "{}", world.sentence);
    assert!(world.sentence.contains("changes cannot be recorded"), "{}", world.sentence);
    world.end();
    world.steps(10);
    assert_eq!((world.state, world.server.setting), (HoldState::Restoring, raised), "{}", world.sentence);
    world.stores = true;
    world.step();
    assert_eq!(world.server.setting, E1, "{}", world.sentence);
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
    world.steps(10_000);
    assert_eq!(world.scans, 24, "within {:.0} hours: {}", world.now / 3_600.0, world.sentence);
    assert_eq!((world.state, world.server.setting), (HoldState::Advising, E1), "{}", world.sentence);
    assert!(world.sentence.contains("does not fit"), "{}", world.sentence);
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
        assert_eq!(world.server.setting.effort > 1, steep.is_none(), "{}", world.sentence);
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
