//! Several replicas on one PostgreSQL, as real processes, while they and the database are killed, frozen and restarted.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use keysweep_harness::{
    DataSet, Flavor, Installation, Postgres, ScanTask, Server, Service, Stalls, SteppedClock, eventually, scan_path,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");
pub(crate) const SERVE: &[&str] = &["--no-auth", "--host-concurrency", "16"];

/// A number from the environment, or the default.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
fn while_the_database_is_unavailable_health_checks_fail_and_the_service_recovers() {
    let mut database = Postgres::start();
    let mut server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(50_000).stale(50_000).load(&server);
    server.watch_expired_keys();
    let installation = Installation::on_postgres(BINARY, &database);
    let (project, instance) = installation.register_with(&server.url(), &["--pace", "gentle"]);
    let other = installation.register_another(&project, "other", &server.url(), &[]);
    let service = installation.serve(SERVE);
    let task = service.scan(&project, &instance);
    service.wait_for_task(&task, |task| task["keys_scanned"].as_u64().is_some_and(|keys| keys > 0));
    // A server that does not answer during a scan keeps the scan going until this test resumes it.
    server.pause();

    database.stop();
    let unready = eventually("it is not ready", Duration::from_secs(10), || {
        let answer = service.request("GET", "/readyz");
        (answer.status == 503).then_some(answer)
    });
    assert!(unready.body["reason"].as_str().is_some_and(|reason| reason.contains("database")), "{unready:?}");
    let refused = service.create_scan(&project, &other);
    assert_eq!(refused.status, 500, "{refused:?}");
    assert!(refused.body["error_code"].is_string() && refused.body["error_msg"].is_string(), "{refused:?}");
    server.resume();
    // Longer than a worker may scan without a heartbeat: it releases the lease and claims the task again.
    let begun = Instant::now();
    eventually("the worker gives up the scan", Duration::from_secs(20), || {
        (begun.elapsed() > Duration::from_secs(12)).then_some(())
    });
    database.restart();

    eventually("it is ready again", Duration::from_secs(10), || {
        (service.request("GET", "/readyz").status == 200).then_some(())
    });
    let ended = eventually("the task resumes and finishes", Duration::from_secs(120), || {
        Some(service.task(&task)).filter(|task| task["status"] == "success" || task["status"] == "failed")
    });
    assert_eq!(ended["status"], "success", "{ended:#}");
    let keys: u64 = redis::cmd("DBSIZE").query(&mut server.connection()).expect("a size");
    assert_eq!(keys, loaded.live);
    assert_eq!(service.create_scan(&project, &other).status, 200);
}

#[test]
fn a_replica_whose_clock_is_off_claims_nothing_until_it_is_right_again() {
    let database = Postgres::start();
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).stale(20).load(&server);
    let installation = Installation::on_postgres(BINARY, &database);
    let (project, instance) = installation.register(&server.url());
    let clock = SteppedClock::new(installation.folder());
    clock.step(-30);
    let metrics = [SERVE, &["--metrics-listen", "127.0.0.1:0"]].concat();
    let off = installation.serve_with(&metrics, &clock.environment());
    let unready = eventually("it says so", Duration::from_secs(10), || {
        Some(off.request("GET", "/readyz")).filter(|answer| answer.status == 503)
    });
    let reason = unready.body["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("30.0 s behind the database's") && reason.contains("NTP"), "{reason}");
    let difference = off.scrape();
    let difference = difference.lines().find_map(|line| line.strip_prefix("keysweep_clock_difference_seconds "));
    assert!(
        difference.is_some_and(|seconds| seconds.starts_with("-30") || seconds.starts_with("-29.9")),
        "{difference:?}"
    );
    // Both replicas take requests; the healthy one carries the tasks out.
    let healthy = installation.serve(SERVE);
    let task = off.scan(&project, &instance);
    assert_eq!(off.wait_until_finished(&task)["status"], "success");
    drop(healthy);
    let waiting = off.scan(&project, &instance);
    let begun = Instant::now();
    eventually("it is not claimed", Duration::from_secs(10), || {
        assert_eq!(off.task(&waiting)["status"], "waiting");
        (begun.elapsed() > Duration::from_secs(3)).then_some(())
    });
    clock.step(0);
    assert_eq!(off.wait_until_finished(&waiting)["status"], "success", "after three good readings");
    assert_eq!(off.request("GET", "/readyz").status, 200);
}

