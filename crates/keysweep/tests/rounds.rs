//! What a worker does beside its tasks: looking at servers, putting settings back; and that a server which does not
//! answer holds up nobody.

use std::{
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use keysweep::{
    fleet::{Fleet, LOOK_EVERY, NewInstance, new_id},
    model::{Instance, LazyFreeHold, NewTask, ScanType},
    store::{Beat, Clock, Ending, Store},
};
use keysweep_engine::Stop;
use keysweep_harness::{DataSet, Flavor, Installation, Server, free_port};

/// A store and its fleet in this folder.
async fn open(folder: &Path, clock: &Clock) -> (Store, Fleet) {
    let store = Store::open_sqlite(&folder.join("keysweep.db")).await.expect("a store").with_clock(clock.clone());
    let fleet = Fleet::open(store.clone(), &folder.join("keysweep.db.key")).await.expect("a fleet");
    fleet.add_project("shop", None).await.expect("added");
    (store, fleet)
}

async fn add(fleet: &Fleet, name: &str, url: &str) -> Instance {
    fleet.add_instance("shop", NewInstance { name, url, ..NewInstance::default() }).await.expect("added")
}

async fn seen(fleet: &Fleet, instance: &Instance) -> Instance {
    fleet.instance(&instance.project_id, &instance.id).await.expect("read").expect("an instance")
}

/// Accepts connections, as the kernel does for it, and never says anything.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

/// So many times after the tests' beginning that a server's turn has come again.
fn turn(number: u32) -> Timestamp {
    Timestamp::from_second(1_767_225_600).expect("a time") + LOOK_EVERY * number
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_follow_the_server_without_a_sweep() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::at(turn(0));
    let (_store, fleet) = open(folder.path(), &clock).await;
    let mut server = Server::start(Flavor::Valkey91);
    let instance = add(&fleet, "cache", &server.url()).await;
    let stop = Stop::new();
    let keys = async || seen(&fleet, &instance).await.facts.map(|facts| facts.keys);

    assert_eq!(fleet.look_around(&stop).await.expect("a round"), 1);
    assert_eq!(keys().await, Some(0));
    DataSet::new().live(123).load(&server);
    assert_eq!(fleet.look_around(&stop).await.expect("a round"), 0, "it is not its turn");
    clock.set(turn(1));
    assert_eq!(fleet.look_around(&stop).await.expect("a round"), 1);
    assert_eq!(keys().await, Some(123));

    server.kill();
    clock.set(turn(2));
    fleet.look_around(&stop).await.expect("a round");
    let away = seen(&fleet, &instance).await;
    assert!(away.unreachable.is_some_and(|cause| cause.contains("connection refused")));
    assert_eq!(keys().await, Some(123), "what was last seen is still known");
    server.restart();
    clock.set(turn(3));
    fleet.look_around(&stop).await.expect("a round");
    assert_eq!((keys().await, seen(&fleet, &instance).await.unreachable), (Some(0), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_marked_and_keeps_no_other_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::at(turn(0));
    let (_store, fleet) = open(folder.path(), &clock).await;
    let (_listener, url) = silent();
    let server = Server::start(Flavor::Redis70);
    let (mute, good) = (add(&fleet, "mute", &url).await, add(&fleet, "good", &server.url()).await);
    let around = tokio::spawn({
        let fleet = fleet.clone();
        async move { fleet.look_around(&Stop::new()).await }
    });
    while seen(&fleet, &good).await.facts.is_none() {
        assert!(!around.is_finished(), "the good one was not looked at");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!around.is_finished() && seen(&fleet, &mute).await.unreachable.is_none(), "the mute one is waited for");
    assert_eq!(around.await.expect("no panic").expect("a round"), 2);
    assert!(seen(&fleet, &mute).await.unreachable.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_holds_up_neither_tasks_nor_the_end() {
    const HOLDS: u32 = 8;
    const SOON: Duration = Duration::from_secs(8);
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
    let (store, fleet) = open(installation.folder(), &Clock::Database).await;
    let (listener, url) = silent();
    let mute = add(&fleet, "mute", &url).await;
    let other = add(&fleet, "other", &format!("redis://127.0.0.1:{}", free_port())).await;
    // A task has ended whose worker died before it put the setting back, in several processes. That of each has to be
    // tried, and each try takes seconds.
    let new = NewTask {
        id: new_id(),
        project_id: mute.project_id.clone(),
        instance_id: mute.id.clone(),
        scan_type: ScanType::Manual,
        requested_by: None,
        timeout: Duration::from_secs(60),
        keys_per_second: None,
        due_at: None,
        hosts: Vec::new(),
        records: 1_000,
    };
    store.create_task(&new).await.expect("created");
    let address = listener.local_addr().expect("an address").to_string();
    for number in 0..HOLDS {
        let hold = LazyFreeHold { run_id: number.to_string(), task_id: new.id.clone(), address: address.clone() };
        store.hold_lazyfree(&hold).await.expect("held");
    }
    end_what_waits(&store).await;
    store.close().await;

    let service = installation.serve(&["--no-auth"]);
    let begun = Instant::now();
    let create = format!("/v2/{}/instances/{}/scan-expire-keys-task", other.project_id, other.id);
    let task = service.request("POST", &create).body;
    let detail = format!("/api/v1/projects/{}/tasks/{}", other.project_id, task["id"].as_str().expect("an id"));
    service.wait_for(&detail, |task| task["status"] == "failed");
    assert!(begun.elapsed() < SOON, "the task waited for {:?}", begun.elapsed());
    let begun = Instant::now();
    let (code, log) = service.terminate();
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(begun.elapsed() < SOON, "the end took {:?}", begun.elapsed());
}

async fn end_what_waits(store: &Store) {
    let claim = store.claim("a dead worker", Duration::from_secs(15), 1).await;
    let claim = claim.expect("claims work").expect("a task to claim");
    let ending = Ending { outcome: Ok(()), beat: Beat::default(), report: None };
    store.end(&claim.lease, &ending).await.expect("ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_instances_are_looked_at_one_batch_after_the_other_and_not_one_a_round() {
    const MANY: u32 = 100;
    let server = Server::start(Flavor::Redis70);
    let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
    let (store, fleet) = open(installation.folder(), &Clock::Database).await;
    for number in 0..MANY {
        add(&fleet, &format!("cache-{number}"), &server.url()).await;
    }
    let begun = Instant::now();
    let service = installation.serve(&["--no-auth"]);
    let projects = fleet.projects().await.expect("read");
    let path = format!("/api/v1/projects/{}/instances", projects[0].id);
    service.wait_for(&path, |list| {
        let instances = list["instances"].as_array().expect("instances");
        instances.iter().all(|instance| instance["stats"].is_object())
    });
    println!("{MANY} instances were seen in {:?}", begun.elapsed());
    // A batch of 16 every five seconds would take half a minute.
    assert!(begun.elapsed() < Duration::from_secs(25), "it took {:?}", begun.elapsed());
    store.close().await;
}
