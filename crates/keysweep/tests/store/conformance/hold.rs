//! Policies of holding, the leases of the workers that hold, and the servers' own settings.

use std::time::Duration;

use keysweep::{
    model::{HeldServer, HoldLease, HoldReport, Instance, Stored},
    store::{HoldRenewal, InstanceChanges, ServerReservation, StoreError},
};
use keysweep_engine::{
    Address, Baseline, BaselineRecord, HoldLevel, HoldPolicy, HoldState, HoldStatus, Parameter, RecordedTimes,
    ServerProcess, stale::CycleSetting,
};

use crate::conformance::fresh::{Fresh, assert_missing, at, plain_instance, time};

on_every_engine!(
    a_policy_is_stored_and_replaced,
    one_worker_at_a_time_holds_an_instance_and_the_next_one_takes_over,
    one_instance_at_a_time_holds_a_server,
    one_project_gets_a_part_of_the_places_of_a_worker,
    a_worker_without_the_lease_records_nothing,
    an_instance_whose_servers_were_changed_is_claimed_until_they_are_restored,
    a_worker_that_has_not_come_to_know_leaves_what_was_known,
    a_held_instance_is_neither_moved_nor_removed,
    an_administrator_takes_the_lease_of_a_worker_and_forgets_servers,
    metrics_show_what_a_worker_has_to_hold_or_restore,
);

const LEASE: Duration = Duration::from_secs(60);

fn policy(level: HoldLevel) -> HoldPolicy {
    HoldPolicy { level, below: 0.08, max_hz: Some(30), ..HoldPolicy::default() }
}

fn record(effort: u32) -> BaselineRecord {
    let mut baseline = Baseline::of(CycleSetting { effort: 1, hz: 10 });
    baseline.add(Parameter::Effort, effort);
    let address = Address::tcp("cache.example", 6379);
    BaselineRecord {
        target: "redis://a".into(),
        address,
        run_id: "run".into(),
        is_restored: false,
        times: RecordedTimes { writes: vec![1_700_000_000], recorded_at: 1_700_000_000, ..RecordedTimes::default() },
        baseline,
    }
}

async fn claimed(store: &Fresh, second: i64, owner: &str) -> Vec<HoldLease> {
    store.with_clock(at(second)).claim_holds(owner, LEASE, 10, 10).await.expect("claimed")
}

async fn a_policy_is_stored_and_replaced(store: Fresh) {
    let instance = store.instance_of_its_own("a").await;
    assert_eq!(store.hold(&instance.id).await.expect("read"), None);
    for level in [HoldLevel::Advise, HoldLevel::Hold] {
        let set = store.set_hold(&instance.id, &policy(level)).await.expect("set");
        assert_eq!(store.hold(&instance.id).await.expect("read").as_ref(), Some(&set));
        assert_eq!((set.policy, set.changed, set.servers.len()), (policy(level), false, 0));
    }
    assert_missing(store.set_hold("unknown", &policy(HoldLevel::Hold)).await, "instance");
    assert_eq!(store.holds().await.expect("read").len(), 1);
}

