//! Estimates: who makes the next one, the latest, the history and its marks.

use std::time::Duration;

use jiff::Timestamp;
use keysweep::{
    model::{
        EstimateTotal, EstimatedPrimary, HeldServer, HoldReport, Instance, InstanceEstimate, InstanceStats,
        LatestEstimate, Mark, MarkKind, PollCode, PollFailure, Reason, Sampling, Stored,
    },
    store::{Pruned, Store, TaskResult},
};
use keysweep_engine::{
    Address, Cycle, Finding, HoldLevel, HoldPolicy, HoldState, HoldStatus, Inspection, Method, ServerProcess,
    stale::{Advice, Code, Share},
};
use serde_json::json;

use crate::conformance::{
    fresh::{Fresh, LEASE, assert_missing, at, id, plain_instance, success, time},
    schedule::scanned,
};

on_every_engine!(
    first_estimates_are_spread_over_minutes,
    a_background_estimate_is_claimed_once,
    instances_that_may_not_be_estimated_are_left_out,
    a_sample_of_a_server_is_reserved_for_all_instances_and_replicas,
    a_held_instance_leaves_the_next_sample_to_others,
    the_latest_estimate_comes_back,
    an_estimate_of_another_version_is_left_out,
    the_history_keeps_an_hour_then_a_day,
    the_history_of_a_held_instance_has_what_hold_has_sampled,
    estimates_end_with_the_url_of_their_server,
    marks_are_bounded_and_age,
    a_finished_scan_leaves_a_mark,
    a_successful_scan_brings_the_next_estimate_and_sample_forward_to_five_minutes,
    a_setting_that_others_change_between_two_estimates_leaves_a_mark,
);

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const SOON: Duration = Duration::from_secs(300);

fn estimate(taken_at: Timestamp, shares: &[f64]) -> InstanceEstimate {
    let primary = |(number, share): (usize, &f64)| EstimatedPrimary {
        address: format!("10.0.0.{number}:6379"),
        finding: Finding {
            keys: 1_000,
            keys_with_ttl: 900,
            share: Some(*share),
            share_low: Some(share / 2.0),
            bytes: Some(u64::MAX),
            method: Some(Method::Replica),
            expiry_rate: Some(12.5),
            ..Finding::default()
        },
        approximate: number == 1,
        used_memory: Some(1 << 40),
        verdict: Advice {
            code: Code::ScanOnce,
            reason: "a batch has expired".into(),
            remedy: None,
            interval_seconds: None,
            setting: None,
        },
        notes: vec!["database 1 is too small to matter".into()],
        cycle: Cycle::default(),
        gap: None,
    };
    let primaries = shares.iter().enumerate().map(primary).collect();
    InstanceEstimate { taken_at, total: Finding { keys: 1_000, ..Finding::default() }, primaries }
}

/// Adds an instance whose server has answered and whose first estimate is due.
async fn polled(store: &Fresh, name: &str) -> Instance {
    let instance = store.instance_of_its_own(name).await;
    record_poll(store, &instance).await;
    store.with_clock(at(0)).defer_estimate(&instance, Duration::ZERO).await.expect("due");
    instance
}

async fn record_poll(store: &Store, instance: &Instance) {
    let stats = InstanceStats { server: Inspection::default(), seen_at: time(0) };
    store.record_stats(instance, &stats).await.expect("kept");
}

async fn claimed(store: &Store, now: i64, limit: u32) -> Vec<String> {
    let claimed = store.with_clock(at(now)).claim_estimates(LEASE, limit, &[]).await.expect("claimed");
    let mut names: Vec<String> = claimed.into_iter().map(|instance| instance.name).collect();
    names.sort();
    names
}

