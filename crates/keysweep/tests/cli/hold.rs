//! `keysweep hold` and `keysweep restore` on real servers: the target is held, and whatever happens to the process, the servers
//! get exactly their own settings back.

#[path = "hold/trap.rs"]
mod trap;

use std::{
    fs::{self, File},
    path::Path,
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use keysweep_harness::{Churn, Flavor, Installation, KilledOnDrop, Server, eventually, installation};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use trap::{Moment, Trap};

/// Longest time until something happens that takes seconds on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(100);
/// Keys that are set a second, and the longest of their TTLs: the default cycle leaves some 16 % of them stale.
const RATE: u64 = 1_500;
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
fn alone_the_stale_share_is_held_below_the_target_and_the_settings_are_restored_at_the_end() {
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
    let mut process = hold(installation, &server.url(), data.path(), &["--below", "8%"]);
    eventually("the target is held", TIMEOUT, || {
        (setting(&server) != own && output(data.path()).contains(": holding: ")).then_some(())
    });
    let after = churn.mean_share(&server, Duration::from_secs(6));
    println!("{flavor:?}: stale {before:.3} before, {after:.3} held, {:?}", setting(&server));
    assert!(before > 0.12, "{before} without anything");
    assert!(after <= 0.085, "{after} is held: {}", output(data.path()));
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    let exit = eventually("it ends", TIMEOUT, || process.try_wait().expect("a child"));
    assert_eq!((exit.code(), setting(&server)), (Some(0), own), "{}", output(data.path()));
}

#[test]
fn heavy_after_a_kill_at_any_write_restore_brings_back_exactly_the_servers_own_settings() {
    let installation = installation!();
    thread::scope(|scope| {
        let effort: &[&str] = &["--max-effort", "10"];
        // Stalls so short that only a higher hz keeps them.
        let hz: &[&str] = &["--max-effort", "10", "--max-hz", "60", "--max-added-stall", "0.1"];
        for (flavor, moment, options) in [
            (Flavor::Redis62, Moment { write: 1, at: trap::At::Command }, effort),
            (Flavor::Valkey91, Moment { write: 1, at: trap::At::Reply }, effort),
            (Flavor::Redis82, Moment { write: 1, at: trap::At::ReadBack }, effort),
            (Flavor::Valkey91, Moment { write: 2, at: trap::At::Reply }, effort),
            (Flavor::Valkey91, Moment { write: 1, at: trap::At::Reply }, hz),
        ] {
            let installation = &installation;
            scope.spawn(move || killed(installation, flavor, moment, options));
        }
    });
}

fn killed(installation: &Installation, flavor: Flavor, moment: Moment, limits: &[&str]) {
    let server = Server::with(flavor).arg("--active-expire-effort", "2").arg("--hz", "11").start();
    let own = setting(&server);
    assert_eq!(own, ["2", "11"]);
    let writes_hz = limits.contains(&"--max-hz");
    let _churn = Churn::start(&server, if writes_hz { 8 * RATE } else { RATE }, LONGEST_TTL);
    let data = tempfile::tempdir().expect("a folder");
    let trap = Trap::before(server.address(), moment);
    let mut process = hold(installation, &trap.url(), data.path(), &[&["--below", "5%"][..], limits].concat());
    trap.arm(Pid::from_child(&process));
    eventually("the process is killed at the write", TIMEOUT, || process.try_wait().expect("a child"));
    assert!(trap.has_sprung(), "{moment:?}: {}", output(data.path()));
    let left = setting(&server);
    let is_written = moment.write > 1 || !matches!(moment.at, trap::At::Command);
    assert_eq!(left != own, is_written, "{moment:?}: {left:?}");
    assert_eq!(left[1] != own[1], writes_hz, "{left:?}: {}", output(data.path()));
    let restored = restore_all(installation, data.path());
    let said = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert_eq!((restored.status.code(), setting(&server)), (Some(0), own), "{moment:?}: {said}");
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

#[test]
fn a_policy_out_of_range_is_refused_with_the_range() {
    let output = installation!().run(&["hold", "redis://127.0.0.1:1", "--below", "1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("invalid value '1' for '--below <PERCENT>': expected a percentage from 2 to 30"), "{said}");
}

/// Five minutes of churn with a step up and a step down: the true share, second by second.
#[rstest::rstest]
#[ignore = "for make soak: minutes"]
fn soak_a_share_is_held_through_a_fivefold_step(#[values(Flavor::Valkey91, Flavor::Redis82)] flavor: Flavor) {
    let installation = installation!();
    let server = Server::start(flavor);
    let own = setting(&server);
    let churn = Churn::start(&server, 2_000, Duration::from_secs(30));
    thread::sleep(Duration::from_secs(60));
    let data = tempfile::tempdir().expect("a folder");
    let options = "--below 8% --interval 5s --settle-floor 15s --max-effort 9 --max-hz 30";
    let options: Vec<&str> = options.split(' ').collect();
    let mut process = hold(&installation, &server.url(), data.path(), &options);
    let without = churn.mean_share(&server, Duration::from_secs(10));
    eventually("the target is held", TIMEOUT, || output(data.path()).contains(": holding: ").then_some(()));
    let at = |seconds| churn.mean_share(&server, Duration::from_secs(seconds));
    let first = at(40);
    churn.set_rate(10_000);
    let (mut highest, mut back) = (0.0_f64, None);
    for second in (2..=90).step_by(2) {
        let share = at(2);
        highest = highest.max(share);
        match share <= 0.085 {
            true => drop(back.get_or_insert(second)),
            false => back = None,
        }
    }
    let (second, raised) = (at(30), setting(&server));
    churn.set_rate(2_000);
    thread::sleep(Duration::from_secs(40));
    let third = at(30);
    println!(
        "{flavor:?}: {without:.3} without; {first:.3} at 2,000/s; step to 10,000/s: highest {highest:.3}, back after \
         {back:?} s, {second:.3} with {raised:?}; {third:.3} at 2,000/s again\n{}",
        output(data.path())
    );
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    let exit = eventually("it ends", TIMEOUT, || process.try_wait().expect("a child"));
    assert_eq!((exit.code(), setting(&server)), (Some(0), own), "{}", output(data.path()));
    assert!(without > 0.15, "{without} without anything");
    assert!([first, second, third].iter().all(|share| *share <= 0.085), "{first} {second} {third}");
    assert!(highest <= 0.12 && back.is_some_and(|seconds| seconds <= 60), "{highest}, back after {back:?}");
}

#[rstest::rstest]
#[ignore = "for make soak: minutes"]
fn soak_a_target_beyond_the_default_limits_is_reported(#[values(Flavor::Valkey91, Flavor::Redis82)] flavor: Flavor) {
    let installation = installation!();
    let server = Server::start(flavor);
    let own = setting(&server);
    let _churn = Churn::start(&server, 20_000, Duration::from_secs(20));
    thread::sleep(Duration::from_secs(40));
    let data = tempfile::tempdir().expect("a folder");
    let mut process = hold(&installation, &server.url(), data.path(), &["--interval", "5s", "--settle-floor", "15s"]);
    // Where a limit is broken, the server has its own settings for ten minutes first.
    let deadline = Instant::now() + Duration::from_secs(840);
    while !output(data.path()).contains(": cannot_hold: ") && Instant::now() < deadline {
        thread::sleep(Duration::from_secs(1));
    }
    // It stays so, with the settings that the limits allow.
    thread::sleep(Duration::from_secs(60));
    let said = output(data.path());
    println!("{flavor:?}: {:?}\n{said}", setting(&server));
    let mut states = said.lines().filter(|line| line.contains(": cannot_hold: ") || line.contains(": backing_off: "));
    let last = states.next_back().unwrap_or_default();
    assert!(last.contains("the limits are reached; effort"), "{flavor:?} is not said to be out of reach: {last}");
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    eventually("it ends", TIMEOUT, || process.try_wait().expect("a child"));
    assert_eq!(setting(&server), own);
}
