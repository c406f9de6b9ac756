//! What a worker does beside its tasks: polling instances and restoring settings, delayed by no unresponsive server.

use std::{
    net::TcpListener,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use keysweep::{
    identity::Identity,
    instances::{AllowedTargets, Instances, NewInstance, POLL_INTERVAL},
    model::{Instance, LazyFreeHold, PollCode},
    secrets::Vault,
    store::{Clock, Heartbeat, Store, TaskResult},
};
use keysweep_engine::Stop;
use keysweep_harness::{DataSet, Flavor, Server, free_port, installation};

use crate::common::tasks::new_task;

/// Opens a store in this folder, with the id of a project and its instances.
async fn open(folder: &Path, clock: &Clock) -> (Store, String, Instances) {
    let store = Store::open_sqlite(&folder.join("keysweep.db")).await.expect("a store").with_clock(clock.clone());
    let vault = Vault::of_store(&store, &folder.join("keysweep.db.key")).await.expect("a vault");
    let vault = Arc::new(vault);
    let identity = Identity::new(store.clone(), Arc::clone(&vault));
    let project = identity.add_project("shop", None).await.expect("added");
    let instances = Instances::new(store.clone(), vault, AllowedTargets::default());
    (store, project.id, instances)
}

async fn add(instances: &Instances, project_id: &str, name: &str, url: &str) -> Instance {
    instances.add(project_id, NewInstance { name, url, ..NewInstance::default() }).await.expect("added")
}

async fn seen(instances: &Instances, instance: &Instance) -> Instance {
    instances.get(&instance.project_id, &instance.id).await.expect("read").expect("an instance")
}

/// Returns a listener whose connections the kernel accepts, and that never answers.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

/// Returns the time of the nth poll after the start of the tests.
fn poll(number: u32) -> Timestamp {
    Timestamp::from_second(1_767_225_600).expect("a time") + POLL_INTERVAL * number
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_follow_the_server_without_a_scan() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::at(poll(0));
    let (_store, project_id, instances) = open(folder.path(), &clock).await;
    let mut server = Server::start(Flavor::Valkey91);
    let instance = add(&instances, &project_id, "cache", &server.url()).await;
    let stop = Stop::new();
    let keys = async || seen(&instances, &instance).await.stats.map(|stats| stats.keys);

    assert_eq!(instances.poll_due_instances(&stop).await.expect("polled"), 1);
    assert_eq!(keys().await, Some(0));
    DataSet::new().live(123).load(&server);
    assert_eq!(instances.poll_due_instances(&stop).await.expect("polled"), 0, "the instance is not due");
    clock.set(poll(1));
    assert_eq!(instances.poll_due_instances(&stop).await.expect("polled"), 1);
    assert_eq!(keys().await, Some(123));

    server.kill();
    clock.set(poll(2));
    instances.poll_due_instances(&stop).await.expect("polled");
    let away = seen(&instances, &instance).await;
    let failure = away.unreachable.expect("a failure");
    assert!(failure.code == PollCode::Unreachable && failure.cause.contains("connection refused"), "{failure:?}");
    assert_eq!(keys().await, Some(123), "the last stats are still stored");
    server.restart();
    clock.set(poll(3));
    instances.poll_due_instances(&stop).await.expect("polled");
    assert_eq!((keys().await, seen(&instances, &instance).await.unreachable), (Some(0), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresponsive_server_is_marked_and_delays_no_other_poll() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::at(poll(0));
    let (_store, project_id, instances) = open(folder.path(), &clock).await;
    let (_listener, url) = silent();
    let server = Server::start(Flavor::Redis70);
    let (mute, good) =
        (add(&instances, &project_id, "mute", &url).await, add(&instances, &project_id, "good", &server.url()).await);
    let polling = tokio::spawn({
        let instances = instances.clone();
        async move { instances.poll_due_instances(&Stop::new()).await }
    });
    while seen(&instances, &good).await.stats.is_none() {
        assert!(!polling.is_finished(), "the good one was not polled");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        !polling.is_finished() && seen(&instances, &mute).await.unreachable.is_none(),
        "the mute one is waited for"
    );
    assert_eq!(polling.await.expect("no panic").expect("polled"), 2);
    assert!(seen(&instances, &mute).await.unreachable.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresponsive_server_delays_neither_tasks_nor_the_shutdown() {
    const HOLDS: u32 = 8;
    const SOON: Duration = Duration::from_secs(8);
    let installation = installation!();
    let (store, project_id, instances) = open(installation.folder(), &Clock::Database).await;
    let (listener, url) = silent();
    let mute = add(&instances, &project_id, "mute", &url).await;
    let other = add(&instances, &project_id, "other", &format!("redis://127.0.0.1:{}", free_port())).await;
    // The worker of a finished task crashed before it restored the setting in several processes. Each has to be tried, and each
    // try takes seconds.
    let new = new_task(&mute.project_id, &mute.id);
    store.create_task(&new).await.expect("created");
    let address = listener.local_addr().expect("an address").to_string();
    for number in 0..HOLDS {
        let hold = LazyFreeHold { run_id: number.to_string(), task_id: new.id.clone(), address: address.clone() };
        store.acquire_lazyfree(&hold).await.expect("held");
    }
    finish_waiting_task(&store).await;
    store.close().await;

    let service = installation.serve(&["--no-auth"]);
    let since = Instant::now();
    let task = service.scan(&other.project_id, &other.id);
    service.wait_for_task(&task, |task| task["status"] == "failed");
    assert!(since.elapsed() < SOON, "the task waited for {:?}", since.elapsed());
    let since = Instant::now();
    let (code, log) = service.terminate();
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(since.elapsed() < SOON, "the shutdown took {:?}", since.elapsed());
}

async fn finish_waiting_task(store: &Store) {
    let claim = store.claim("a crashed worker", Duration::from_secs(15), 1).await;
    let claim = claim.expect("claims work").expect("a task to claim");
    let ending = TaskResult { outcome: Ok(()), heartbeat: Heartbeat::default(), report: None };
    store.finish(&claim.lease, &ending).await.expect("ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_instances_are_polled_in_batches_that_follow_each_other_at_once() {
    const MANY: u32 = 100;
    let server = Server::start(Flavor::Redis70);
    let installation = installation!();
    let (store, project_id, instances) = open(installation.folder(), &Clock::Database).await;
    for number in 0..MANY {
        add(&instances, &project_id, &format!("cache-{number}"), &server.url()).await;
    }
    let since = Instant::now();
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/api/v1/projects/{project_id}/instances");
    service.wait_for(&path, |list| {
        let instances = list["instances"].as_array().expect("instances");
        instances.iter().all(|instance| instance["stats"].is_object())
    });
    println!("{MANY} instances were polled in {:?}", since.elapsed());
    // A batch of 16 every five seconds would take half a minute.
    assert!(since.elapsed() < Duration::from_secs(25), "it took {:?}", since.elapsed());
    store.close().await;
}