async fn a_background_estimate_is_claimed_once(store: Fresh) {
    let one = polled(&store, "one").await;
    polled(&store, "two").await;
    let first = claimed(&store, 0, 1).await;
    let second = claimed(&store, 1, 8).await;
    assert_eq!((first.len(), second.len()), (1, 1), "another replica takes the rest");
    assert_ne!(first, second);
    assert_eq!(claimed(&store, 14, 8).await, [""; 0]);
    store.with_clock(at(14)).record_estimate(&one, &estimate(time(14), &[0.1]), SOON).await.expect("kept");
    assert_eq!(claimed(&store, 16, 8).await, ["two"], "its replica has died");
    assert_eq!(claimed(&store, 313, 8).await, ["two"]);
    assert_eq!(claimed(&store, 314, 8).await, ["one"]);
    store.with_clock(at(315)).defer_estimate(&one, SOON).await.expect("deferred");
    assert_eq!(claimed(&store, 614, 8).await, ["two"]);
    assert_missing(store.defer_estimate(&Instance { id: id("absent"), ..one }, SOON).await, "instance");
}

async fn first_estimates_are_spread_over_minutes(store: Fresh) {
    let project = store.project("shop").await;
    for number in 0..40 {
        let instance = plain_instance(&project, &format!("{number}"));
        store.add_instance(&instance).await.expect("added");
        record_poll(&store, &instance).await;
    }
    let mut due = Vec::new();
    for minute in 1..=5 {
        let store = store.with_clock(at(minute * 60 - 1));
        due.push(store.claim_estimates(Duration::from_secs(3_600), 40, &[]).await.expect("claimed").len());
    }
    assert!(due[0] == 0 && due[1..].iter().all(|due| (1..40).contains(due)), "{due:?}");
    assert_eq!(due.iter().sum::<usize>(), 40);
}

async fn instances_that_may_not_be_estimated_are_left_out(store: Fresh) {
    let off = polled(&store, "off").await;
    let changed = Instance { sampling: Sampling::Off, ..off.clone() };
    store.update_instance(&off, &changed).await.expect("changed");
    let paused = polled(&store, "paused").await;
    store.update_instance(&paused, &Instance { paused: true, ..paused.clone() }).await.expect("changed");
    let lost = polled(&store, "lost").await;
    store.record_unreachable(&lost, &PollFailure::new(PollCode::Unreachable, "away")).await.expect("kept");
    let new = store.instance_of_its_own("never polled").await;
    store.with_clock(at(0)).defer_estimate(&new, Duration::ZERO).await.expect("due");
    let scanned = polled(&store, "scanned").await;
    let task = store.waiting(&scanned, at(0)).await;
    assert_eq!(claimed(&store, 1, 8).await, [""; 0]);
    store.with_clock(at(2)).request_cancel(&task.project_id, &task.id).await.expect("cancelled");
    assert_eq!(claimed(&store, 3, 8).await, ["scanned"]);
    store.update_instance(&changed, &Instance { sampling: Sampling::Primary, ..changed.clone() }).await.expect("on");
    assert_eq!(claimed(&store, 4, 8).await, ["off"], "due at once");
}

fn server(address: &str, run_id: &str) -> ServerProcess {
    ServerProcess { address: address.into(), run_id: run_id.into() }
}

async fn reserved(store: &Store, now: i64, server: &ServerProcess, holder: Option<&str>) -> Option<u64> {
    let answer = store.with_clock(at(now)).reserve_sample(server, SOON, holder).await;
    answer.expect("answered").map(|wait| wait.as_secs())
}

async fn a_sample_of_a_server_is_reserved_for_all_instances_and_replicas(store: Fresh) {
    let one = server("10.0.0.7:6379", "r1");
    assert_eq!(reserved(&store, 0, &one, None).await, None);
    assert_eq!(reserved(&store, 100, &one, None).await, Some(200), "whichever instance asks");
    for other in [server("10.0.0.7:6380", "r1"), server("10.0.0.7:6379", "r2")] {
        assert_eq!(reserved(&store, 100, &other, None).await, None, "{other:?} is another process");
    }
    let next = |now: i64, wait| {
        let (store, one) = (store.with_clock(at(now)), one.clone());
        async move { store.set_next_sample(&one, Duration::from_secs(wait), None).await.expect("kept") }
    };
    next(100, 1_000).await;
    assert_eq!(reserved(&store, 1_099, &one, None).await, Some(1));
    assert_eq!(reserved(&store, 1_100, &one, None).await, None);
    next(1_101, 0).await;
    assert_eq!(reserved(&store, 1_101, &one, None).await, None, "what was not sampled does not count");
    let pruned = store.with_clock(at(1_400)).prune_estimates(10).await.expect("pruned");
    assert_eq!(pruned, Pruned { points: 0, marks: 0, samples: 2 });
    assert_eq!(reserved(&store, 1_400, &one, None).await, Some(1), "what has not passed stays");
}

