//! Instances and their stats.

use std::time::Duration;

use keysweep::model::{
    AutoScan, Instance, InstanceStats, Labels, PollCode, PollFailure, Project, Sampling, Sealed, Stored,
};
use keysweep_engine::Inspection;

use crate::conformance::fresh::{Fresh, assert_missing, assert_taken, at, id, plain_instance, time};

on_every_engine!(
    every_field_of_an_instance_comes_back,
    settings_that_cannot_be_read_come_back_as_they_are_stored,
    an_instance_is_unique_by_id_and_by_its_name_in_the_project,
    an_instance_needs_a_project,
    an_instance_is_found_in_its_own_project_only,
    instances_are_listed_by_name,
    a_long_list_is_read_in_parts_and_only_as_far_as_it_is_admitted,
    the_newest_stats_are_kept,
    an_unreachable_server_keeps_its_stats_and_is_marked_until_the_next_poll,
    a_poll_of_an_instance_is_claimed_once_an_interval,
    polls_of_a_project_that_has_many_in_progress_come_last,
    every_field_but_id_project_and_stats_changes,
    the_stats_of_a_server_do_not_outlive_its_url,
    of_two_auto_scan_changes_at_once_the_second_is_refused,
    two_changes_of_an_instance_at_once_are_both_applied,
    a_password_is_never_used_with_another_address,
    an_instance_is_removed_with_its_tasks_but_not_while_one_is_active,
    the_last_auto_scan_configuration_is_kept,
    instances_outlive_the_process,
);

fn full_instance(project: &Project) -> Instance {
    Instance {
        url: Stored::read("rediss-sentinel://s1.example:26379,s2.example/main"),
        username: Some("sweeper".into()),
        password: Some(Sealed(vec![1, 0, 255])),
        sentinel_username: Some("watcher".into()),
        sentinel_password: Some(Sealed(vec![2])),
        ca_pem: Some("CA".into()),
        cert_pem: Some("CERT".into()),
        client_key: Some(Sealed(vec![])),
        server_name: Some("cache.example".into()),
        address_map: Some(Stored::read("10.0.0.1:6379=cache.example:7001")),
        pace: Stored::read("gentle"),
        window: Some(Stored::read("02:00-05:00 Europe/Paris")),
        window_binds_manual: true,
        manage_lazyfree: true,
        labels: Labels::typed("env=prod,team=web").expect("labels").into(),
        sampling: Sampling::Primary,
        paused: true,
        stats: Some(stats(1)),
        unreachable: Some(PollFailure::new(PollCode::Tls, "unknown issuer")),
        ..plain_instance(project, "full")
    }
}

fn stats(keys: u64) -> InstanceStats {
    let server = Inspection {
        engine: "valkey".into(),
        engine_version: "8.0.1".into(),
        keys,
        keys_with_ttl: keys / 2,
        stale_keys: Some(keys / 5),
        used_memory: 1 << 40,
        ips: vec![[10, 0, 0, 7].into()],
        primaries: vec!["10.0.0.7:6379".parse().expect("an address")],
        ..Inspection::default()
    };
    InstanceStats { server, seen_at: time(keys as i64) }
}

async fn every_field_of_an_instance_comes_back(store: Fresh) {
    let project = store.project("shop").await;
    for instance in [full_instance(&project), plain_instance(&project, "plain")] {
        store.add_instance(&instance).await.expect("added");
        assert_eq!(store.instance(&project.id, &instance.id).await.expect("read"), Some(instance));
    }
}

