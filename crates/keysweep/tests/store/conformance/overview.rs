//! The overview of the fleet that metrics read.

use std::time::Duration;

use keysweep::{
    model::{AutoScan, Instance, InstanceStats, PollCode, PollFailure, TargetShare},
    store::{InstanceOverview, Overview},
};
use keysweep_engine::Inspection;

use crate::conformance::fresh::{Fresh, at, plain_instance, success, time};

on_every_engine!(
    an_empty_store_has_an_empty_overview,
    active_tasks_are_counted_by_state_and_unattended_ones_separately,
    an_instance_shows_the_stats_of_its_last_poll,
    an_unchecked_schedule_lags,
    scans_are_due_from_the_first_one_on_and_not_while_the_instance_is_paused,
    reclaimed_keys_are_summed_over_instances_since_a_time,
);

async fn overview(store: &Fresh, seconds: i64) -> Overview {
    store.with_clock(at(seconds)).overview().await.expect("read")
}

async fn an_empty_store_has_an_empty_overview(store: Fresh) {
    let nothing = Overview {
        waiting: 0,
        running: 0,
        unattended: 0,
        longest_wait: Duration::ZERO,
        schedule_lag: Duration::ZERO,
        instances: Vec::new(),
    };
    assert_eq!(overview(&store, 0).await, nothing);
}

async fn active_tasks_are_counted_by_state_and_unattended_ones_separately(store: Fresh) {
    let project = store.project("shop").await;
    for name in ["first", "second", "third"] {
        let instance = plain_instance(&project, name);
        store.add_instance(&instance).await.expect("added");
        store.waiting(&instance, at(0)).await;
    }
    let claim = store.claimed(at(5), "worker").await;
    let seen = overview(&store, 10).await;
    assert_eq!((seen.waiting, seen.running, seen.unattended), (2, 1, 0));
    assert_eq!(seen.longest_wait, Duration::from_secs(10));
    // The worker sends no further heartbeat.
    assert_eq!(overview(&store, 30).await.unattended, 1);
    store.with_clock(at(31)).finish(&claim.lease, &success(10)).await.expect("ended");
    let seen = overview(&store, 40).await;
    assert_eq!((seen.waiting, seen.running, seen.unattended), (2, 0, 0));
    // A task that waits for its window does not count as delayed.
    for _ in 0..2 {
        let claim = store.claimed(at(40), "worker").await;
        store.with_window(&claim.instance, Some("00:02-05:00 UTC")).await;
        store.with_clock(at(41)).release_lease(&claim.lease, &Default::default()).await.expect("released");
    }
    let seen = overview(&store, 50).await;
    assert_eq!((seen.running, seen.unattended, seen.longest_wait), (2, 0, Duration::ZERO));
    assert_eq!(overview(&store, 121).await.unattended, 2);
}

async fn an_instance_shows_the_stats_of_its_last_poll(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let unknown = InstanceOverview {
        id: instance.id.clone(),
        stats: None,
        reachable: None,
        last_success: None,
        auto_scan_interval: None,
        scans_since: None,
        adaptive: None,
        mean_share: None,
        name: instance.name.clone(),
        project: "cache".into(),
    };
    assert_eq!(overview(&store, 0).await.instances, [unknown]);

    let server = Inspection {
        engine: "valkey".into(),
        engine_version: "9.1.2".into(),
        keys: 7,
        keys_with_ttl: 3,
        stale_keys: Some(2),
        used_memory: 1_000,
        max_memory: 2_000,
        ..Inspection::default()
    };
    let stats = InstanceStats { server, seen_at: time(1) };
    store.record_stats(&instance, &stats).await.expect("kept");
    store.waiting(&instance, at(0)).await;
    let claim = store.claimed(at(2), "worker").await;
    store.with_clock(at(9)).finish(&claim.lease, &success(10)).await.expect("ended");
    store.waiting(&instance, at(10)).await;
    let seen = overview(&store, 11).await;
    let seen = &seen.instances[0];
    assert_eq!((&seen.stats, seen.reachable, seen.last_success), (&Some(stats.clone()), Some(true), Some(time(9))));

    store.record_unreachable(&instance, &PollFailure::new(PollCode::Unreachable, "no answer")).await.expect("kept");
    let seen = overview(&store, 12).await;
    assert_eq!((&seen.instances[0].stats, seen.instances[0].reachable), (&Some(stats), Some(false)));
}

