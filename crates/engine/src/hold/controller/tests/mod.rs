//! The controller against a simulated server: what it does in each situation, and that its promises hold for thousands of
//! histories.

mod handover;
mod histories;
mod limits;
mod measured;
mod scans;
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
fn without_a_change_left_a_setting_that_would_be_lowered_holds_the_target_all_the_same() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 39);
    world.steps(60);
    let raised = world.server.setting;
    world.controller.writes = [world.now; 12].into();
    world.server.rate = 10.0;
    world.steps(700);
    assert_eq!((world.state, world.server.setting), (HoldState::Holding, raised), "{}", world.sentence);
    assert!(world.sentence.contains("12 changes a day are used up"), "{}", world.sentence);
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