async fn settings_that_cannot_be_read_come_back_as_they_are_stored(store: Fresh) {
    let project = store.project("shop").await;
    let bad = Instance {
        url: Stored::read("gopher://cache.example"),
        address_map: Some(Stored::read("10.0.0.1")),
        pace: Stored::read("gentel"),
        window: Some(Stored::read("02:00-05:00 Mars/Olympus")),
        labels: Stored::read("{\"-\":1}"),
        ..plain_instance(&project, "bad")
    };
    store.add_instance(&bad).await.expect("added");
    store.add_instance(&plain_instance(&project, "good")).await.expect("added");
    let listed = store.instances(&project.id).await.expect("one unreadable row does not end the list");
    assert_eq!((listed.len(), &listed[0]), (2, &bad));
    let errors = [
        listed[0].url.value().err(),
        listed[0].address_map.as_ref().and_then(|map| map.value().err()),
        listed[0].pace.value().err(),
        listed[0].window.as_ref().and_then(|window| window.value().err()),
        listed[0].labels.value().err(),
    ];
    assert!(errors.iter().all(Option::is_some), "none has a default: {errors:?}");
    assert!(listed[1].url.value().is_ok() && listed[1].pace.value().is_ok());
}

async fn an_instance_is_unique_by_id_and_by_its_name_in_the_project(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    assert_taken(store.add_instance(&Instance { id: id("x"), ..instance.clone() }).await, "instance", "name");
    assert_taken(store.add_instance(&Instance { name: "x".into(), ..instance.clone() }).await, "instance", "id");
    let elsewhere = Instance { project_id: store.project("other").await.id, ..instance.clone() };
    assert_taken(store.add_instance(&elsewhere).await, "instance", "id");
    store.add_instance(&Instance { id: id("y"), ..elsewhere }).await.expect("another project may use the name");
}

async fn an_instance_needs_a_project(store: Fresh) {
    let absent = Project { id: id("absent"), name: "absent".into(), created_at: time(0) };
    assert_missing(store.add_instance(&plain_instance(&absent, "cache")).await, "project");
}

async fn an_instance_is_found_in_its_own_project_only(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let other = store.project("other").await;
    assert_eq!(store.instance(&other.id, &instance.id).await.expect("read"), None);
    assert_eq!(store.instance(&instance.project_id, &id("absent")).await.expect("read"), None);
    assert_eq!(store.instances(&other.id).await.expect("read"), []);
}