async fn an_unchecked_schedule_lags(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let settings = AutoScan {
        instance_id: instance.id.clone(),
        enabled: true,
        first_scan_at: Some(time(100)),
        first_scan_text: None,
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(600),
        scan_keys_count: 10,
        target: None,
        gathering: None,
        updated_at: time(0),
    };
    store.schedule(&settings).await.expect("set");
    let seen = overview(&store, 3).await;
    assert_eq!(seen.schedule_lag, Duration::from_secs(3), "the new settings are not checked yet");
    let plans = store.with_clock(at(3)).due_plans(1).await.expect("read").plans;
    store.reschedule(&plans[0], None, time(100)).await.expect("noted");
    assert_eq!(overview(&store, 99).await.schedule_lag, Duration::ZERO);
    let seen = overview(&store, 104).await;
    assert_eq!(seen.schedule_lag, Duration::from_secs(4));
    assert_eq!(seen.instances[0].auto_scan_interval, Some(Duration::from_secs(60)));
    let target = TargetShare::new(0.05);
    let settings = store.schedule(&AutoScan { target, updated_at: time(105), ..settings }).await.expect("set");
    let adaptive = overview(&store, 200).await.instances.remove(0).adaptive.expect("a target");
    assert_eq!(
        (Some(adaptive.target), adaptive.interval),
        (target, Duration::from_secs(60)),
        "nothing is measured yet"
    );
    store.schedule(&AutoScan { enabled: false, ..settings }).await.expect("set");
    let seen = overview(&store, 200).await;
    assert_eq!((seen.schedule_lag, seen.instances[0].auto_scan_interval), (Duration::ZERO, None));
}

async fn scans_are_due_from_the_first_one_on_and_not_while_the_instance_is_paused(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let settings = AutoScan {
        instance_id: instance.id.clone(),
        enabled: true,
        first_scan_at: Some(time(100)),
        first_scan_text: None,
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(600),
        scan_keys_count: 10,
        target: None,
        gathering: None,
        updated_at: time(0),
    };
    store.schedule(&settings).await.expect("set");
    let interval = async |seconds| overview(&store, seconds).await.instances[0].auto_scan_interval;
    assert_eq!(interval(99).await, None);
    assert_eq!(interval(100).await, Some(settings.interval));
    let since = async |seconds| overview(&store, seconds).await.instances[0].scans_since;
    assert_eq!((since(99).await, since(150).await), (None, Some(time(100))));
    let paused = Instance { paused: true, ..instance.clone() };
    store.with_clock(at(150)).update_instance(&instance, &paused).await.expect("changed");
    assert_eq!((interval(150).await, since(150).await), (None, None));
    store.with_clock(at(900)).update_instance(&paused, &instance).await.expect("changed");
    let renamed = Instance { name: "renamed".into(), ..instance.clone() };
    store.with_clock(at(950)).update_instance(&instance, &renamed).await.expect("changed");
    assert_eq!((interval(960).await, since(960).await), (Some(settings.interval), Some(time(900))));
}

async fn reclaimed_keys_are_summed_over_instances_since_a_time(store: Fresh) {
    let project = store.project("shop").await;
    let (one, other) = (plain_instance(&project, "one"), plain_instance(&project, "other"));
    for instance in [&one, &other] {
        store.add_instance(instance).await.expect("added");
    }
    for (instance, end, scanned) in [(&one, 10, 1_000), (&one, 20, 300), (&other, 30, 70)] {
        store.waiting(instance, at(end - 2)).await;
        let claim = store.claimed(at(end - 1), "worker").await;
        store.with_clock(at(end)).finish(&claim.lease, &success(scanned)).await.expect("ended");
    }
    store.waiting(&one, at(40)).await;
    let since = async |seconds, instances: &[&Instance]| {
        let ids: Vec<String> = instances.iter().map(|instance| instance.id.clone()).collect();
        store.reclaimed_since(&project.id, &ids, time(seconds)).await.expect("read")
    };
    assert_eq!(since(10, &[&one, &other]).await, 137, "a tenth of the scanned keys");
    assert_eq!(since(11, &[&one, &other]).await, 37, "the first scan finished before");
    assert_eq!((since(0, &[&other]).await, since(31, &[&one, &other]).await, since(0, &[]).await), (7, 0, 0));
}
