//! Control by samples, where no law predicts the share.

use super::{E1, quick, world::World};
use crate::hold::{policy::Policy, simulated::Server, state::HoldState};

#[test]
fn limits_are_watched_where_there_is_no_law() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 17);
    world.steps(60);
    assert!(world.server.setting.effort > 1, "{}", world.sentence);
    world.has_field_ttls = true;
    world.server.slowness = 30.0;
    world.steps(6);
    assert_eq!((world.state, world.server.setting), (HoldState::BackingOff, E1), "{}", world.sentence);
    assert!(world.sentence.contains("a cycle blocks clients"), "{}", world.sentence);
}

/// How many keys expire in each of several databases is an estimate, so that the share is measured.
#[test]
fn where_several_databases_have_most_keys_the_effort_follows_samples_by_one() {
    let mut server = Server::new(E1, 2_400.0, 60_000.0);
    server.databases = 2;
    let mut world = World::new(Policy { max_effort: 9, ..quick() }, server, 24);
    let mut efforts = vec![E1.effort];
    for _ in 0..400 {
        world.step();
        if efforts.last() != Some(&world.server.setting.effort) {
            efforts.push(world.server.setting.effort);
        }
        assert_eq!(world.server.setting.hz, E1.hz, "{}", world.sentence);
    }
    assert!(efforts.windows(2).all(|two| two[1].abs_diff(two[0]) == 1) && efforts.len() > 2, "{efforts:?}");
    assert_eq!((world.state, world.server.share <= 0.1), (HoldState::Holding, true), "{}", world.sentence);
    world.end();
    world.steps(2);
    assert_eq!(world.server.setting, E1);
}

/// What a scan leaves says nothing about the setting.
#[test]
fn scans_lower_no_effort_that_follows_samples() {
    let mut server = Server::new(E1, 1_200.0, 600_000.0);
    server.databases = 2;
    let mut world = World::new(Policy { max_effort: 9, ..quick() }, server, 28);
    world.steps(2_000);
    let held = (world.server.setting, world.writes);
    assert!(held.0.effort > 1 && world.state == HoldState::Holding, "{held:?}: {}", world.sentence);
    for _ in 0..10 {
        world.server.scan();
        world.steps(200);
        assert_eq!((world.server.setting, world.writes), held, "{}", world.sentence);
    }
}

/// Raised on a batch that no sample shows, cycles would block clients for long.
#[test]
fn where_samples_are_refused_nothing_is_raised_and_the_reason_is_said() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 36);
    for _ in 0..60 {
        world.controller.refused_sample(world.now + 5.0, "grant +multi".into());
        world.step();
    }
    assert_eq!((world.state, world.writes), (HoldState::Measuring, 0), "{}", world.sentence);
    assert_eq!(world.sentence, "the share cannot be sampled: grant +multi");
    world.steps(60);
    assert_eq!((world.state, world.writes > 0), (HoldState::Holding, true), "{}", world.sentence);
}

/// A background save refuses samples, too, and ends.
#[test]
fn a_refusal_changes_nothing_while_an_earlier_sample_still_says_what_is_stale() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 40);
    world.steps(60);
    let (held, writes) = (world.server.setting, world.writes);
    for _ in 0..60 {
        world.controller.refused_sample(world.now + 5.0, "a background save runs".into());
        world.step();
        assert_eq!(world.state, HoldState::Holding, "{}", world.sentence);
    }
    assert_eq!((world.server.setting, world.writes), (held, writes));
}

#[test]
fn a_sample_says_nothing_any_more_once_keys_are_too_few_for_another() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 37);
    world.steps(60);
    assert_eq!((world.state, world.sentence.contains(" to ")), (HoldState::Holding, true), "{}", world.sentence);
    world.server.keys = 15_000.0;
    world.steps(60);
    assert!(world.sentence.starts_with("about "), "{:?}: {}", world.state, world.sentence);
}

#[test]
fn where_hardly_any_keys_with_a_ttl_are_left_the_server_gets_its_own_settings() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 38);
    world.steps(60);
    assert_ne!(world.server.setting, E1);
    (world.server.keys, world.server.rate) = (2_000.0, 60.0);
    world.steps(40);
    assert_eq!((world.state, world.server.setting), (HoldState::Holding, E1), "{}", world.sentence);
}

/// Without samples nothing would ever lower them again. Bursts that end bring the law back.
#[test]
fn a_server_with_too_few_keys_for_samples_gets_its_own_settings_after_an_hour_without_a_law() {
    let mut world = World::new(quick(), Server::new(E1, 1_000.0, 30_000.0), 39);
    world.steps(60);
    assert_ne!(world.server.setting, E1);
    world.has_field_ttls = true;
    (world.server.keys, world.server.rate) = (10_000.0, 300.0);
    let begun = world.now;
    while world.now < begun + 3_500.0 {
        world.step();
        assert_ne!(world.server.setting, E1, "{}", world.sentence);
    }
    world.steps(40);
    assert_eq!((world.state, world.server.setting), (HoldState::Holding, E1), "{}", world.sentence);
    assert!(world.sentence.contains("10000 keys are too few for samples"), "{}", world.sentence);
}