async fn one_worker_at_a_time_holds_an_instance_and_the_next_one_takes_over(store: Fresh) {
    let (held, observed) = (store.instance_of_its_own("a").await, store.instance_of_its_own("b").await);
    store.set_hold(&held.id, &policy(HoldLevel::Hold)).await.expect("set");
    store.set_hold(&observed.id, &policy(HoldLevel::Observe)).await.expect("set");
    let first = claimed(&store, 1, "one").await;
    assert_eq!(first.iter().map(|lease| &lease.instance_id).collect::<Vec<_>>(), [&held.id]);
    assert_eq!(claimed(&store, 2, "two").await, []);
    let status = HoldStatus { state: HoldState::Holding, sentence: "held".into(), ..HoldStatus::default() };
    let servers = [HeldServer { address: record(4).address, status }];
    let failure = Some("a server cannot be reached".to_owned());
    let report = HoldReport { servers: Some(servers.to_vec()), failure: failure.clone() };
    let renewed = store.with_clock(at(3)).renew_hold(&first[0], LEASE, Some(&report)).await.expect("renewed");
    let HoldRenewal::Held(instance, found) = renewed else { panic!("{renewed:?}") };
    assert_eq!((instance.id, found), (held.id.clone(), policy(HoldLevel::Hold)));
    let quiet = store.with_clock(at(3)).renew_hold(&first[0], LEASE, None).await.expect("renewed");
    assert!(matches!(quiet, HoldRenewal::Held(..)), "{quiet:?}");
    let reported = store.hold(&held.id).await.expect("read").expect("held");
    assert_eq!((reported.servers, reported.reported_at), (servers.to_vec(), Some(time(3))), "kept");
    assert_eq!(reported.failure, failure);
    let report = HoldReport::default();
    store.with_clock(at(4)).renew_hold(&first[0], LEASE, Some(&report)).await.expect("renewed");
    let reported = store.hold(&held.id).await.expect("read").expect("held");
    let found = (reported.servers, reported.failure, reported.reported_at);
    assert_eq!(found, (servers.to_vec(), None, Some(time(4))), "servers without news are kept");
    store.spoil_hold_reports().await;
    let again = store.with_clock(at(4)).renew_hold(&first[0], LEASE, None).await.expect("renewed");
    assert!(matches!(again, HoldRenewal::Held(..)), "a renewal does not read the report: {again:?}");
    assert_eq!(claimed(&store, 62, "two").await, [], "the renewal counts");
    let second = claimed(&store, 64, "two").await;
    assert_eq!(second[0].epoch, first[0].epoch + 1);
    let lost = store.with_clock(at(65)).renew_hold(&first[0], LEASE, None).await.expect("an answer");
    assert_eq!(lost, HoldRenewal::Lost);
    store.remove_instance(&held.project_id, &held.id).await.expect("removed");
    let gone = store.with_clock(at(66)).renew_hold(&second[0], LEASE, None).await.expect("an answer");
    assert_eq!(gone, HoldRenewal::Gone);
}

/// Two instances may be names of one server, and their workers may be on two hosts.
async fn one_instance_at_a_time_holds_a_server(store: Fresh) {
    let (a, b) = (store.instance_of_its_own("a").await, store.instance_of_its_own("b").await);
    for instance in [&a, &b] {
        store.set_hold(&instance.id, &policy(HoldLevel::Hold)).await.expect("set");
    }
    let leases = claimed(&store, 1, "one").await;
    let of = |instance: &Instance| leases.iter().find(|lease| lease.instance_id == instance.id).expect("a lease");
    let process =
        |port: u16, run_id: &str| ServerProcess { address: format!("10.0.0.7:{port}"), run_id: run_id.into() };
    let server = process(6379, "run");
    let ask = async |second, lease: &HoldLease, server: &ServerProcess| {
        store.with_clock(at(second)).reserve_server(lease, server).await.expect("an answer")
    };
    let held_by =
        |one: &Instance| ServerReservation::Held { project_id: one.project_id.clone(), name: one.name.clone() };
    assert_eq!(ask(2, of(&a), &server).await, ServerReservation::Reserved);
    assert_eq!(ask(3, of(&a), &server).await, ServerReservation::Reserved, "confirmed");
    assert_eq!(ask(3, of(&b), &server).await, held_by(&a));
    assert_eq!(ask(3, of(&b), &process(6380, "run")).await, ServerReservation::Reserved, "a run id proves nothing");
    assert_eq!(ask(3, of(&a), &process(6380, "run")).await, held_by(&b));
    assert_eq!(ask(3, of(&b), &process(6379, "restarted")).await, held_by(&a), "its worker will see that process");

    // The leases last until second 61. Nothing was written.
    assert_eq!(ask(70, of(&b), &server).await, ServerReservation::Reserved, "no worker holds the other one");
    assert_eq!(ask(140, of(&a), &server).await, ServerReservation::Reserved);
    assert!(store.save_baseline(of(&a), &record(4)).await.expect("saved"));
    assert_eq!(ask(300, of(&b), &server).await, held_by(&a), "the next worker of the other one adopts what it wrote");
    store.release_hold(of(&a), Some(true)).await.expect("released");
    assert_eq!(ask(301, of(&a), &server).await, ServerReservation::Lost);
    assert_eq!(ask(301, of(&b), &server).await, held_by(&a), "a worker has to restore it");
    let next = claimed(&store, 302, "two").await;
    let lease = next.iter().find(|lease| lease.instance_id == a.id).expect("a lease");
    assert_eq!(ask(303, lease, &server).await, ServerReservation::Reserved);
    store.release_hold(lease, Some(false)).await.expect("released");
    let lease = next.iter().find(|lease| lease.instance_id == b.id).expect("a lease");
    assert_eq!(ask(304, lease, &server).await, ServerReservation::Reserved, "it has its own settings");
    store.remove_instance(&b.project_id, &b.id).await.expect("removed");
    let again = claimed(&store, 400, "three").await;
    assert_eq!(ask(401, &again[0], &server).await, ServerReservation::Reserved, "with its instance");
}