async fn a_held_instance_leaves_the_next_sample_to_others(store: Fresh) {
    let one = server("10.0.0.7:6379", "r1");
    let (held, other) = (id("held"), id("other"));
    assert_eq!(reserved(&store, 0, &one, Some(&held)).await, None);
    assert_eq!(reserved(&store, 1, &one, None).await, Some(299), "a sample of hold is one for others");
    assert!(reserved(&store, 359, &one, Some(&held)).await.is_some(), "others come first");
    assert_eq!(reserved(&store, 359, &one, None).await, None);
    assert_eq!(reserved(&store, 360, &one, Some(&held)).await, Some(299), "a sample of others is one for hold");
    assert_eq!(reserved(&store, 659, &one, Some(&held)).await, None);
    assert_eq!(reserved(&store, 1_019, &one, Some(&held)).await, None, "no other sample was asked for within a minute");
    assert_eq!(reserved(&store, 1_319, &one, Some(&other)).await, None, "another instance that is held");
    store.with_clock(at(1_320)).set_next_sample(&one, SOON, Some(&held)).await.expect("an urgent one is recorded");
    assert_eq!(reserved(&store, 1_321, &one, None).await, Some(299));
}

async fn the_latest_estimate_comes_back(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    assert_eq!(store.latest_estimate(&instance.id).await.expect("read"), LatestEstimate::default());
    store.record_estimate_failure(&instance, "refuses INFO", SOON).await.expect("kept");
    let failure = Some("refuses INFO".to_owned());
    let nothing = LatestEstimate { failure: failure.clone(), ..LatestEstimate::default() };
    assert_eq!(store.latest_estimate(&instance.id).await.expect("read"), nothing);
    assert_eq!(store.latest_totals().await.expect("read"), []);
    let found = estimate(time(10), &[0.1, 0.2]);
    store.record_estimate(&instance, &found, SOON).await.expect("kept");
    let latest = LatestEstimate { estimate: Some(found.clone()), ..LatestEstimate::default() };
    assert_eq!(store.latest_estimate(&instance.id).await.expect("read"), latest);
    store.record_estimate_failure(&instance, "refuses INFO", SOON).await.expect("kept");
    let both = LatestEstimate { failure, ..latest };
    assert_eq!(store.latest_estimate(&instance.id).await.expect("read"), both, "the latest estimate stays");
    let total = EstimateTotal { taken_at: found.taken_at, total: found.total.clone() };
    assert_eq!(store.latest_totals().await.expect("read"), [(instance.id.clone(), total.clone())]);
    store.spoil_primaries().await;
    assert_eq!(store.latest_totals().await.expect("read"), [(instance.id.clone(), total)], "primaries are not decoded");
    assert_eq!(store.latest_estimate(&instance.id).await.expect("read").estimate, None);
    let absent = Instance { id: id("absent"), ..instance };
    assert_missing(store.record_estimate(&absent, &found, SOON).await, "instance");
    assert_missing(store.record_estimate_failure(&absent, "gone", SOON).await, "instance");
}

async fn an_estimate_of_another_version_is_left_out(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.record_estimate(&instance, &estimate(time(10), &[0.1]), SOON).await.expect("kept");
    store.change_estimate_versions().await;
    assert_eq!(store.latest_estimate(&instance.id).await.expect("read"), LatestEstimate::default());
    assert_eq!(store.latest_totals().await.expect("read"), []);
    assert_eq!(store.estimates_since(&instance.id, time(0)).await.expect("read"), []);
    let found = estimate(time(20), &[0.1]);
    store.record_estimate(&instance, &found, SOON).await.expect("the next one replaces it");
    assert_eq!(store.latest_estimate(&instance.id).await.expect("read").estimate, Some(found));
    assert_eq!(store.estimates_since(&instance.id, time(0)).await.expect("read").len(), 1);
}

