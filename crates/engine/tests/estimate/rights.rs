//! Estimates by a user with few rights leave no trace of what they ask.

use std::time::Duration;

use keysweep_engine::{EstimateRequest, KnownRights, Stop, Target, estimate, link::Plain, stale::Code};
use keysweep_harness::{DataSet, Flavor, Server};
use redis::{Value, from_redis_value};
use rstest::rstest;

use crate::common::{documented, set_user};

/// Returns how many refusals the server has logged since the last time.
fn refusals(server: &Server) -> u64 {
    let mut connection = server.connection();
    let log: Vec<Vec<Value>> = redis::cmd("ACL").arg("LOG").query(&mut connection).expect("ACL LOG");
    redis::cmd("ACL").arg("LOG").arg("RESET").exec(&mut connection).expect("ACL LOG RESET");
    // An entry is names and values in turn, the count first: refusals within a minute share an entry.
    log.iter().map(|entry| from_redis_value::<u64>(entry[1].clone()).expect("a count")).sum()
}

/// Gives the user the documented rights and one more.
fn grant(server: &Server, right: &str) {
    let documented = documented("sweeper").into_iter().filter(|right| !right.starts_with("+cluster"));
    set_user(server, "sweeper", &documented.chain([right.to_owned()]).collect::<Vec<_>>());
}

/// Estimates twice and returns whether CONFIG SET is allowed by each.
fn estimates(server: &Server, no_reclaim: bool, rights: &KnownRights) -> [bool; 2] {
    let target: Target = format!("redis://sweeper:PASSWORD@{}", server.address()).parse().expect("a target");
    let request =
        EstimateRequest { no_reclaim, observe: Duration::ZERO, rights: rights.clone(), ..EstimateRequest::default() };
    [(); 2].map(|()| {
        let found = estimate(&Plain, &target, &request, &Stop::new()).expect("an estimate");
        assert_eq!(found.primaries[0].cycle.effort, Some(1), "CONFIG GET is allowed");
        found.primaries[0].cycle.may_configure
    })
}

#[rstest]
fn estimates_leave_acl_log_empty_where_the_user_may_ask_for_its_rights(
    #[values(Flavor::Redis70, Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
    #[values(true, false)] no_reclaim: bool,
) {
    let server = Server::start(flavor);
    DataSet::new().live(2_000).stale(200).load(&server);
    for (right, is_allowed) in [("+acl|dryrun", false), ("+config|set", true)] {
        grant(&server, "+acl|dryrun");
        grant_more(&server, right);
        refusals(&server);
        let rights = KnownRights::default();
        assert_eq!(estimates(&server, no_reclaim, &rights), [is_allowed; 2], "with {right}");
        assert_eq!(refusals(&server), 0, "with {right}");
    }
}

fn grant_more(server: &Server, right: &str) {
    redis::cmd("ACL").arg("SETUSER").arg("sweeper").arg(right).exec(&mut server.connection()).expect("the rule is one");
}

#[test]
fn an_unknown_share_names_the_right_that_a_sample_lacks() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(21_000).load(&server);
    set_user(&server, "sweeper", &["on", ">PASSWORD", "+@all", "-multi"].map(str::to_owned));
    let target: Target = format!("redis://sweeper:PASSWORD@{}", server.address()).parse().expect("a target");
    let request = EstimateRequest { observe: Duration::ZERO, ..EstimateRequest::default() };
    let found = estimate(&Plain, &target, &request, &Stop::new()).expect("what INFO says");
    assert_eq!((found.total.share, found.total.reclaimed), (None, 0));
    let advice = found.primaries[0].verdict(0.1).advice;
    assert_eq!(advice.code, Code::Unknown, "{advice:?}");
    assert!(advice.reason.contains("not sampled, since a right is missing"), "{advice:?}");
    assert_eq!(advice.remedy.as_deref(), Some("grant +scan +multi +exec +dbsize +select"));
}

#[rstest]
#[case::without_the_command(Flavor::Redis62, 1)]
#[case::without_the_right_to_ask(Flavor::Redis70, 2)]
fn a_question_that_is_logged_is_asked_once_for_each_server_process(#[case] flavor: Flavor, #[case] logged: u64) {
    let mut server = Server::start(flavor);
    DataSet::new().live(2_000).load(&server);
    grant(&server, "+ping");
    refusals(&server);
    let rights = KnownRights::default();
    assert_eq!(estimates(&server, true, &rights), [false; 2]);
    assert_eq!(refusals(&server), logged);
    grant_more(&server, "+config|set");
    assert_eq!(estimates(&server, true, &KnownRights::default()), [true; 2], "another process of keysweep");
    server.stop();
    server.restart();
    grant(&server, "+ping");
    refusals(&server);
    assert_eq!(estimates(&server, true, &rights), [false; 2]);
    assert_eq!(refusals(&server), logged, "another process has a log of its own");
}
