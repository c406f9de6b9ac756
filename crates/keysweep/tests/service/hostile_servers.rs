//! Registered servers that attack the service with their replies, while another one is served.

use std::{
    thread,
    time::{Duration, Instant},
};

use keysweep_harness::{
    DataSet, Flavor, HostileServer, Hostility, Installation, ScanTask, Server, Service, id, installation,
};

/// Most memory that the service may take, bytes.
const MEMORY: u64 = 256 << 20;
/// How long a scan of another project may take to begin.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A registered hostile server.
struct Registered {
    what: String,
    instance: String,
    hostility: Hostility,
    _server: HostileServer,
}

fn register(installation: &Installation, project: &str, pairs: &[(Hostility, &'static str)]) -> Vec<Registered> {
    let start = |(number, (hostility, command)): (usize, &(Hostility, &'static str))| {
        let server = HostileServer::start(*hostility, command);
        let instance = installation.register_another(project, &format!("cache{number}"), &server.url(command), &[]);
        Registered { what: format!("{hostility:?} at {command}"), instance, hostility: *hostility, _server: server }
    };
    pairs.iter().enumerate().map(start).collect()
}

/// Tests, estimates and scans every hostile server at once, and a real one beside them. The service must stay below its limit
/// of memory, and must have ended every scan whose server does not just take its time.
fn withstand(pairs: &[(Hostility, &'static str)]) {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(500).stale(100).load(&server);
    let installation = installation!();
    let [hostile, healthy] = ["hostile", "healthy"].map(|name| id(&installation.admin(&["project", "add", name])));
    let registered = register(&installation, &hostile, pairs);
    let cache = installation.register_another(&healthy, "cache", &format!("redis://127.0.0.1:{}", server.port()), &[]);
    let service = installation.serve(&["--no-auth", "--host-concurrency", "64"]);
    let tasks: Vec<Option<ScanTask>> = registered.iter().map(|one| create(&service, &hostile, one)).collect();
    assert!(tasks.iter().any(Option::is_some), "no hostile server is scanned");
    let begun = Instant::now();
    let task = service.scan(&healthy, &cache);
    thread::scope(|scope| {
        // One after the other: a project has two estimates at a time.
        scope.spawn(|| registered.iter().for_each(|one| test_and_estimate(&service, &hostile, one)));
        let finished = service.wait_until_finished(&task);
        assert_eq!(
            (&finished["status"], &finished["keys_reclaimed"]),
            (&"success".into(), &100.into()),
            "{finished:#}"
        );
        assert!(begun.elapsed() < START_TIMEOUT, "a healthy scan took {:?}", begun.elapsed());
    });
    for (one, task) in registered.iter().zip(&tasks).filter_map(|(one, task)| Some((one, task.as_ref()?))) {
        if matches!(one.hostility, Hostility::Slow | Hostility::Pages) {
            assert_eq!(service.request("POST", &format!("{}/cancel", task.path)).status, 200);
        }
        let finished = service.wait_until_finished(task);
        let message = finished["reason"]["message"].as_str().unwrap_or_default();
        assert!(message.len() < 1_000 && !message.contains(char::is_control), "{}: {message:?}", one.what);
        // A server that only exaggerates its numbers can be scanned.
        assert!(finished["status"] == "failed" || one.hostility == Hostility::Numbers, "{}: {finished:#}", one.what);
        println!("{}: {message}", one.what);
    }
    assert_eq!(service.request("GET", "/healthz").status, 200);
    let (peak, now) = (service.peak_memory(), service.resident_memory());
    println!("peak {} MiB, at the end {} MiB", peak >> 20, now >> 20);
    assert!(peak < MEMORY, "the service took {} MiB", peak >> 20);
    assert!(now < MEMORY * 3 / 4, "the service kept {} MiB", now >> 20);
}

/// Creates a task. `None`: a poll has already found out that this is no Redis.
fn create(service: &Service, project: &str, one: &Registered) -> Option<ScanTask> {
    let created = service.create_scan(project, &one.instance);
    assert!(matches!(created.status, 200 | 400), "{}: {created:?}", one.what);
    (created.status == 200).then(|| ScanTask::new(project, &id(&created.body)))
}

fn test_and_estimate(service: &Service, project: &str, one: &Registered) {
    let path = format!("/api/v1/projects/{project}/instances/{}", one.instance);
    let tested = service.request("POST", &format!("{path}/test"));
    assert!(matches!(tested.status, 200 | 503), "{}: {tested:?}", one.what);
    if one.hostility == Hostility::Slow {
        // It lasts for as long as an estimate may, and fails by its timeout as the test does.
        return;
    }
    let estimated = service.request("POST", &format!("{path}/estimate"));
    assert!(estimated.status < 600 && estimated.status != 500, "{}: {estimated:?}", one.what);
    assert!(estimated.text.len() < 100_000, "{}: an answer of {} bytes", one.what, estimated.text.len());
}

#[test]
fn the_service_survives_every_hostile_reply_within_256_mib_and_serves_others() {
    withstand(&Hostility::ALL.map(|hostility| (hostility, hostility.worst_command())));
}

#[test]
#[ignore = "a minute; make soak runs it"]
fn soak_the_service_survives_every_hostile_reply_to_every_command() {
    let commands = ["ROLE", "INFO", "SCAN", "CLUSTER", "CONFIG", "PUBSUB", "DBSIZE", "TIME", "PING"];
    for command in commands {
        withstand(&Hostility::ALL.map(|hostility| (hostility, command)));
    }
}