/// Without the consent to sample in the background, the shares of estimates are hints.
async fn the_history_of_a_held_instance_has_what_hold_has_sampled(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let policy = HoldPolicy { level: HoldLevel::Hold, ..HoldPolicy::default() };
    store.set_hold(&instance.id, &policy).await.expect("set");
    let lease = store.with_clock(at(1)).claim_holds("one", LEASE, 10, 10).await.expect("claimed").remove(0);
    let report = async |second, state, share: f64, age: f64| {
        let share = Some(Share { share, low: share / 2.0, high: share * 2.0 });
        let status = HoldStatus { state, share, share_seconds: Some(age), ..HoldStatus::default() };
        let servers = [0, 1].map(|number| HeldServer {
            address: Address::tcp(format!("10.0.0.{number}"), 6379),
            status: status.clone(),
        });
        let report = HoldReport { servers: Some(servers.to_vec()), failure: None };
        store.with_clock(at(second)).renew_hold(&lease, LEASE, Some(&report)).await.expect("renewed");
    };
    let points = async |second| {
        let found = estimate(time(second), &[0.2, 0.3]);
        store.with_clock(at(second)).record_estimate(&instance, &found, SOON).await.expect("kept");
        store.estimates_since(&instance.id, time(0)).await.expect("read").pop().expect("a point").primaries
    };
    report(2, HoldState::Holding, 0.06, 600.0).await;
    let found = points(3).await;
    assert_eq!((found[0].share, found[0].approximate), (Some(0.2), false), "a measurement stays");
    assert_eq!((found[1].share, found[1].share_low, found[1].share_high), (Some(0.06), Some(0.03), Some(0.12)));
    assert_eq!((found[1].approximate, found[1].bytes), (false, Some((u64::MAX as f64 * 0.06 / 0.3) as u64)));
    assert_eq!(points(HOUR + 3).await[1].share, Some(0.3), "the report is an hour old");
    report(HOUR + 4, HoldState::Off, 0.06, 0.0).await;
    assert_eq!(points(HOUR + 5).await[1].share, Some(0.3), "nothing is held any more");
    report(HOUR + 6, HoldState::Holding, 0.06, 3_601.0).await;
    assert_eq!(points(HOUR + 7).await[1].share, Some(0.3), "the sample is an hour old");
    store.spoil_hold_reports().await;
    assert_eq!(points(HOUR + 8).await[1].share, Some(0.3));
}

async fn the_history_keeps_an_hour_then_a_day(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let record = |second: i64| {
        let (store, instance) = (&store, &instance);
        async move {
            let found = estimate(time(second), &[second as f64]);
            store.with_clock(at(second)).record_estimate(instance, &found, SOON).await.expect("kept");
        }
    };
    let kept = || async {
        let points = store.estimates_since(&instance.id, time(-DAY)).await.expect("read");
        points.into_iter().map(|point| point.primaries[0].share.expect("a share") as i64).collect::<Vec<_>>()
    };
    record(0).await;
    record(HOUR - 1).await;
    assert_eq!(kept().await, [HOUR - 1], "the last of an hour");
    record(HOUR).await;
    record(2 * HOUR).await;
    record(DAY + HOUR).await;
    assert_eq!(kept().await, [HOUR - 1, HOUR, 2 * HOUR, DAY + HOUR]);
    let since = store.estimates_since(&instance.id, time(2 * HOUR)).await.expect("read");
    assert_eq!(since.len(), 2);
    let point = &since[0];
    let primary = &point.primaries[0];
    assert_eq!((point.taken_at, primary.address.as_str()), (time(2 * HOUR), "10.0.0.0:6379"));
    assert_eq!((primary.expiry_rate, primary.used_memory, primary.bytes), (Some(12.5), Some(1 << 40), Some(u64::MAX)));
    record(9 * DAY).await;
    assert_eq!(kept().await, [2 * HOUR, DAY + HOUR, 9 * DAY], "the last of a day");
    record(90 * DAY + 2 * HOUR).await;
    assert_eq!(kept().await, [2 * HOUR, DAY + HOUR, 9 * DAY, 90 * DAY + 2 * HOUR], "90 days");
    assert_eq!(
        store.with_clock(at(91 * DAY)).prune_estimates(10).await.expect("pruned"),
        Pruned { points: 1, marks: 0, samples: 0 }
    );
    assert_eq!(kept().await.len(), 3, "an instance that is not estimated any more loses its history as well");
    record(92 * DAY).await;
    assert_eq!(kept().await, [9 * DAY, 90 * DAY + 2 * HOUR, 92 * DAY]);
}