#[test]
fn a_cancel_reaches_a_scan_on_another_replica_within_two_seconds() {
    let database = Postgres::start();
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(200_000).load(&server);
    let installation = Installation::on_postgres(BINARY, &database);
    let (project, instance) = installation.register(&server.url());
    // 2,000 keys a second: far longer than this test.
    let worker = installation.serve(SERVE);
    database.sql(&format!(
        "INSERT INTO auto_scan (instance_id, enabled, first_scan_at, interval_us, timeout_us, scan_keys_count, updated_at)
         VALUES ('{instance}', TRUE, 0, 0, 600000000, 10, 0)"
    ));
    let find = format!("SELECT id FROM task WHERE instance_id = '{instance}' AND status = 'running'");
    let id = eventually("a scheduled scan runs", Duration::from_secs(10), || {
        let id = database.sql(&find);
        (!id.is_empty()).then_some(id)
    });
    let (task, other) = (ScanTask::new(&project, &id), installation.serve(SERVE));
    // A process that has just begun opens its connections with its first request.
    assert_eq!(other.task(&task)["status"], "running");
    // From the client's request to the end that the worker has written, by this machine's clock; not to the moment when this
    // test hears of it.
    let begun = jiff::Timestamp::now();
    let stalls = Stalls::watch();
    let cancelled = other.request("POST", &format!("{}/cancel", task.path));
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    let task = worker.wait_for_task(&task, |task| task["status"] == "failed");
    let stalled = stalls.end();
    let ended = database.sql(&format!("SELECT finished_at FROM task WHERE id = '{id}'"));
    let ended = jiff::Timestamp::from_microsecond(ended.parse().expect("microseconds")).expect("a time");
    let took = ended.duration_since(begun).unsigned_abs();
    assert!(
        ended >= begun && took < Duration::from_secs(2) + stalled,
        "{took:?}, of which {stalled:?} is the machine's"
    );
    assert_eq!(task["reason"]["code"], "cancelled", "{task:#}");
}

/// What a test's own triggers write down of leases and tasks, apart from keysweep's idea of them.
pub(crate) const WITNESS: &str = "
CREATE TABLE seen_lease (instance_id TEXT, epoch BIGINT, owner TEXT);
CREATE TABLE seen_task (seq BIGSERIAL, id TEXT, before TEXT, after TEXT);
CREATE FUNCTION see_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'UPDATE' AND (NEW.epoch < OLD.epoch OR (NEW.epoch = OLD.epoch AND NEW.owner <> OLD.owner)) THEN
        RAISE EXCEPTION 'epoch % of % goes from % to %', OLD.epoch, NEW.epoch, OLD.owner, NEW.owner;
    END IF;
    IF NEW.owner IS NOT NULL THEN INSERT INTO seen_lease VALUES (NEW.instance_id, NEW.epoch, NEW.owner); END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION see_task() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.status <> OLD.status THEN INSERT INTO seen_task (id, before, after) VALUES (NEW.id, OLD.status, NEW.status); END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER see_lease AFTER INSERT OR UPDATE ON lease FOR EACH ROW EXECUTE FUNCTION see_lease();
CREATE TRIGGER see_task AFTER UPDATE ON task FOR EACH ROW EXECUTE FUNCTION see_task();";

/// Two replicas, one of which may be frozen.
struct Replicas<'i> {
    installation: &'i Installation,
    awake: Vec<Service>,
    frozen: Option<(Service, u64)>,
}

impl Replicas<'_> {
    fn strike(&mut self, round: u64, random: &mut StdRng, database: &mut Postgres) -> &'static str {
        if let Some((service, since)) = self.frozen.take() {
            // A few rounds are longer than a lease: it wakes up to find its tasks taken.
            if round < since + 5 {
                self.frozen = Some((service, since));
            } else {
                service.resume();
                self.awake.push(service);
                return "wake a replica";
            }
        }
        let victim = random.random_range(0..self.awake.len());
        match random.random_range(0..4) {
            0 if self.frozen.is_none() => {
                let service = self.awake.swap_remove(victim);
                service.pause();
                self.frozen = Some((service, round));
                "freeze a replica"
            }
            0 | 1 => {
                self.awake.swap_remove(victim).kill();
                self.awake.push(self.installation.serve(SERVE));
                "kill a replica"
            }
            2 => {
                self.awake.swap_remove(victim).terminate();
                self.awake.push(self.installation.serve(SERVE));
                "restart a replica"
            }
            _ => {
                if random.random() {
                    database.kill()
                } else {
                    database.stop()
                }
                database.restart();
                "restart the database"
            }
        }
    }
}

