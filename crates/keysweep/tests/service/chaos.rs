//! The chaos run of `make soak`: everything at once that may go wrong, for `KEYSWEEP_CHAOS_MINUTES` (30). Two replicas on
//! PostgreSQL are killed, frozen and restarted, their clocks stepped, their database killed, while hostile servers are polled and
//! scanned and slow clients hold connections; and a service on SQLite whose disk fills up and whose file is locked.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use keysweep_harness::{
    DataSet, Flavor, HostileServer, Hostility, Installation, KilledOnDrop, Postgres, ScanTask, Server, Service,
    SteppedClock, eventually, id, scan_path,
};
use rand::{
    Rng, RngExt, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};

use crate::{
    exposure::clients,
    replicas::{SERVE, WITNESS, setting},
};

const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");
/// How long after its creation a scan of a healthy project may begin.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Most memory of a replica, bytes.
const MEMORY: u64 = 256 << 20;
/// Addresses from which clients hold a connection each and neither send nor read, and such clients of each: more than a replica has
/// connections.
const SLOW_ADDRESSES: u8 = 5;
const SLOW_CLIENTS: usize = 120;
/// Time after which a service that serves all the while has all the memory that it needs; of a short run, a third of it.
const WARM_UP: Duration = Duration::from_secs(300);

/// A replica with a clock of its own.
struct Replica {
    service: Service,
    clock: SteppedClock,
    /// The round in which it was frozen.
    frozen: Option<u64>,
    /// Whether its clock is off, so that it takes no tasks.
    is_off: bool,
}

impl Replica {
    fn set_right(&mut self) {
        self.clock.step(0);
        self.is_off = false;
    }
}

/// Both replicas and their database.
struct Installed {
    installation: Installation,
    database: Postgres,
    replicas: Vec<Replica>,
    struck: BTreeMap<&'static str, u32>,
    /// Faults that are still to come before all come again.
    deck: Vec<u32>,
    /// The most memory that any replica has held, bytes.
    peak: u64,
}

fn serve(installation: &Installation, clock: &SteppedClock) -> Service {
    installation.serve_with(SERVE, &clock.environment())
}

impl Installed {
    fn new() -> Self {
        let database = Postgres::start();
        let installation = Installation::on_postgres(BINARY, &database);
        Self { installation, database, replicas: Vec::new(), struck: BTreeMap::new(), deck: Vec::new(), peak: 0 }
    }

    fn start_replicas(&mut self) {
        for name in ["one", "two"] {
            let folder = self.installation.folder().join(name);
            fs::create_dir(&folder).expect("the folder can be written to");
            let clock = SteppedClock::new(&folder);
            let service = serve(&self.installation, &clock);
            self.replicas.push(Replica { service, clock, frozen: None, is_off: false });
        }
    }

    fn awake(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.frozen.is_none())
    }

    /// Does one thing that may go wrong.
    fn strike(&mut self, round: u64, random: &mut StdRng) {
        self.measure();
        let index = random.random_range(0..self.replicas.len());
        // One replica can take tasks at any time.
        let others_work = self
            .replicas
            .iter()
            .enumerate()
            .all(|(other, one)| other == index || (one.frozen.is_none() && !one.is_off));
        if self.deck.is_empty() {
            self.deck = (0..6).collect();
            self.deck.shuffle(random);
        }
        let replica = &mut self.replicas[index];
        let is_frozen = replica.frozen.is_some();
        let drawn = if is_frozen { None } else { self.deck.pop() };
        let what = match drawn.unwrap_or(0) {
            // A few rounds are longer than a lease: it wakes up to find its tasks taken.
            _ if replica.frozen.is_some_and(|since| round >= since + 5) => {
                replica.service.resume();
                replica.frozen = None;
                "wake a replica"
            }
            _ if replica.frozen.is_some() => "leave a replica frozen",
            0 if others_work => {
                replica.service.pause();
                replica.frozen = Some(round);
                "freeze a replica"
            }
            1 => {
                let next = serve(&self.installation, &replica.clock);
                std::mem::replace(&mut replica.service, next).kill();
                "kill a replica"
            }
            2 => {
                let next = serve(&self.installation, &replica.clock);
                std::mem::replace(&mut replica.service, next).terminate();
                "restart a replica"
            }
            3 => {
                self.database.kill();
                self.database.restart();
                "kill the database"
            }
            4 if others_work => {
                let seconds = *[-45, -5, 5, 45].choose(random).expect("seconds");
                replica.clock.step(seconds);
                replica.is_off = true;
                "step a clock"
            }
            // One that needs the other replica comes again.
            0 | 4 => {
                self.deck.insert(0, drawn.unwrap_or(0));
                self.replicas.iter_mut().for_each(Replica::set_right);
                "set the clocks right"
            }
            _ => {
                self.replicas.iter_mut().for_each(Replica::set_right);
                "set the clocks right"
            }
        };
        *self.struck.entry(what).or_default() += 1;
    }

    fn measure(&mut self) {
        let peak = self.replicas.iter().map(|replica| replica.service.peak_memory()).max();
        self.peak = self.peak.max(peak.unwrap_or(0));
    }

    /// Ends all faults.
    fn calm(&mut self) {
        for replica in &mut self.replicas {
            replica.set_right();
            if replica.frozen.take().is_some() {
                replica.service.resume();
            }
        }
    }
}