async fn estimates_end_with_the_url_of_their_server(store: Fresh) {
    let before = polled(&store, "cache").await;
    store.record_estimate(&before, &estimate(time(0), &[0.1]), SOON).await.expect("kept");
    store.mark(&before.id, MarkKind::Config, &json!({})).await.expect("kept");
    let renamed = Instance { name: "renamed".into(), ..before.clone() };
    store.update_instance(&before, &renamed).await.expect("changed");
    assert!(store.latest_estimate(&before.id).await.expect("read").estimate.is_some());
    let moved = Instance { url: Stored::read("redis://elsewhere.example"), ..renamed.clone() };
    store.update_instance(&renamed, &moved).await.expect("changed");
    assert_eq!(store.latest_estimate(&before.id).await.expect("read"), LatestEstimate::default());
    assert_eq!(store.estimates_since(&before.id, time(-DAY)).await.expect("read"), []);
    assert_eq!(store.marks_since(&before.id, time(-DAY)).await.expect("read"), []);
    let late = store.record_estimate(&before, &estimate(time(1), &[0.1]), SOON).await;
    assert_missing(late, "instance");
}

async fn marks_are_bounded_and_age(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let detail = json!({ "parameter": "hz", "value": 20 });
    store.with_clock(at(0)).mark(&instance.id, MarkKind::Config, &detail).await.expect("kept");
    let mark = Mark { happened_at: time(0), kind: MarkKind::Config, detail };
    assert_eq!(store.marks_since(&instance.id, time(0)).await.expect("read"), [mark]);
    assert_eq!(store.marks_since(&instance.id, time(1)).await.expect("read"), []);
    let pruned = |day: i64| {
        let store = store.with_clock(at(day * DAY));
        async move { store.prune_estimates(10).await.expect("pruned").marks }
    };
    assert_eq!((pruned(89).await, pruned(91).await, pruned(91).await), (0, 1, 0));
    store.insert_marks(&instance.id, 2_000).await;
    store.with_clock(at(5)).mark(&instance.id, MarkKind::Config, &json!({})).await.expect("kept");
    let marks = store.marks_since(&instance.id, time(-DAY)).await.expect("read");
    assert_eq!((marks.len(), marks.last().map(|mark| mark.happened_at)), (2_000, Some(time(5))));
    assert_missing(store.mark(&id("absent"), MarkKind::Scan, &json!({})).await, "instance");
}

async fn a_setting_that_others_change_between_two_estimates_leaves_a_mark(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let with = |second, effort, hz| {
        let mut found = estimate(time(second), &[0.1]);
        found.primaries[0].cycle = Cycle { effort: Some(effort), configured_hz: Some(hz), ..Cycle::default() };
        found
    };
    let record = |second: i64, found: InstanceEstimate| {
        let (store, instance) = (store.with_clock(at(second)), instance.clone());
        async move { store.record_estimate(&instance, &found, SOON).await.expect("kept") }
    };
    record(0, with(0, 1, 10)).await;
    record(300, with(300, 1, 10)).await;
    assert_eq!(store.marks_since(&instance.id, time(0)).await.expect("read"), [], "nothing was changed");
    record(600, with(600, 4, 10)).await;
    // What keysweep itself writes has a mark already.
    let written =
        json!({ "server": "10.0.0.0:6379", "from": { "effort": 4, "hz": 10 }, "to": { "effort": 7, "hz": 10 } });
    store.with_clock(at(700)).mark(&instance.id, MarkKind::Config, &written).await.expect("kept");
    record(900, with(900, 7, 10)).await;
    let marks = store.marks_since(&instance.id, time(0)).await.expect("read");
    let [seen, own] = marks.as_slice() else { panic!("{marks:?}") };
    assert_eq!((seen.happened_at, seen.kind, own.happened_at), (time(600), MarkKind::Config, time(700)));
    assert_eq!((&seen.detail["from"]["effort"], &seen.detail["to"]["effort"]), (&json!(1), &json!(4)), "{seen:?}");
    assert!(seen.detail["reason"].as_str().is_some_and(|reason| reason.contains("not written by keysweep")));
}

