//! SCAN on a replica succeeds and deletes nothing. A sweep must never mistake one for a primary.

use std::sync::Mutex;

use keysweep_engine::{FailureKind, Monitor, Options, Stop, Target, sweep};
use keysweep_harness::{DataSet, Flavor, Server, VendorProxy, Words};
use rstest::rstest;

/// Keeps the notes.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Monitor for Notes {
    fn note(&self, sentence: &str) {
        self.0.lock().expect("no test panics while it holds this").push(sentence.to_owned());
    }
}

#[rstest]
fn a_replica_is_followed_to_its_primary_and_a_note_says_so(
    #[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor,
) {
    let primary = Server::start(flavor);
    let loaded = DataSet::new().live(500).stale(300).load(&primary);
    let replica = primary.replica();
    let target: Target = replica.url().parse().expect("a target");
    let notes = Notes::default();

    let report = sweep(&target, &Options::default(), &notes, &Stop::new());

    assert_eq!((report.reason, report.totals.keys_reclaimed), (None, loaded.stale));
    assert_eq!(report.shards[0].address.as_ref().map(ToString::to_string), Some(primary.address().to_string()));
    let notes = notes.0.into_inner().expect("no test panicked");
    assert!(notes.iter().any(|note| note.contains(&primary.address().to_string())), "{notes:?}");
}

#[test]
fn a_replica_is_refused_where_following_is_disabled() {
    let primary = Server::start(Flavor::Valkey91);
    let replica = primary.replica();
    let mut target: Target = replica.url().parse().expect("a target");
    target.follow = false;

    let report = sweep(&target, &Options::default(), &(), &Stop::new());

    assert_eq!(report.reason, Some(FailureKind::Refused));
    let message = report.message.expect("a sentence");
    assert!(message.contains(&primary.address().to_string()), "the remedy names the primary: {message}");
}

#[test]
fn a_chain_of_four_replicas_is_followed_and_a_longer_one_is_refused() {
    let chain: Vec<Server> = (0..6).map(|_| Server::start(Flavor::Valkey91)).collect();
    let loaded = DataSet::new().live(50).stale(30).load(&chain[0]);
    // Its role is that of a replica at once, in sync or not.
    for pair in chain.windows(2) {
        let mut command = redis::cmd("REPLICAOF");
        command.arg("127.0.0.1").arg(pair[0].port()).exec(&mut pair[1].connection()).expect("a replica");
    }
    let scan =
        |server: &Server| sweep(&server.url().parse().expect("a target"), &Options::default(), &(), &Stop::new());
    assert_eq!(scan(&chain[5]).reason, Some(FailureKind::Refused));
    let report = scan(&chain[4]);
    assert_eq!((report.reason, report.totals.keys_reclaimed), (None, loaded.stale), "{report:?}");
}

/// KeyDB with `active-replica yes` deletes expired keys as a primary does, and answers ROLE as no other server does.
#[test]
fn an_active_replica_of_keydb_is_scanned() {
    let server = Server::start(Flavor::Redis62);
    let loaded = DataSet::new().live(50).stale(30).load(&server);
    let role = "*5\r\n$14\r\nactive-replica\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:7\r\n";
    let proxy = VendorProxy::before(&server, move |command| match command[0].as_str() {
        "ROLE" => Some(Words::Reply(role.to_owned())),
        // The proxy does not queue what it answers itself.
        "MULTI" => Some(Words::Error("ERR unknown command".to_owned())),
        _ => None,
    });
    let target: Target = proxy.url().parse().expect("a target");
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.reason, server.held()), (None, loaded.live), "{report:?}");
}

#[test]
fn after_a_demotion_the_new_primary_is_swept() {
    let (first, second) = (Server::start(Flavor::Valkey91), Server::start(Flavor::Valkey91));
    let loaded = DataSet::new().live(20_000).stale(20_000).load(&first);
    replicate(&second, &first);
    let target: Target = first.url().parse().expect("a target");
    let mut options = Options::default();
    // Slow enough that the roles change while it runs.
    options.limits.keys_per_second = Some(20_000);
    let swap = SwapOnProgress { first: &first, second: &second, done: Mutex::new(false) };

    let report = sweep(&target, &options, &swap, &Stop::new());

    assert!(*swap.done.lock().expect("no panic"), "the roles were swapped while the sweep ran");
    assert_eq!(report.reason, None, "{:?}", report.message);
    assert_eq!(report.shards[0].address.as_ref().map(ToString::to_string), Some(second.address().to_string()));
    let held: u64 = redis::cmd("DBSIZE").query(&mut second.connection()).expect("a size");
    assert_eq!(held, loaded.live, "no stale key is left on the new primary");
}

/// Promotes the replica as soon as the sweep has reclaimed a key.
struct SwapOnProgress<'a> {
    first: &'a Server,
    second: &'a Server,
    done: Mutex<bool>,
}

impl Monitor for SwapOnProgress<'_> {
    fn progress(&self, progress: &keysweep_engine::Progress, _: &keysweep_engine::Checkpoint) {
        let mut done = self.done.lock().expect("no panic");
        if !*done && progress.keys_reclaimed > 0 && progress.fraction < 0.9 {
            *done = true;
            let mut connection = self.second.connection();
            redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut connection).expect("the replica becomes a primary");
            redis::cmd("DEBUG").arg("SET-ACTIVE-EXPIRE").arg(0).exec(&mut connection).expect("debug is allowed");
            replicate(self.first, self.second);
        }
    }
}

fn replicate(replica: &Server, primary: &Server) {
    let mut connection = replica.connection();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary.port()).exec(&mut connection).expect("a replica");
    keysweep_harness::eventually("the replica is in sync", std::time::Duration::from_secs(20), || {
        let info: String = redis::cmd("INFO").arg("replication").query(&mut connection).expect("INFO");
        info.contains("master_link_status:up").then_some(())
    });
}
