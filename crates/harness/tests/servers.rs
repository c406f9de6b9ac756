//! The tests of everything else stand on these servers and counts, so they are tested themselves.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use keysweep_harness::{DataSet, Flavor, Kind, Names, Server, eventually};
use redis::Connection;

const LIMIT: Duration = Duration::from_secs(10);

fn info(connection: &mut Connection, section: &str, field: &str) -> String {
    let info: String = redis::cmd("INFO").arg(section).query(connection).expect("INFO answers");
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("INFO {section} has no {field}")).into()
}

fn scan(connection: &mut Connection) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let (next, some): (u64, Vec<Vec<u8>>) =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(1_000).query(connection).expect("SCAN answers");
        keys.extend(some);
        cursor = next;
        if cursor == 0 {
            return keys;
        }
    }
}

fn size(connection: &mut Connection) -> usize {
    redis::cmd("DBSIZE").query(connection).expect("DBSIZE answers")
}

#[test]
fn every_flavor_starts_and_is_the_version_that_is_pinned() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/server");
    let script = fs::read_to_string(script).expect("scripts/server is there");
    for flavor in Flavor::ALL {
        let server = Server::start(flavor);
        let field = if flavor.is_valkey() { "valkey_version" } else { "redis_version" };
        assert_eq!(info(&mut server.connection(), "server", field), flavor.version());
        let pinned = format!("version={}", flavor.version());
        assert!(script.contains(&pinned), "scripts/server does not say {pinned}");
    }
}

/// Waits until the server's own cycle, which runs ten times a second, must have run several times.
fn await_cycles(connection: &mut Connection) {
    let mut now_ms = || -> u64 {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(connection).expect("TIME answers");
        seconds * 1_000 + micros / 1_000
    };
    let until = now_ms() + 500;
    eventually("half a second of the server", LIMIT, || (now_ms() > until).then_some(()));
}

#[test]
fn a_scan_reclaims_exactly_the_stale_keys() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor);
        let loaded = DataSet::new().live(3_000).stale(1_500).database(9).live(20).stale(10).load(&server);
        assert_eq!((loaded.live, loaded.stale, loaded.per_database[&9].stale), (3_020, 1_510, 10));

        let mut connection = server.connection();
        await_cycles(&mut connection);
        assert_eq!(size(&mut connection), 4_500, "{}: something else reclaims keys", flavor.name());
        let keys = scan(&mut connection);
        assert_eq!(keys.len(), 3_000, "{}", flavor.name());
        assert!(keys.iter().all(|key| key.starts_with(b"live:")), "{}", flavor.name());
        assert_eq!(size(&mut connection), 3_000, "{}", flavor.name());
        assert_eq!(info(&mut connection, "stats", "expired_keys"), "1500", "{}", flavor.name());
    }
}

#[test]
fn a_second_load_adds_to_what_is_there() {
    let server = Server::start(Flavor::Valkey91);
    let _ = DataSet::new().live(10).stale(10).load(&server);
    let loaded = DataSet::new().prefix("more:").stale(5).load(&server);
    assert_eq!((loaded.live, loaded.stale), (0, 5));
    assert_eq!(size(&mut server.connection()), 25);
}

#[test]
fn every_kind_and_every_name_can_be_loaded() {
    for flavor in Flavor::ALL {
        let server = Server::start(flavor);
        let kinds = Kind::ALL.into_iter().fold(DataSet::new(), |set, kind| set.kind(kind).live(4).stale(3));
        let names = [Names::Binary, Names::Long]
            .into_iter()
            .fold(kinds, |set, names| set.kind(Kind::String).names(names).live(40).stale(30));
        let loaded = names.names(Names::Plain).kind(Kind::Hash).elements(25_000).live(1).stale(1).load(&server);
        assert_eq!((loaded.live, loaded.stale), (24 + 80 + 1, 18 + 60 + 1));

        let mut connection = server.connection();
        let keys = scan(&mut connection);
        assert_eq!(keys.len(), 105, "{}", flavor.name());
        assert_eq!(keys.iter().filter(|key| key.len() == Names::LONG).count(), 40);
        let big = keys.iter().filter(|key| {
            let length: redis::RedisResult<usize> = redis::cmd("HLEN").arg(key).query(&mut connection);
            length == Ok(25_000)
        });
        assert_eq!(big.count(), 1, "{}", flavor.name());
    }
}