/// Opens connections from several addresses of this machine that neither send a whole request nor read an answer.
fn slow_clients(service: &Service) -> Vec<TcpStream> {
    let unread = "GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n".repeat(20);
    let half = SLOW_CLIENTS / 2;
    let from = |last| [clients(service, last, half, b"GET / HTT"), clients(service, last, half, unread.as_bytes())];
    (2..2 + SLOW_ADDRESSES).flat_map(from).flatten().collect()
}

/// A service on SQLite whose disk is filled and whose file is locked.
struct OnSqlite {
    service: Service,
    disk: PathBuf,
    project: String,
    instance: String,
    accepted: Vec<ScanTask>,
    installation: Installation,
}

impl OnSqlite {
    /// `None`: this system allows no mount.
    fn start(server: &Server) -> Option<Self> {
        let installation = Installation::new(BINARY);
        let (project, instance) = installation.register(&server.url());
        let (service, disk) = installation.serve_on_small_disk("16m", &["--no-auth"])?;
        Some(Self { service, disk, project, instance, accepted: Vec::new(), installation })
    }

    fn create(&mut self) {
        if let Ok(answer) = self.service.try_request("POST", &scan_path(&self.project, &self.instance))
            && answer.status == 200
        {
            self.accepted.push(ScanTask::new(&self.project, &id(&answer.body)));
        }
    }

    /// Fills the disk, or holds the file's lock, for a moment, with requests meanwhile.
    fn strike(&mut self, fill: bool) -> &'static str {
        // Accepted before the fault: it must not be lost in it.
        self.create();
        let filler = self.disk.join("filler");
        if fill {
            let mut file = fs::File::create(&filler).expect("the disk is there");
            while file.write_all(&[0; 4_096]).is_ok() {}
        }
        let lock = (!fill).then(|| self.lock());
        (0..3).for_each(|_| self.create());
        drop(lock);
        let _ = fs::remove_file(&filler);
        if fill { "fill the disk" } else { "lock the file" }
    }

    /// Holds the write lock of the file from another process, which sees the same disk, until it is dropped.
    fn lock(&self) -> KilledOnDrop {
        let script = "import sqlite3,sys,time\nc=sqlite3.connect(sys.argv[1],timeout=5)\nc.execute('BEGIN IMMEDIATE')\nprint(1,flush=True)\ntime.sleep(60)";
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.service.pid().to_string(), "--user", "--mount", "--preserve-credentials"]);
        command.args(["python3", "-c", script]).arg(self.installation.folder().join("disk/keysweep.db"));
        let mut child = KilledOnDrop(command.stdout(Stdio::piped()).spawn().expect("nsenter starts"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line, "1\n", "the file is not locked");
        child
    }

    fn finish(mut self) -> usize {
        eventually("it is ready again", Duration::from_secs(30), || {
            (self.service.request("GET", "/readyz").status == 200).then_some(())
        });
        self.create();
        for task in &self.accepted {
            assert_eq!(self.service.wait_until_finished(task)["status"], "success", "{}", task.id);
        }
        self.accepted.len()
    }
}