async fn a_finished_scan_leaves_a_mark(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    store.waiting(&instance, at(0)).await;
    let claim = store.with_clock(at(1)).claim("worker", LEASE, 1).await.expect("answered").expect("a claim");
    store.with_clock(at(2)).finish(&claim.lease, &success(1_000)).await.expect("ended");
    let marks = store.marks_since(&instance.id, time(0)).await.expect("read");
    assert_eq!(marks.len(), 1);
    assert_eq!((marks[0].kind, marks[0].happened_at), (MarkKind::Scan, time(2)));
    let detail = &marks[0].detail;
    assert_eq!((&detail["keys_reclaimed"], &detail["keys_scanned"]), (&json!(100), &json!(1_000)));
    assert_eq!((&detail["task_id"], &detail["status"]), (&json!(claim.task.id), &json!("success")));
}

/// Runs a scan of an instance that ends at this time.
async fn scan(store: &Fresh, instance: &Instance, second: i64, result: &TaskResult) {
    store.waiting(instance, at(second - 1)).await;
    let claim = store.claimed(at(second - 1), "worker").await;
    store.with_clock(at(second)).finish(&claim.lease, result).await.expect("ended");
}

async fn a_successful_scan_brings_the_next_estimate_and_sample_forward_to_five_minutes(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let inspection = Inspection {
        primaries: vec!["cache.example:6379".parse().expect("an address")],
        ips: vec!["10.0.0.7".parse().expect("an IP address")],
        ..Inspection::default()
    };
    store.record_stats(&instance, &InstanceStats { server: inspection, seen_at: time(0) }).await.expect("kept");
    let day = Duration::from_secs(24 * 3_600);
    let found = estimate(time(0), &[0.3]);
    store.with_clock(at(0)).record_estimate(&instance, &found, day).await.expect("kept");
    let (scanned_server, other) = (server("10.0.0.7:6379", "r1"), server("10.0.0.8:6379", "r1"));
    for server in [&scanned_server, &other] {
        store.with_clock(at(0)).set_next_sample(server, day, None).await.expect("kept");
    }
    let latest = || async { store.latest_estimate(&instance.id).await.expect("read").scanned_since };

    let failed = TaskResult { outcome: Err((Reason::Unreachable, "gone".into())), ..success(1_000) };
    scan(&store, &instance, 10, &failed).await;
    assert_eq!((latest().await, claimed(&store, 310, 8).await), (None, vec![]), "a failed scan changes nothing");

    scan(&store, &instance, 20, &scanned(100, 5.0)).await;
    let since = latest().await.expect("scanned since");
    assert_eq!((since.finished_at, since.remaining.map(|left| left.keys)), (time(20), Some(1_000)));
    let ids = [instance.id.clone(), id("absent")];
    assert_eq!(store.last_scans(&ids).await.expect("read"), [(instance.id.clone(), since)]);
    assert_eq!(claimed(&store, 319, 8).await, [""; 0]);
    assert_eq!(reserved(&store, 319, &scanned_server, None).await, Some(1));
    assert_eq!(claimed(&store, 320, 8).await, ["cache"]);
    assert_eq!(reserved(&store, 320, &scanned_server, None).await, None);
    assert!(reserved(&store, 320, &other, None).await.is_some_and(|wait| wait > 80_000), "another server");

    store.with_clock(at(330)).record_estimate(&instance, &estimate(time(330), &[0.01]), day).await.expect("kept");
    assert_eq!(latest().await, None, "the estimate is from after the scan");
    let soon = Duration::from_secs(20);
    store.with_clock(at(340)).defer_estimate(&instance, soon).await.expect("kept");
    store.with_clock(at(340)).set_next_sample(&scanned_server, soon, None).await.expect("kept");
    scan(&store, &instance, 350, &scanned(100, 5.0)).await;
    assert_eq!(claimed(&store, 360, 8).await, ["cache"], "what is due earlier stays");
    assert_eq!(reserved(&store, 360, &scanned_server, None).await, None);
}