async fn instances_are_listed_by_name(store: Fresh) {
    let project = store.project("shop").await;
    for name in ["b", "c", "a"] {
        store.add_instance(&plain_instance(&project, name)).await.expect("added");
    }
    let names: Vec<_> =
        store.instances(&project.id).await.expect("read").into_iter().map(|instance| instance.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

async fn a_long_list_is_read_in_parts_and_only_as_far_as_it_is_admitted(store: Fresh) {
    let (project, other) = (store.project("shop").await, store.project("other").await);
    store.add_instance(&plain_instance(&other, "b")).await.expect("added");
    for name in ["e", "b", "d", "a", "c"] {
        store.add_instance(&plain_instance(&project, name)).await.expect("added");
    }
    let names = |instances: Vec<Instance>| instances.into_iter().map(|instance| instance.name).collect::<Vec<_>>();
    for part in 1..=6 {
        let mut asked = 0;
        let admit = |_: &Instance| {
            asked += 1;
            true
        };
        let all = store.instances_within(&project.id, part, admit).await.expect("read").expect("all are admitted");
        assert_eq!((names(all), asked), (["a", "b", "c", "d", "e"].map(String::from).to_vec(), 5), "{part} at a time");
        let refused = store.instances_within(&project.id, part, |instance| instance.name != "d").await;
        assert_eq!(refused.expect("read"), None, "{part} at a time");
    }
    let after = async |name, limit| names(store.instances_after(&project.id, name, limit).await.expect("read"));
    assert_eq!((after("", 2).await, after("b", 2).await), (vec!["a".into(), "b".into()], vec!["c".into(), "d".into()]));
    assert_eq!((after("d", 2).await, after("e", 2).await), (vec!["e".into()], vec![]));
}

async fn the_newest_stats_are_kept(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    for keys in [10, 20] {
        store.record_stats(&instance, &stats(keys)).await.expect("kept");
        let seen = store.instance(&instance.project_id, &instance.id).await.expect("read").expect("an instance");
        assert_eq!(seen, Instance { stats: Some(stats(keys)), ..instance.clone() });
    }
    assert_missing(store.record_stats(&Instance { id: id("absent"), ..instance.clone() }, &stats(1)).await, "instance");
}

async fn an_unreachable_server_keeps_its_stats_and_is_marked_until_the_next_poll(store: Fresh) {
    let instance = store.instance_of_its_own("cache").await;
    let seen = || async {
        let seen = store.instance(&instance.project_id, &instance.id).await.expect("read").expect("an instance");
        (seen.stats.map(|stats| stats.keys), seen.unreachable)
    };
    let away = PollFailure::new(PollCode::Unreachable, "away");
    let refused = PollFailure::new(PollCode::Authentication, "a wrong password");
    assert_eq!(seen().await, (None, None));
    store.record_unreachable(&instance, &away).await.expect("kept");
    assert_eq!(seen().await, (None, Some(away.clone())));
    store.record_stats(&instance, &stats(10)).await.expect("kept");
    assert_eq!(seen().await, (Some(10), None));
    store.record_unreachable(&instance, &refused).await.expect("kept");
    assert_eq!(seen().await, (Some(10), Some(refused)));
    assert_missing(
        store.record_unreachable(&Instance { id: id("absent"), ..instance.clone() }, &away).await,
        "instance",
    );
}

async fn a_poll_of_an_instance_is_claimed_once_an_interval(store: Fresh) {
    const MINUTE: Duration = Duration::from_secs(60);
    let project = store.project("shop").await;
    for name in ["a", "b", "c"] {
        store.add_instance(&plain_instance(&project, name)).await.expect("added");
    }
    let take = |now: i64, limit| {
        let store = &store;
        async move {
            let taken = store.with_clock(at(now)).claim_polls(MINUTE, limit, &[]).await.expect("taken");
            let mut names: Vec<String> = taken.into_iter().map(|instance| instance.name).collect();
            names.sort();
            names
        }
    };
    let first = take(0, 2).await;
    assert_eq!(first.len(), 2);
    let rest = take(30, 2).await;
    assert_eq!(rest.len(), 1, "the others are taken");
    let mut all = [first.clone(), rest.clone()].concat();
    all.sort();
    assert_eq!(all, ["a", "b", "c"]);
    assert_eq!(take(59, 10).await, [""; 0]);
    assert_eq!(take(60, 10).await, first, "a minute after they were taken");
    assert_eq!(take(90, 10).await, rest);
}

async fn polls_of_a_project_that_has_many_in_progress_come_last(store: Fresh) {
    let (greedy, modest) = (store.project("greedy").await, store.project("modest").await);
    for (project, name) in [(&greedy, "a"), (&greedy, "b"), (&greedy, "c"), (&modest, "d")] {
        store.add_instance(&plain_instance(project, name)).await.expect("added");
    }
    let claim = async |limit, last: &[String]| {
        let claimed = store.with_clock(at(0)).claim_polls(Duration::from_secs(60), limit, last).await.expect("claimed");
        claimed.into_iter().map(|instance| instance.project_id).collect::<Vec<_>>()
    };
    let last = [greedy.id.clone()];
    assert_eq!(claim(2, &last).await, [modest.id, greedy.id.clone()]);
    assert_eq!(claim(9, &last).await, [greedy.id.clone(), greedy.id], "where no other is due");
    assert_eq!(claim(9, &last).await, [""; 0]);
}

async fn instances_outlive_the_process(store: Fresh) {
    let project = store.project("shop").await;
    let instance = full_instance(&project);
    store.add_instance(&instance).await.expect("added");
    let store = store.reopened().await;
    assert_eq!(store.instances(&project.id).await.expect("read"), [instance]);
}

async fn every_field_but_id_project_and_stats_changes(store: Fresh) {
    let project = store.project("shop").await;
    let plain = plain_instance(&project, "plain");
    store.add_instance(&plain).await.expect("added");
    store.add_instance(&plain_instance(&project, "other")).await.expect("added");
    let seen = (plain.stats.clone(), plain.unreachable.clone());
    let changed = Instance { id: plain.id.clone(), stats: seen.0, unreachable: seen.1, ..full_instance(&project) };
    assert_eq!(store.update_instance(&plain, &changed).await.expect("changed"), changed);
    assert_eq!(store.instance(&project.id, &plain.id).await.expect("read"), Some(changed.clone()));
    let taken = Instance { name: "other".into(), ..changed.clone() };
    assert_taken(store.update_instance(&changed, &taken).await, "instance", "name");
    let gone = Instance { id: id("gone"), ..changed.clone() };
    assert_missing(store.update_instance(&changed, &gone).await, "instance");
    let elsewhere = Instance { project_id: id("elsewhere"), ..changed.clone() };
    assert_missing(store.update_instance(&changed, &elsewhere).await, "instance");
}

async fn an_instance_is_removed_with_its_tasks_but_not_while_one_is_active(store: Fresh) {
    let instance = store.instance_of_its_own("shop").await;
    let task = store.waiting(&instance, at(1)).await;
    assert!(!store.remove_instance(&instance.project_id, &instance.id).await.expect("answered"));
    store.with_clock(at(2)).request_cancel(&task.project_id, &task.id).await.expect("cancelled");
    assert_missing(store.remove_instance(&id("elsewhere"), &instance.id).await, "instance");
    assert!(store.remove_instance(&instance.project_id, &instance.id).await.expect("removed"));
    assert!(store.instance(&instance.project_id, &instance.id).await.expect("read").is_none());
    assert!(store.task(&task.project_id, &task.id).await.expect("read").is_none());
    assert_missing(store.remove_instance(&instance.project_id, &instance.id).await, "instance");
}

async fn the_last_auto_scan_configuration_is_kept(store: Fresh) {
    let instance = store.instance_of_its_own("shop").await;
    assert_eq!(store.auto_scan(&instance.id).await.expect("read"), None);
    let config = AutoScan {
        instance_id: instance.id.clone(),
        enabled: true,
        first_scan_at: Some(time(100)),
        first_scan_text: Some("1970-01-01T00:01:40z".into()),
        interval: Duration::ZERO,
        timeout: Duration::from_secs(2),
        scan_keys_count: 100_000,
        target: None,
        gathering: None,
        updated_at: time(1),
    };
    assert_eq!(store.schedule(&config).await.expect("kept"), config);
    assert_eq!(store.auto_scan(&instance.id).await.expect("read"), Some(config.clone()));
    let again = AutoScan { updated_at: time(2), ..config.clone() };
    assert_eq!(store.schedule(&again).await.expect("kept"), config, "nothing has changed");
    assert_eq!(store.auto_scan(&instance.id).await.expect("read"), Some(config.clone()));
    let off = AutoScan { enabled: false, first_scan_at: None, updated_at: time(2), ..config };
    store.schedule(&off).await.expect("kept");
    assert_eq!(store.auto_scan(&instance.id).await.expect("read"), Some(off.clone()));
    assert_missing(store.schedule(&AutoScan { instance_id: id("gone"), ..off }).await, "instance");
}

async fn of_two_auto_scan_changes_at_once_the_second_is_refused(store: Fresh) {
    let instance = store.instance_of_its_own("feed").await;
    let set = |enabled, count, changed| AutoScan {
        instance_id: instance.id.clone(),
        enabled,
        first_scan_at: Some(time(100)),
        first_scan_text: None,
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(600),
        scan_keys_count: count,
        target: None,
        gathering: None,
        updated_at: time(changed),
    };
    let (first, second) = (set(true, 10, 1), set(false, 20, 2));
    // Both have read that there are no settings; then both have read those of the first.
    assert_eq!(store.set_auto_scan(None, &first).await.expect("kept"), Some(first.clone()));
    assert_eq!(store.set_auto_scan(None, &second).await.expect("answered"), None);
    assert_eq!(store.auto_scan(&instance.id).await.expect("read"), Some(first.clone()));
    assert_eq!(store.set_auto_scan(Some(&first), &second).await.expect("kept"), Some(second.clone()));
    for other in [set(true, 10, 3), AutoScan { first_scan_at: None, ..set(false, 20, 3) }] {
        assert_eq!(store.set_auto_scan(Some(&first), &other).await.expect("answered"), None);
    }
    assert_eq!(store.auto_scan(&instance.id).await.expect("read"), Some(second));
}

async fn two_changes_of_an_instance_at_once_are_both_applied(store: Fresh) {
    let seen = store.instance_of_its_own("cache").await;
    let renamed =
        Instance { name: "session cache".into(), window: Some(Stored::read("02:00-05:00 UTC")), ..seen.clone() };
    let paused = Instance { paused: true, ..seen.clone() };
    // Both have read the instance before either change.
    store.update_instance(&seen, &paused).await.expect("changed");
    store.record_stats(&seen, &stats(7)).await.expect("kept");
    let both = Instance { paused: true, stats: Some(stats(7)), ..renamed.clone() };
    assert_eq!(store.update_instance(&seen, &renamed).await.expect("changed"), both);
    assert_eq!(store.instance(&seen.project_id, &seen.id).await.expect("read"), Some(both.clone()));
    // The same with concurrent changes.
    for round in 0..20 {
        let now = store.instance(&seen.project_id, &seen.id).await.expect("read").expect("an instance");
        let name = Instance { name: format!("cache {round}"), ..now.clone() };
        let flip = Instance { paused: !now.paused, ..now.clone() };
        let (one, other) = tokio::join!(store.update_instance(&now, &name), store.update_instance(&now, &flip));
        one.expect("changed");
        other.expect("changed");
        let kept = store.instance(&seen.project_id, &seen.id).await.expect("read").expect("an instance");
        assert_eq!((kept.name, kept.paused), (name.name, flip.paused));
    }
}

async fn a_password_is_never_used_with_another_address(store: Fresh) {
    let seen = store.instance_of_its_own("cache").await;
    let here = Instance { url: Stored::read("redis://here.example"), password: Some(Sealed(vec![1])), ..seen.clone() };
    let there = Instance { url: Stored::read("redis://there.example"), ..seen.clone() };
    store.update_instance(&seen, &here).await.expect("changed");
    let last = store.update_instance(&seen, &there).await.expect("changed");
    assert_eq!((last.url.text(), last.password), ("redis://there.example", None));
}

async fn the_stats_of_a_server_do_not_outlive_its_url(store: Fresh) {
    let before = store.instance_of_its_own("cache").await;
    store.record_stats(&before, &stats(7)).await.expect("kept");
    let away = PollFailure::new(PollCode::Tls, "away");
    store.record_unreachable(&before, &away).await.expect("kept");
    assert_eq!(store.with_clock(at(0)).claim_polls(Duration::from_secs(60), 10, &[]).await.expect("taken").len(), 1);
    let renamed = Instance { name: "session cache".into(), ..before.clone() };
    let renamed = store.update_instance(&before, &renamed).await.expect("changed");
    let kept = (Some(stats(7)), Some(away.clone()));
    assert_eq!((renamed.stats.clone(), renamed.unreachable.clone()), kept, "it is the same server");
    assert_eq!(store.with_clock(at(1)).claim_polls(Duration::from_secs(60), 10, &[]).await.expect("taken"), []);

    let moved = Instance { url: Stored::read("redis://there.example"), ..renamed.clone() };
    let moved = store.update_instance(&renamed, &moved).await.expect("changed");
    assert_eq!((&moved.stats, &moved.unreachable), (&None, &None));
    // A poll of the old server that ends only now.
    assert_missing(store.record_stats(&renamed, &stats(8)).await, "instance");
    assert_missing(store.record_unreachable(&renamed, &away).await, "instance");
    assert_eq!(store.instance(&moved.project_id, &moved.id).await.expect("read"), Some(moved.clone()));
    assert_eq!(
        store.with_clock(at(2)).claim_polls(Duration::from_secs(60), 10, &[]).await.expect("taken"),
        [moved],
        "at once"
    );
}