#[test]
#[ignore = "half an hour; make soak runs it, KEYSWEEP_CHAOS_MINUTES shortens it"]
fn soak_chaos_loses_no_task_and_serves_every_healthy_project() {
    let minutes = setting("KEYSWEEP_CHAOS_MINUTES", 30);
    let seed = setting("KEYSWEEP_SEED", rand::rng().next_u64());
    println!("KEYSWEEP_SEED={seed} KEYSWEEP_CHAOS_MINUTES={minutes}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut installed = Installed::new();
    let servers: Vec<Server> = (0..3).map(|_| Server::start(Flavor::Valkey91)).collect();
    let add_project = |name: &str| id(&installed.installation.admin(&["project", "add", name]));
    let (hostile, healthy) = (add_project("hostile"), ["shop", "search", "mail"].map(add_project));
    let mut instances = Vec::new();
    for (project, server) in healthy.iter().zip(&servers) {
        DataSet::new().live(50_000).stale(1_000).load(server);
        for name in ["a", "b", "c"] {
            let instance = installed.installation.register_another(project, name, &server.url(), &[]);
            instances.push((project.clone(), instance));
        }
    }
    let attackers: Vec<(HostileServer, String)> = Hostility::ALL
        .iter()
        .map(|hostility| {
            let command = hostility.worst_command();
            let (server, name) = (HostileServer::start(*hostility, command), format!("{hostility:?}"));
            let instance = installed.installation.register_another(&hostile, &name, &server.url(command), &[]);
            (server, instance)
        })
        .collect();
    installed.database.sql(WITNESS);
    installed.start_replicas();
    let mut on_sqlite = OnSqlite::start(&servers[0]);
    let (mut accepted, mut round) = (BTreeMap::new(), 0);
    let begun = Instant::now();
    let lasting = Duration::from_secs(60 * minutes);
    let (end, warm_up) = (begun + lasting, WARM_UP.min(lasting / 3));
    let (mut held, mut warm) = (Vec::new(), None);
    while Instant::now() < end {
        // One replica is beset at a time, and for longer than a round.
        let beset: Vec<&Replica> = installed.awake().collect();
        let beset = beset.choose(&mut random).expect("one is awake");
        held = match round % 4 {
            0 => slow_clients(&beset.service),
            _ => held,
        };
        if begun.elapsed() >= warm_up && warm.is_none() {
            warm = on_sqlite.as_ref().map(|on_sqlite| on_sqlite.service.resident_memory());
        }
        let until = Instant::now() + Duration::from_millis(random.random_range(1_000..6_000));
        while Instant::now() < until {
            let awake: Vec<&Replica> = installed.awake().collect();
            let service = &awake.choose(&mut random).expect("one is awake").service;
            let (project, instance) = match random.random_range(0..10) {
                0 => (hostile.clone(), attackers.choose(&mut random).expect("attackers").1.clone()),
                _ => instances.choose(&mut random).expect("instances").clone(),
            };
            if let Ok(answer) = service.try_request("POST", &scan_path(&project, &instance))
                && answer.status == 200
            {
                accepted.insert(id(&answer.body), project);
            }
            thread::sleep(Duration::from_millis(20));
        }
        installed.strike(round, &mut random);
        if let Some(on_sqlite) = &mut on_sqlite {
            let what = on_sqlite.strike(round.is_multiple_of(2));
            *installed.struck.entry(what).or_default() += 1;
        }
        round += 1;
    }
    drop(held);
    installed.calm();
    // The others are killed and restarted all the while.
    let memory = on_sqlite.as_ref().map(|on_sqlite| on_sqlite.service.resident_memory());
    if let (Some(warm), Some(memory)) = (warm, memory) {
        println!("the service on SQLite held {} MiB after {warm_up:?} and {} MiB at the end", warm >> 20, memory >> 20);
        assert!(memory <= warm * 6 / 5, "seed {seed}: {memory} bytes at the end, {warm} after {warm_up:?}");
    }

    // Endless scans are cancelled; every other one ends by itself.
    let service = &installed.replicas[0].service;
    eventually("it is ready again", Duration::from_secs(30), || {
        (service.request("GET", "/readyz").status == 200).then_some(())
    });
    for (task, _) in accepted.iter().filter(|(_, project)| **project == hostile) {
        service.request("POST", &format!("{}/cancel", ScanTask::new(&hostile, task).path));
    }
    let active = "SELECT COUNT(*) FROM task WHERE status IN ('waiting', 'running')";
    eventually("every task ends", Duration::from_secs(120), || (installed.database.sql(active) == "0").then_some(()));
    let healthy_tasks = accepted.iter().filter(|(_, project)| **project != hostile);
    for (task, project) in healthy_tasks.clone() {
        let task = service.task(&ScanTask::new(project, task));
        assert_eq!(task["status"], "success", "seed {seed}: {task:#}");
    }
    let late = format!("SELECT COALESCE(MAX(started_at - created_at), 0) FROM task WHERE project_id <> '{hostile}'");
    let late = Duration::from_micros(installed.database.sql(&late).parse().expect("microseconds"));
    installed.measure();
    let on_sqlite = on_sqlite.map(OnSqlite::finish);
    println!(
        "{round} rounds, {} tasks of healthy projects accepted and none lost, latest start after {late:?}, peak {} MiB, {:?} on SQLite, {:?}",
        healthy_tasks.clone().count(),
        installed.peak >> 20,
        on_sqlite,
        installed.struck
    );
    let count = healthy_tasks.count();
    for what in ["freeze a replica", "kill a replica", "restart a replica", "kill the database", "step a clock"] {
        let times = u64::from(installed.struck.get(what).copied().unwrap_or(0));
        // A run of a few minutes may end before all have come.
        assert!(times >= minutes / 10, "seed {seed}: only {times} times: {what}");
    }
    assert!(count as u64 >= round, "seed {seed}: {count} tasks accepted in {round} rounds");
    assert!(on_sqlite != Some(0), "seed {seed}: no task was accepted on SQLite");
    assert!(installed.peak < MEMORY, "seed {seed}: a replica held {} MiB", installed.peak >> 20);
    let doubles = "SELECT instance_id, epoch FROM seen_lease GROUP BY 1, 2 HAVING COUNT(DISTINCT owner) > 1";
    assert_eq!(installed.database.sql(doubles), "", "seed {seed}: an epoch with two owners");
    let twice = "SELECT id FROM seen_task WHERE after IN ('success', 'failed') GROUP BY id HAVING COUNT(*) <> 1";
    assert_eq!(installed.database.sql(twice), "", "seed {seed}: a task that ended twice");
    assert!(late < START_TIMEOUT, "seed {seed}: a scan of a healthy project began after {late:?}");
}