#[test]
fn heavy_two_replicas_lose_no_task_and_share_no_lease_whatever_is_killed() {
    let rounds = setting("KEYSWEEP_ROUNDS", 10);
    let seed = setting("KEYSWEEP_SEED", rand::rng().next_u64());
    println!("KEYSWEEP_SEED={seed} KEYSWEEP_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut database = Postgres::start();
    let servers: Vec<Server> = (0..3).map(|_| Server::start(Flavor::Valkey91)).collect();
    let installation = Installation::on_postgres(BINARY, &database);
    let project = keysweep_harness::id(&installation.admin(&["project", "add", "test"]));
    let mut instances = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        DataSet::new().live(100_000).load(server);
        // Several on each, so that there is always something to take over.
        for twin in ["a", "b", "c", "d"] {
            let name = format!("cache{number}{twin}");
            instances.push(installation.register_another(&project, &name, &server.url(), &[]));
        }
    }
    database.sql(WITNESS);
    let mut replicas = Replicas {
        installation: &installation,
        awake: (0..2).map(|_| installation.serve(SERVE)).collect(),
        frozen: None,
    };
    let mut accepted: BTreeMap<String, ()> = BTreeMap::new();
    let mut struck: BTreeMap<&str, u32> = BTreeMap::new();
    for round in 0..rounds {
        // Load until the moment of the strike, which is random.
        let until = Instant::now() + Duration::from_millis(random.random_range(500..3_500));
        while Instant::now() < until {
            let service = replicas.awake.choose(&mut random).expect("one is awake");
            let instance = instances.choose(&mut random).expect("instances");
            if let Ok(answer) = service.try_request("POST", &scan_path(&project, instance))
                && answer.status == 200
            {
                accepted.insert(keysweep_harness::id(&answer.body), ());
            }
        }
        *struck.entry(replicas.strike(round, &mut random, &mut database)).or_default() += 1;
    }
    if let Some((service, _)) = replicas.frozen.take() {
        service.resume();
        replicas.awake.push(service);
    }

    let active = "SELECT COUNT(*) FROM task WHERE status IN ('waiting', 'running')";
    eventually("every task ends", Duration::from_secs(60), || (database.sql(active) == "0").then_some(()));
    let used = database.sql("SELECT percentile_disc(ARRAY[0, 0.5, 1]) WITHIN GROUP (ORDER BY used_us) FROM task");
    let epochs = database.sql("SELECT SUM(epoch) FROM lease");
    println!("{} tasks accepted, {epochs} leases, {used} µs used (least, median, most), {struck:?}", accepted.len());
    assert!(accepted.len() as u64 >= rounds, "there was hardly any load: {}", accepted.len());
    for id in accepted.keys() {
        let task: Value = replicas.awake[0].task(&ScanTask::new(&project, id));
        assert_eq!(task["status"], "success", "seed {seed}: {task:#}");
    }
    let doubles = database.sql(
        "SELECT instance_id, epoch, COUNT(DISTINCT owner) FROM seen_lease GROUP BY 1, 2 HAVING COUNT(DISTINCT owner) > 1",
    );
    assert_eq!(doubles, "", "seed {seed}: an epoch with two owners");
    let wrong = database.sql(
        "SELECT id, before, after FROM seen_task WHERE (before, after) NOT IN (('waiting', 'running'), ('running', 'success'))",
    );
    assert_eq!(wrong, "", "seed {seed}: a step that no task may take");
    let twice = database.sql("SELECT id FROM seen_task WHERE after = 'success' GROUP BY id HAVING COUNT(*) <> 1");
    assert_eq!(twice, "", "seed {seed}: a task that ended twice");
}