async fn one_project_gets_a_part_of_the_places_of_a_worker(store: Fresh) {
    let (greedy, modest) = (store.project("greedy").await, store.project("modest").await);
    let projects = [&greedy, &greedy, &greedy, &greedy, &modest, &modest];
    for (name, project) in ["a", "b", "c", "d", "e", "f"].iter().zip(projects) {
        let instance = plain_instance(project, name);
        store.add_instance(&instance).await.expect("added");
        store.set_hold(&instance.id, &policy(HoldLevel::Hold)).await.expect("set");
    }
    let claim = async |owner: &str, limit| {
        let claimed = store.with_clock(at(1)).claim_holds(owner, LEASE, limit, 3).await.expect("claimed");
        let mut projects = Vec::new();
        for lease in claimed {
            let held = store.instance(&modest.id, &lease.instance_id).await.expect("read");
            projects.push(if held.is_some() { "modest" } else { "greedy" });
        }
        projects.sort_unstable();
        projects
    };
    assert_eq!(claim("one", 2).await, ["greedy", "modest"], "they take turns");
    assert_eq!(claim("one", 10).await, ["greedy", "greedy", "modest"], "three of one project");
    assert_eq!(claim("one", 10).await, [""; 0]);
    assert_eq!(claim("two", 10).await, ["greedy"], "another worker has places of its own");
}

async fn a_worker_without_the_lease_records_nothing(store: Fresh) {
    let instance = store.instance_of_its_own("a").await;
    store.set_hold(&instance.id, &policy(HoldLevel::Hold)).await.expect("set");
    let first = claimed(&store, 1, "one").await.remove(0);
    assert!(store.save_baseline(&first, &record(4)).await.expect("saved"));
    let second = claimed(&store, 100, "two").await.remove(0);
    assert!(!store.save_baseline(&first, &record(7)).await.expect("an answer"), "the lease is lost");
    assert_eq!(store.baseline(&instance.id, &record(4).address).await.expect("read"), Some(record(4)));
    assert!(store.save_baseline(&second, &record(9)).await.expect("saved"));
    assert_eq!(store.baselines(&instance.id).await.expect("read"), [record(9)]);
}

