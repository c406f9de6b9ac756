//! `keysweep hold` and `keysweep restore` on real servers: the target is held, and whatever happens to the process, the servers
//! get exactly their own settings back.

#[path = "hold/clients.rs"]
mod clients;
#[path = "hold/failovers.rs"]
mod failovers;
#[path = "hold/kills.rs"]
mod kills;
#[path = "hold/soak.rs"]
mod soak;
#[path = "hold/trap.rs"]
mod trap;

use std::{
    fs::{self, File},
    path::Path,
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use keysweep_harness::{Churn, Cluster, Flavor, Installation, KilledOnDrop, Server, eventually, installation};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// Longest time until something happens that takes seconds on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(100);
/// Longest time until the share is below the target again, after a step of the rate.
const BACK: Duration = Duration::from_secs(60);
/// Keys that are set a second, and the longest of their TTLs: the default cycle leaves some 16 % of them stale.
const RATE: u64 = 1_500;
const FAST_RATE: u64 = 5 * RATE;
const LONGEST_TTL: Duration = Duration::from_secs(8);

/// Returns effort and hz.
fn setting(server: &Server) -> [String; 2] {
    ["active-expire-effort", "hz"].map(|directive| {
        let pair: Vec<String> =
            redis::cmd("CONFIG").arg("GET").arg(directive).query(&mut server.connection()).expect("a value");
        pair[1].clone()
    })
}

/// Starts `keysweep hold`, with short times unless the options have their own. Its output goes to a file.
fn hold(installation: &Installation, url: &str, data: &Path, options: &[&str]) -> KilledOnDrop {
    let data = data.to_str().expect("UTF-8");
    let mut words = vec!["hold", url, "--data-dir", data];
    words.extend(options);
    for option in ["--interval", "--settle-floor"].iter().filter(|option| !options.contains(option)) {
        words.extend([option, "1s"]);
    }
    let mut command = installation.command(&words);
    let output = File::create(Path::new(data).join("output")).expect("a file");
    command.stdout(output.try_clone().expect("a file")).stderr(output).stdin(Stdio::null());
    KilledOnDrop(command.spawn().expect("the binary starts"))
}

fn output(data: &Path) -> String {
    fs::read_to_string(data.join("output")).unwrap_or_default()
}

fn restore_all(installation: &Installation, data: &Path) -> Output {
    installation.run(&["restore", "--all", "--data-dir", data.to_str().expect("UTF-8")])
}

#[test]
fn alone_the_stale_share_is_held_below_the_target_through_a_step_and_the_settings_are_restored_at_the_end() {
    let installation = installation!();
    thread::scope(|scope| {
        for flavor in [Flavor::Valkey91, Flavor::Redis82] {
            let installation = &installation;
            scope.spawn(move || held(installation, flavor));
        }
    });
}

fn held(installation: &Installation, flavor: Flavor) {
    let server = Server::start(flavor);
    let own = setting(&server);
    let churn = Churn::start(&server, RATE, LONGEST_TTL);
    thread::sleep(LONGEST_TTL * 2);
    let before = churn.mean_share(&server, Duration::from_secs(4));
    let data = tempfile::tempdir().expect("a folder");
    // On a busy machine cycles take longer, and the server would get its own settings back.
    let wide = "--below 8% --max-effort 9 --max-hz 30 --max-added-stall 10 --max-added-cpu 20";
    let mut process = hold(installation, &server.url(), data.path(), &wide.split(' ').collect::<Vec<_>>());
    eventually("the target is held", TIMEOUT, || {
        (setting(&server) != own && output(data.path()).contains(": holding: ")).then_some(())
    });
    let after = churn.mean_share(&server, Duration::from_secs(6));
    let slow = setting(&server);
    churn.set_rate(FAST_RATE);
    let begun = Instant::now();
    eventually("the setting follows the rate", TIMEOUT, || (setting(&server) != slow).then_some(()));
    let share = || churn.mean_share(&server, Duration::from_secs(4));
    eventually("the share is back", BACK, || (share() <= 0.085).then_some(()));
    println!(
        "{flavor:?}: stale {before:.3} before, {after:.3} held with {slow:?}; after the step back in {:.0} s with {:?}",
        begun.elapsed().as_secs_f64(),
        setting(&server)
    );
    assert!(before > 0.12, "{before} without anything");
    assert!(after <= 0.085, "{after} is held: {}", output(data.path()));
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    let exit = eventually("it ends", TIMEOUT, || process.try_wait().expect("a child"));
    assert_eq!((exit.code(), setting(&server)), (Some(0), own), "{}", output(data.path()));
}

/// A server that is restarted while it is held has its own settings again, is measured anew, and is held again.
#[test]
fn heavy_a_server_that_is_restarted_is_held_again_and_restored() {
    let installation = installation!();
    let mut server = Server::start(Flavor::Redis70);
    let own = setting(&server);
    let data = tempfile::tempdir().expect("a folder");
    let mut process = hold(&installation, &server.url(), data.path(), &["--below", "5%"]);
    let raised = |server: &Server| {
        let churn = Churn::start(server, RATE, LONGEST_TTL);
        eventually("a setting is raised", TIMEOUT, || (setting(server) != own).then_some(()));
        churn
    };
    for _ in 0..2 {
        drop(raised(&server));
        server.kill();
        server.restart();
        assert_eq!(setting(&server), own);
    }
    let _churn = raised(&server);
    kill_process(Pid::from_child(&process), Signal::INT).expect("it runs");
    let exit = eventually("it ends", TIMEOUT, || process.try_wait().expect("a child"));
    assert_eq!((exit.code(), setting(&server)), (Some(0), own), "{}", output(data.path()));
}

#[test]
fn a_written_value_that_came_back_from_the_configuration_file_is_restored_and_said() {
    // As after CONFIG REWRITE, which Sentinels send: the server was restarted with what was temporary.
    let server = Server::with(Flavor::Redis82).arg("--active-expire-effort", "7").start();
    let others = Server::with(Flavor::Redis82).arg("--active-expire-effort", "9").start();
    let data = tempfile::tempdir().expect("a folder");
    let record = |server: &Server| {
        json!({
            "target": server.url(), "address": server.address().to_string(), "run_id": "an earlier process",
            "effort": {"baseline": 3, "written": [4, 7]}, "hz": {"baseline": 10, "written": []},
        })
    };
    let contents = json!({"version": 1, "records": [record(&server), record(&others)]});
    fs::write(data.path().join("restore.json"), contents.to_string()).expect("written");
    let installation = installation!();
    let restored = restore_all(&installation, data.path());
    let said = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert_eq!((restored.status.code(), setting(&server)), (Some(0), ["3".into(), "10".into()]), "{said}");
    assert!(said.contains("its configuration file may contain a value that keysweep wrote"), "{said}");
    assert_eq!(setting(&others), ["9", "10"], "a value of others is left");
    assert!(said.contains("effort 9 at hz 10 was set by others and is left"), "{said}");
    // The record stays, since a value may come back from the file again, until it is to be forgotten.
    let file = data.path().join("restore.json");
    let forget = installation.run(&["restore", &server.url(), "--file", file.to_str().expect("UTF-8"), "--forget"]);
    assert!(String::from_utf8_lossy(&forget.stdout).contains("has its own settings"));
    assert!(!fs::read_to_string(&file).expect("a file").contains(&server.address().to_string()));
}

#[test]
fn all_servers_are_restored_with_the_passwords_of_an_inventory() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").password("secret").start();
    let data = tempfile::tempdir().expect("a folder");
    let (address, folder) = (server.address().to_string(), data.path());
    let record = json!({
        "target": format!("redis://{address}"), "address": address, "run_id": "an earlier process",
        "effort": {"baseline": 3, "written": [7]}, "hz": {"baseline": 10, "written": []},
    });
    let contents = json!({"version": 1, "records": [record]}).to_string();
    fs::write(folder.join("restore.json"), contents).expect("written");
    let denied = restore_all(&installation!(), folder);
    assert_eq!(denied.status.code(), Some(1), "{}", String::from_utf8_lossy(&denied.stderr));
    fs::write(folder.join("password"), "secret\n").expect("written");
    let entry = format!("instances:\n  - name: cache\n    url: redis://{address}\n    password_file: password\n");
    fs::write(folder.join("fleet.yaml"), entry).expect("written");
    let (inventory, data) = (folder.join("fleet.yaml"), folder.to_str().expect("UTF-8"));
    let words = ["restore", "--all", "--data-dir", data, "--inventory", inventory.to_str().expect("UTF-8")];
    let restored = installation!().run(&words);
    assert_eq!((restored.status.code(), setting(&server)), (Some(0), ["3".into(), "10".into()]));
    // One server by its URL, from the file alone.
    redis::cmd("CONFIG").arg("SET").arg("active-expire-effort").arg(7).exec(&mut server.connection()).expect("set");
    let (file, password) = (folder.join("restore.json"), folder.join("password"));
    let [file, password] = [&file, &password].map(|path| path.to_str().expect("UTF-8"));
    let url = format!("redis://{address}");
    let restored = installation!().run(&["restore", &url, "--file", file, "--password-file", password]);
    assert_eq!((restored.status.code(), setting(&server)), (Some(0), ["3".into(), "10".into()]));
}

