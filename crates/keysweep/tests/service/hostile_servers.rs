//! Registered servers that attack the service with their replies, while another one is served. Each of them is met by a background
//! poll, by a poll and an estimate on request, and by a scan: before a scan is created, the server behaves for one poll, since none is
//! accepted for what is known to be no Redis.

use std::{
    fmt::Debug,
    io::Write,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use keysweep_harness::{
    DataSet, Flavor, HostileServer, Hostility, Installation, ScanTask, Server, Service, eventually, id, installation,
};

/// Most memory that the service may take, bytes.
const MEMORY: u64 = 256 << 20;
/// Most memory that it may keep afterwards, beside that of an idle one, bytes.
const KEPT: u64 = 20 << 20;
/// How long a scan of another project may take to begin.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for background work of the service.
const SOON: Duration = Duration::from_secs(30);

/// Commands of each poll, of each estimate and of each scan, where the server is of the kind that is asked so. Others are sent to
/// some versions alone, or before the client has given its name.
const OF_POLLS: [&str; 4] = ["INFO", "ROLE", "CLUSTER", "SENTINEL"];
const OF_ESTIMATES: [&str; 5] = ["INFO", "ROLE", "CLUSTER", "SENTINEL", "SCAN"];
const OF_SCANS: [&str; 5] = OF_ESTIMATES;

/// How a server attacks: by which reply, and whether it is registered as a Sentinel.
#[derive(Debug, Clone, Copy)]
struct Attack {
    hostility: Hostility,
    command: &'static str,
    is_behind_sentinel: bool,
}

impl Attack {
    fn new(hostility: Hostility, command: &'static str) -> Self {
        Self { hostility, command, is_behind_sentinel: false }
    }

    fn behind_a_sentinel(self) -> Self {
        Self { is_behind_sentinel: true, ..self }
    }

    /// Whether a scan of the server goes on for as long as the server likes.
    fn is_endless(self) -> bool {
        match self.hostility {
            Hostility::Slow => true,
            // A page is a short reply to another command.
            Hostility::Pages => self.command == "SCAN",
            _ => false,
        }
    }
}

/// A registered hostile server.
struct Registered {
    attack: Attack,
    instance: String,
    path: String,
    server: HostileServer,
}

impl Registered {
    fn new(installation: &Installation, project: &str, number: usize, attack: Attack) -> Self {
        let server = HostileServer::start(attack.hostility, attack.command);
        let url = match attack.is_behind_sentinel {
            true => server.sentinel_url(),
            false => server.url(attack.command),
        };
        let instance = installation.register_another(project, &format!("cache{number}"), &url, &[]);
        let path = format!("/api/v1/projects/{project}/instances/{instance}");
        Self { attack, instance, path, server }
    }

    /// Does something during which the server must attack connections of this name, if it attacks one of these commands.
    fn meet<T: Debug>(&self, client: &str, commands: &[&str], what: impl FnOnce() -> T) -> T {
        let before = self.server.attacks_on(client);
        let outcome = what();
        if commands.contains(&self.attack.command) {
            let attacks = self.server.attacks_on(client);
            assert!(attacks > before, "{:?}: {client} has not met it: {outcome:?}", self.attack);
        }
        outcome
    }

    /// Waits for a background poll.
    fn wait_for_poll(&self, service: &Service) {
        eventually(&format!("{:?}: a poll", self.attack), SOON, || {
            let shown = service.get(&self.path);
            (!shown["stats"].is_null() || !shown["unreachable"].is_null()).then_some(())
        });
        let polls = self.server.attacks_on("keysweep:inspect");
        assert!(polls > 0 || !OF_POLLS.contains(&self.attack.command), "{:?}: no poll has met it", self.attack);
    }

    /// Creates a scan that the server attacks, after a poll that it did not attack.
    fn scan(&self, service: &Service, project: &str) -> ScanTask {
        self.server.set_hostile(false);
        let tested = service.request("POST", &format!("{}/test", self.path));
        assert_eq!((tested.status, &tested.body["ok"]), (200, &true.into()), "{:?}: {tested:?}", self.attack);
        self.server.set_hostile(true);
        // The scans of others before may keep the processor, and thereby the database, busy.
        eventually(&format!("{:?}: a task", self.attack), SOON, || {
            let created = service.create_scan(project, &self.instance);
            assert!(matches!(created.status, 200 | 500), "{:?}: {created:?}", self.attack);
            (created.status == 200).then(|| ScanTask::new(project, &id(&created.body)))
        })
    }

    /// Tests and estimates it on request.
    fn test_and_estimate(&self, service: &Service) {
        let (attack, begun) = (self.attack, Instant::now());
        let tested =
            self.meet("keysweep:inspect", &OF_POLLS, || service.request("POST", &format!("{}/test", self.path)));
        assert!(tested.status == 200 && tested.text.len() < 100_000, "{attack:?}: {tested:?}");
        let estimate =
            format!("{}/estimate{}", self.path, if attack.command == "SCAN" { "?method=sample" } else { "" });
        let estimated = self.meet("keysweep:estimate", &OF_ESTIMATES, || match attack.hostility {
            // It would last for as long as an estimate may.
            Hostility::Slow => {
                self.begin_estimate(service, &estimate);
                None
            }
            _ => Some(service.request("POST", &estimate)),
        });
        if let Some(estimated) = estimated {
            assert!(estimated.status < 600 && estimated.status != 500, "{attack:?}: {estimated:?}");
            assert!(estimated.text.len() < 100_000, "{attack:?}: an answer of {} bytes", estimated.text.len());
        }
        println!("{attack:?}: tested and estimated in {:?}", begun.elapsed());
    }

    /// Asks for an estimate, and goes away once the server attacks it.
    fn begin_estimate(&self, service: &Service, path: &str) {
        let before = self.server.attacks_on("keysweep:estimate");
        let mut stream = TcpStream::connect(service.base.trim_start_matches("http://")).expect("it listens");
        write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").expect("it is sent");
        if OF_ESTIMATES.contains(&self.attack.command) {
            eventually("the estimate", SOON, || (self.server.attacks_on("keysweep:estimate") > before).then_some(()));
        }
    }

    /// Waits until its scan has ended, which must have met it.
    fn wait_until_finished(&self, service: &Service, task: &ScanTask) {
        let (attack, client) = (self.attack, format!("keysweep:{}", task.id));
        if OF_SCANS.contains(&attack.command) {
            eventually(&format!("{attack:?}: the scan meets it"), SOON, || {
                (self.server.attacks_on(&client) > 0).then_some(())
            });
        }
        if attack.is_endless() {
            let cancelled = service.request("POST", &format!("{}/cancel", task.path));
            // A command that scans do not send is not attacked, and the scan may have ended.
            assert!(cancelled.status == 200 || self.server.attacks_on(&client) == 0, "{attack:?}: {cancelled:?}");
        } else if !OF_SCANS.contains(&attack.command) {
            // Where a reply that a scan can do without is attacked, it retries until its own timeout.
            let until = Instant::now() + SOON;
            while service.get(&task.path)["status"] == "running" && Instant::now() < until {
                thread::sleep(Duration::from_millis(50));
            }
            service.request("POST", &format!("{}/cancel", task.path));
        }
        let finished = service.wait_until_finished(task);
        let message = finished["reason"]["message"].as_str().unwrap_or_default();
        assert!(message.len() < 1_000 && !message.contains(char::is_control), "{attack:?}: {message:?}");
        // A server that only exaggerates its numbers can be scanned.
        let is_harmless = match attack.hostility {
            Hostility::Numbers => true,
            // Their reply to another command is a word.
            Hostility::Nodes => !matches!(attack.command, "CLUSTER" | "SENTINEL"),
            Hostility::Pages => !attack.is_endless(),
            _ => false,
        };
        let may_succeed = is_harmless || !OF_SCANS.contains(&attack.command);
        assert!(finished["status"] == "failed" || may_succeed, "{attack:?}: {finished:#}");
        println!("{attack:?}: {message}");
    }
}

/// Has every hostile server polled, tested, estimated and scanned at once, and a real one beside them. The service must stay below
/// its limit of memory, must have ended every scan whose server does not just take its time, and must give the memory back.
fn withstand(attacks: &[Attack]) {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(500).stale(100).load(&server);
    let idle = idle_memory();
    let installation = installation!();
    let [hostile, healthy] = ["hostile", "healthy"].map(|name| id(&installation.admin(&["project", "add", name])));
    let attackers = attacks.iter().enumerate();
    let registered: Vec<Registered> =
        attackers.map(|(number, attack)| Registered::new(&installation, &hostile, number, *attack)).collect();
    let cache = installation.register_another(&healthy, "cache", &format!("redis://127.0.0.1:{}", server.port()), &[]);
    let service = installation.serve(&["--no-auth", "--host-concurrency", "64", "--metrics-listen", "127.0.0.1:0"]);
    registered.iter().for_each(|one| one.wait_for_poll(&service));
    let tasks: Vec<ScanTask> = registered.iter().map(|one| one.scan(&service, &hostile)).collect();
    let begun = Instant::now();
    let task = service.scan(&healthy, &cache);
    thread::scope(|scope| {
        // One after the other: a project has two polls on request and two estimates at a time.
        scope.spawn(|| registered.iter().for_each(|one| one.test_and_estimate(&service)));
        let finished = service.wait_until_finished(&task);
        assert_eq!(
            (&finished["status"], &finished["keys_reclaimed"]),
            (&"success".into(), &100.into()),
            "{finished:#}"
        );
        assert!(begun.elapsed() < START_TIMEOUT, "a healthy scan took {:?}", begun.elapsed());
    });
    registered.iter().zip(&tasks).for_each(|(one, task)| one.wait_until_finished(&service, task));
    assert_eq!(service.request("GET", "/healthz").status, 200);
    if attacks.iter().any(|attack| attack.hostility == Hostility::Crowd) {
        service.wait_for_log("found no memory");
        let scraped = service.scrape();
        let sample = |name: &str| scraped.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert_eq!(sample("keysweep_reply_memory_max_bytes"), Some(f64::from(80 << 20)));
        assert!(sample("keysweep_reply_memory_used_bytes") <= sample("keysweep_reply_memory_max_bytes"), "{scraped}");
        assert!(sample("keysweep_reply_memory_refusals_total") >= Some(1.0), "{scraped}");
    }
    let peak = service.peak_memory();
    assert!(peak < MEMORY, "the service took {} MiB", peak >> 20);
    registered.iter().for_each(|one| one.server.set_hostile(false));
    let until = Instant::now() + SOON;
    while service.resident_memory() > idle + KEPT && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
    let now = service.resident_memory();
    println!("idle {} MiB, peak {} MiB, at the end {} MiB", idle >> 20, peak >> 20, now >> 20);
    assert!(now <= idle + KEPT, "the service kept {} MiB, an idle one has {}", now >> 20, idle >> 20);
}

/// Returns the memory of a service without instances, bytes.
fn idle_memory() -> u64 {
    let installation = installation!();
    let service = installation.serve(&["--no-auth"]);
    assert_eq!(service.request("GET", "/readyz").status, 200);
    service.resident_memory()
}

#[test]
fn the_service_survives_every_hostile_reply_within_256_mib_and_serves_others() {
    let mut attacks: Vec<Attack> =
        Hostility::ALL.map(|hostility| Attack::new(hostility, hostility.worst_command())).into();
    // Hostile Sentinels, and hostile primaries behind a Sentinel that behaves.
    attacks.extend([Hostility::Wide, Hostility::Nodes].map(|hostility| Attack::new(hostility, "SENTINEL")));
    let behind = [(Hostility::Replicas, "ROLE"), (Hostility::Databases, "INFO"), (Hostility::Endless, "SCAN")];
    attacks.extend(behind.map(|(hostility, command)| Attack::new(hostility, command).behind_a_sentinel()));
    // Each reply within its budget, and four times 64 of them at a time.
    attacks.extend([Attack::new(Hostility::Crowd, Hostility::Crowd.worst_command()); 4]);
    withstand(&attacks);
}

#[test]
#[ignore = "a few minutes; make soak runs it"]
fn soak_the_service_survives_every_hostile_reply_to_every_command() {
    let commands = ["ROLE", "INFO", "SCAN", "CLUSTER", "SENTINEL", "CONFIG", "PUBSUB", "DBSIZE", "TIME", "PING"];
    for command in commands {
        withstand(&Hostility::ALL.map(|hostility| Attack::new(hostility, command)));
        if !matches!(command, "CLUSTER" | "SENTINEL") {
            withstand(&Hostility::ALL.map(|hostility| Attack::new(hostility, command).behind_a_sentinel()));
        }
    }
}