async fn an_instance_whose_servers_were_changed_is_claimed_until_they_are_restored(store: Fresh) {
    let instance = store.instance_of_its_own("a").await;
    store.set_hold(&instance.id, &policy(HoldLevel::Hold)).await.expect("set");
    let lease = claimed(&store, 1, "one").await.remove(0);
    store.save_baseline(&lease, &record(4)).await.expect("saved");
    store.release_hold(&lease, Some(true)).await.expect("released");
    store.set_hold(&instance.id, &policy(HoldLevel::Observe)).await.expect("set");
    let lease = claimed(&store, 2, "two").await.remove(0);
    store.release_hold(&lease, Some(false)).await.expect("released");
    assert_eq!(claimed(&store, 3, "three").await, [], "there is nothing left to hold or restore");
    store.set_hold(&instance.id, &policy(HoldLevel::Hold)).await.expect("set");
    let paused = Instance { paused: true, ..instance.clone() };
    let paused = store.update_instance(&instance, &paused).await.expect("paused");
    assert_eq!(claimed(&store, 4, "four").await, [], "a paused instance is not held");
    store.update_instance(&paused, &Instance { paused: false, ..paused.clone() }).await.expect("resumed");
    assert_eq!(claimed(&store, 5, "five").await.len(), 1);
}

async fn a_worker_that_has_not_come_to_know_leaves_what_was_known(store: Fresh) {
    let instance = store.instance_of_its_own("a").await;
    store.set_hold(&instance.id, &policy(HoldLevel::Hold)).await.expect("set");
    let known = async || {
        let held = store.hold(&instance.id).await.expect("read").expect("held");
        (held.changed, held.failure)
    };
    let failure = Some("a server cannot be reached".to_owned());
    let report = HoldReport { servers: None, failure: failure.clone() };
    let lease = claimed(&store, 1, "one").await.remove(0);
    store.with_clock(at(2)).renew_hold(&lease, LEASE, Some(&report)).await.expect("renewed");
    store.release_hold(&lease, None).await.expect("released");
    assert_eq!(known().await, (false, None), "nothing was written, and what no worker sees is no failure");

    let lease = claimed(&store, 3, "two").await.remove(0);
    store.save_baseline(&lease, &record(4)).await.expect("saved");
    store.with_clock(at(4)).renew_hold(&lease, LEASE, Some(&report)).await.expect("renewed");
    store.release_hold(&lease, None).await.expect("released");
    assert_eq!(known().await, (true, failure), "the next worker has to restore it");
    let lease = claimed(&store, 5, "three").await.remove(0);
    store.release_hold(&lease, Some(false)).await.expect("released");
    assert_eq!(known().await, (false, None));
}

fn assert_held<T: std::fmt::Debug>(result: Result<T, StoreError>, name: &str) {
    match result {
        Err(StoreError::Held(found)) => assert_eq!(found, name),
        other => panic!("{other:?}"),
    }
}

fn moved(instance: &Instance) -> Instance {
    Instance { url: Stored::read("redis://other.example:6379".to_owned()), ..instance.clone() }
}