#[test]
fn a_server_that_refuses_config_set_is_left_alone_and_the_remedy_is_said() {
    let server = Server::start(Flavor::Valkey91);
    let user = ["SETUSER", "reader", "on", ">secret", "~*", "+@all", "-config|set"];
    redis::cmd("ACL").arg(&user).exec(&mut server.connection()).expect("a user");
    let own = setting(&server);
    let churn = Churn::start(&server, RATE, LONGEST_TTL);
    let data = tempfile::tempdir().expect("a folder");
    let url = format!("redis://reader:secret@{}", server.address());
    let process = hold(&installation!(), &url, data.path(), &["--below", "5%"]);
    eventually("the refusal is said", TIMEOUT, || output(data.path()).contains("grant +config|set").then_some(()));
    drop((process, churn));
    assert_eq!(setting(&server), own);
}

/// Starts a cluster with values that an earlier process wrote, and a `keysweep hold` that has observed all its servers.
fn adopted(primaries: usize, data: &Path) -> (Cluster, KilledOnDrop) {
    let raised = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7");
    let cluster = Cluster::launch(&raised, primaries, false);
    let url = cluster.url();
    let record = |server: &Server| {
        json!({
            "target": url, "address": server.address().to_string(), "run_id": "an earlier process",
            "effort": {"baseline": 2, "written": [7]}, "hz": {"baseline": 10, "written": []},
        })
    };
    let records: Vec<_> = cluster.nodes().iter().map(record).collect();
    fs::write(data.join("restore.json"), json!({"version": 1, "records": records}).to_string()).expect("written");
    let process = hold(&installation!(), &url, data, &["--interval", "60s"]);
    eventually("all servers are observed", TIMEOUT, || {
        let said = output(data);
        cluster.nodes().iter().all(|server| said.contains(&format!("{}: ", server.address()))).then_some(())
    });
    (cluster, process)
}