#[test]
fn a_child_that_saves_is_gone_with_its_server() {
    // A second a key: it would go on for minutes.
    let server = Server::with(Flavor::Valkey91).arg("--rdb-key-save-delay", "1000000").start();
    DataSet::new().live(100).load(&server);
    redis::cmd("BGSAVE").exec(&mut server.connection()).expect("BGSAVE begins");
    let child = eventually("the child is there", Duration::from_secs(10), || {
        let children = format!("/proc/{0}/task/{0}/children", server.pid());
        fs::read_to_string(children).expect("Linux").split_whitespace().next().map(str::to_owned)
    });
    drop(server);
    eventually("the child has ended", Duration::from_secs(10), || {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    });
}

#[test]
fn a_server_is_gone_when_it_is_dropped() {
    let server = Server::start(Flavor::Redis70);
    let (address, pid) = (server.address(), server.pid());
    drop(server);
    assert!(TcpStream::connect(address).is_err(), "somebody listens on {address}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
}

#[test]
fn a_server_ends_with_the_thread_that_started_it() {
    // As when a test is killed: the server is not dropped, so only the kernel can end it.
    let mut server = thread::spawn(|| Server::start(Flavor::Valkey91)).join().expect("it starts");
    eventually("it has been killed", LIMIT, || (!server.is_running()).then_some(()));
    assert!(TcpStream::connect(server.address()).is_err());
}

#[test]
fn a_password_is_required_and_used() {
    for flavor in Flavor::ALL {
        let server = Server::with(flavor).password("pass word/1").arg("--maxclients", "50").start();
        assert_eq!(server.url(), format!("redis://:pass%20word%2F1@127.0.0.1:{}", server.port()));
        let client = redis::Client::open(server.url()).expect("the URL is one");
        let mut connection = client.get_connection_with_timeout(LIMIT).expect("the password is accepted");
        assert_eq!(size(&mut connection), 0);
        let clients: (String, usize) =
            redis::cmd("CONFIG").arg("GET").arg("maxclients").query(&mut connection).expect("CONFIG answers");
        assert_eq!(clients.1, 50);

        let stranger = redis::Client::open(format!("redis://{}", server.address())).expect("the URL is one");
        let refused = stranger
            .get_connection_with_timeout(LIMIT)
            .and_then(|mut connection| redis::cmd("DBSIZE").exec(&mut connection));
        assert_eq!(refused.expect_err("no password was given").code(), Some("NOAUTH"));
    }
}

#[test]
fn a_replica_follows_its_primary() {
    for flavor in Flavor::ALL {
        let primary = Server::with(flavor).password("secret").start();
        let replica = primary.replica();
        let loaded = DataSet::new().live(50).stale(20).load(&primary);
        let mut connection = replica.connection();
        assert_eq!(info(&mut connection, "replication", "role"), "slave");
        eventually("the keys are on the replica", LIMIT, || (size(&mut connection) == 70).then_some(()));
        // A SCAN on a replica hides stale keys and reclaims none.
        assert_eq!(scan(&mut connection).len(), 50, "{}", flavor.name());
        assert_eq!(size(&mut connection) as u64, loaded.live + loaded.stale, "{}", flavor.name());
    }
}

#[test]
fn a_server_can_be_paused_stopped_killed_and_restarted() {
    let mut server = Server::start(Flavor::Redis62);
    let mut connection = server.connection();
    connection.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
    server.pause();
    assert!(redis::cmd("PING").exec(&mut connection).is_err(), "a paused server answers nothing");
    server.resume();
    assert_eq!(size(&mut server.connection()), 0);

    let run_id = info(&mut server.connection(), "server", "run_id");
    server.kill();
    assert!(!server.is_running());
    server.restart();
    assert_ne!(info(&mut server.connection(), "server", "run_id"), run_id);
    assert!(server.stop().success(), "{}", server.log());
    assert!(TcpStream::connect(server.address()).is_err());
}

#[test]
#[should_panic(expected = "Bad directive")]
fn a_server_that_does_not_start_says_why() {
    let _ = Server::with(Flavor::Valkey91).arg("--no-such-directive", "yes").start();
}

#[test]
fn postgres_keeps_what_it_holds_through_an_end_and_a_crash() {
    let mut server = keysweep_harness::Postgres::start();
    server.sql("CREATE TABLE kept (number INT)");
    server.sql("INSERT INTO kept VALUES (1)");
    server.stop();
    server.restart();
    server.sql("INSERT INTO kept VALUES (2)");
    server.kill();
    server.restart();
    assert_eq!(server.sql("SELECT number FROM kept ORDER BY number"), "1\n2");
}