async fn a_held_instance_is_neither_moved_nor_removed(store: Fresh) {
    let instance = store.instance_of_its_own("a").await;
    store.set_hold(&instance.id, &policy(HoldLevel::Hold)).await.expect("set");
    assert_held(store.update_instance(&instance, &moved(&instance)).await, "a");
    let mapped = Instance { address_map: Some(Stored::read("10.0.0.1=127.0.0.1".to_owned())), ..instance.clone() };
    assert_held(store.update_instance(&instance, &mapped).await, "a");
    let rotated = Instance { username: Some("sweeper".into()), ..instance.clone() };
    let instance = store.update_instance(&instance, &rotated).await.expect("the same servers get the new password");

    let lease = claimed(&store, 1, "one").await.remove(0);
    assert!(store.save_baseline(&lease, &record(4)).await.expect("saved"));
    store.set_hold(&instance.id, &policy(HoldLevel::Observe)).await.expect("set");
    assert_held(store.remove_instance(&instance.project_id, &instance.id).await, "a");
    let removed = InstanceChanges { removed: vec![instance.clone()], ..InstanceChanges::default() };
    assert_held(store.change_instances(&removed).await, "a");
    assert_held(store.with_clock(at(2)).update_instance(&instance, &moved(&instance)).await, "a");

    store.release_hold(&lease, Some(false)).await.expect("released");
    let instance = store.update_instance(&instance, &moved(&instance)).await.expect("its servers are restored");
    assert_eq!(store.baselines(&instance.id).await.expect("read"), [], "records are of the servers before");
    store.remove_instance(&instance.project_id, &instance.id).await.expect("removed");

    let instance = store.instance_of_its_own("b").await;
    store.set_hold(&instance.id, &policy(HoldLevel::Advise)).await.expect("set");
    let lease = claimed(&store, 1, "one").await.remove(0);
    store.set_hold(&instance.id, &policy(HoldLevel::Observe)).await.expect("set");
    assert_held(store.with_clock(at(2)).update_instance(&instance, &moved(&instance)).await, "b");
    let late = store.with_clock(at(100)).update_instance(&instance, &moved(&instance)).await;
    late.expect("the lease has expired");
    let renewed = store.with_clock(at(101)).renew_hold(&lease, LEASE, None).await.expect("an answer");
    assert_eq!(renewed, HoldRenewal::Lost, "a worker that was only late does not go on with the earlier servers");
}

async fn an_administrator_takes_the_lease_of_a_worker_and_forgets_servers(store: Fresh) {
    let instance = store.instance_of_its_own("a").await;
    assert_eq!(store.claim_hold(&instance.id, "admin", LEASE, true).await.expect("answered"), None, "never held");
    store.set_hold(&instance.id, &policy(HoldLevel::Hold)).await.expect("set");
    let first = claimed(&store, 1, "one").await.remove(0);
    assert!(store.save_baseline(&first, &record(4)).await.expect("saved"));
    let admin = store.with_clock(at(2));
    assert_eq!(admin.claim_hold(&instance.id, "admin", LEASE, false).await.expect("answered"), None);
    let second = admin.claim_hold(&instance.id, "admin", LEASE, true).await.expect("claimed").expect("a lease");
    assert_eq!(second.epoch, first.epoch + 1);
    let address = record(4).address;
    assert!(!store.save_baseline(&first, &record(7)).await.expect("an answer"), "the worker records nothing more");
    assert!(!store.forget_baseline(&first, &address).await.expect("an answer"), "without the lease");
    assert!(store.forget_baseline(&second, &address).await.expect("forgotten"));
    assert_eq!(store.baselines(&instance.id).await.expect("read"), []);
    store.release_hold(&second, Some(false)).await.expect("released");
    let third = admin.claim_hold(&instance.id, "admin", LEASE, false).await.expect("claimed").expect("it is free");
    assert_eq!(third.epoch, second.epoch + 1);
}

async fn metrics_show_what_a_worker_has_to_hold_or_restore(store: Fresh) {
    let shown = async || {
        let holds = store.holds().await.expect("read");
        holds.into_iter().map(|hold| (hold.instance_id, hold.policy.level)).collect::<Vec<_>>()
    };
    let instance = store.instance_of_its_own("a").await;
    let at_level = |level| [(instance.id.clone(), level)];
    store.set_hold(&instance.id, &policy(HoldLevel::Observe)).await.expect("set");
    assert_eq!(shown().await, []);
    store.set_hold(&instance.id, &policy(HoldLevel::Advise)).await.expect("set");
    assert_eq!(shown().await, at_level(HoldLevel::Advise));
    let paused = store.paused(&instance, true).await;
    assert_eq!(shown().await, [], "no worker reports about a paused instance");
    let resumed = store.paused(&paused, false).await;
    let lease = claimed(&store, 1, "one").await.remove(0);
    assert!(store.save_baseline(&lease, &record(4)).await.expect("saved"));
    store.paused(&resumed, true).await;
    assert_eq!(shown().await, at_level(HoldLevel::Observe), "its servers have to be restored");
}