/// A server that is gone must not keep the others from getting their own settings back.
#[test]
fn servers_that_can_be_reached_are_restored_before_one_that_is_gone_is_tried_again() {
    let data = tempfile::tempdir().expect("a folder");
    let (mut cluster, mut process) = adopted(3, data.path());
    // The first one in the order in which they are restored.
    let gone = (0..3).min_by_key(|index| cluster.node(*index).address()).expect("three");
    cluster.node_mut(gone).kill();
    let efforts = |cluster: &Cluster| -> Vec<_> {
        (0..3).filter(|index| *index != gone).map(|index| setting(cluster.node(index))[0].clone()).collect()
    };
    assert_eq!(efforts(&cluster), ["7", "7"], "an earlier holder's values are adopted: {}", output(data.path()));
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    let restored = eventually("both others are restored", TIMEOUT, || {
        let file = fs::read_to_string(data.path().join("restore.json")).expect("a file");
        (file.matches("\"is_restored\": true").count() == 2).then_some(efforts(&cluster))
    });
    assert_eq!(restored, ["2", "2"]);
    // The one that is gone is tried for 20 s, which begin with the restores: the others have not waited for it.
    assert!(process.try_wait().expect("a child").is_none(), "{}", output(data.path()));
}

/// Each server that does not answer takes some five seconds to be given up.
#[test]
fn servers_that_do_not_answer_keep_no_time_from_one_that_does_when_holding_ends() {
    let data = tempfile::tempdir().expect("a folder");
    let (mut cluster, process) = adopted(6, data.path());
    // The last one in the order in which they are restored.
    let answers = (0..6).max_by_key(|index| cluster.node(*index).address()).expect("six");
    (0..6).filter(|index| *index != answers).for_each(|index| cluster.node_mut(index).pause());
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    eventually("the server that answers is restored", Duration::from_secs(15), || {
        (setting(cluster.node(answers))[0] == "2").then_some(())
    });
}

#[test]
fn a_restore_that_is_refused_is_said_and_is_made_once_the_right_is_granted() {
    let server = Server::start(Flavor::Redis82);
    let own = setting(&server);
    let acl = |words: &[&str]| redis::cmd("ACL").arg(words).exec(&mut server.connection()).expect("a user");
    acl(&["SETUSER", "holder", "on", ">secret", "~*", "+@all"]);
    let churn = Churn::start(&server, RATE, LONGEST_TTL);
    let data = tempfile::tempdir().expect("a folder");
    let wide = ["--below", "5%", "--max-added-stall", "10", "--max-added-cpu", "20"];
    let url = format!("redis://holder:secret@{}", server.address());
    let process = hold(&installation!(), &url, data.path(), &wide);
    eventually("a setting is raised", TIMEOUT, || (setting(&server) != own).then_some(()));
    drop(churn);
    acl(&["SETUSER", "holder", "-config|set"]);
    // Nothing listens on that port, and no other test may.
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(&mut server.connection()).expect("a replica");
    eventually("it is said that nothing is restored", TIMEOUT, || {
        output(data.path()).contains("restoring: the server's own settings are not restored: CONFIG SET").then_some(())
    });
    assert_ne!(setting(&server), own);
    acl(&["SETUSER", "holder", "+config|set"]);
    eventually("the settings are restored", TIMEOUT, || (setting(&server) == own).then_some(()));
    drop(process);
}

#[test]
fn a_policy_out_of_range_is_refused_with_the_range() {
    let output = installation!().run(&["hold", "redis://127.0.0.1:1", "--below", "1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("invalid value '1' for '--below <PERCENT>': expected a percentage from 2 to 30"), "{said}");
}

#[test]
fn a_target_that_was_never_reached_was_not_held() {
    let data = tempfile::tempdir().expect("a folder");
    // Nothing listens there, and no test may.
    let mut words = vec!["hold", "redis://127.0.0.1:1", "--data-dir", data.path().to_str().expect("UTF-8")];
    words.extend(["--interval", "1s", "--timeout", "2s"]);
    let output = installation!().run(&words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
}
