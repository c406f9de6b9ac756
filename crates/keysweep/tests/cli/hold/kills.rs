//! `keysweep hold` and `keysweep restore` are killed at each point of a write: the next restore brings back exactly the servers' own
//! settings.

use std::{fs, process::Stdio, thread};

use keysweep_harness::{Churn, Flavor, Installation, KilledOnDrop, Server, eventually, installation};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{
    LONGEST_TTL, RATE, TIMEOUT, hold, output, restore_all, setting,
    trap::{At, Moment, Trap},
};

#[test]
fn heavy_after_a_kill_at_any_write_restore_brings_back_exactly_the_servers_own_settings() {
    let installation = installation!();
    thread::scope(|scope| {
        let effort: &[&str] = &["--max-effort", "10"];
        // Stalls so short that only a higher hz keeps them.
        let hz: &[&str] = &["--max-effort", "10", "--max-hz", "60", "--max-added-stall", "0.1"];
        for (flavor, moment, options) in [
            (Flavor::Redis70, Moment { write: 1, at: At::Compare }, effort),
            (Flavor::Redis62, Moment { write: 1, at: At::Command }, effort),
            (Flavor::Valkey91, Moment { write: 1, at: At::Reply }, effort),
            (Flavor::Redis82, Moment { write: 1, at: At::ReadBack }, effort),
            (Flavor::Valkey91, Moment { write: 2, at: At::Reply }, effort),
            (Flavor::Valkey91, Moment { write: 1, at: At::Reply }, hz),
        ] {
            let installation = &installation;
            scope.spawn(move || killed(installation, flavor, moment, options));
        }
        scope.spawn(|| killed_at_the_end(&installation));
    });
}

fn killed(installation: &Installation, flavor: Flavor, moment: Moment, limits: &[&str]) {
    let server = Server::with(flavor).arg("--active-expire-effort", "2").arg("--hz", "11").start();
    let own = setting(&server);
    assert_eq!(own, ["2", "11"]);
    let writes_hz = limits.contains(&"--max-hz");
    let _churn = Churn::start(&server, if writes_hz { 8 * RATE } else { RATE }, LONGEST_TTL);
    let data = tempfile::tempdir().expect("a folder");
    let trap = Trap::before(server.address());
    let mut process = hold(installation, &trap.url(), data.path(), &[&["--below", "5%"][..], limits].concat());
    trap.arm(Pid::from_child(&process), moment);
    eventually("the process is killed at the write", TIMEOUT, || process.try_wait().expect("a child"));
    assert!(trap.has_sprung(), "{moment:?}: {}", output(data.path()));
    let left = setting(&server);
    // The second write is another raise, or the restore of a server that a busy machine made back off.
    if moment.write == 1 {
        let is_written = matches!(moment.at, At::Reply | At::ReadBack);
        assert_eq!(left != own, is_written, "{moment:?}: {left:?}");
    }
    assert_eq!(left[1] != own[1], writes_hz, "{left:?}: {}", output(data.path()));
    let restored = restore_all(installation, data.path());
    let said = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert_eq!((restored.status.code(), setting(&server)), (Some(0), own), "{moment:?}: {said}");
    let has_recorded = data.path().join("restore.json").exists();
    assert_eq!(
        has_recorded,
        moment.at != At::Compare,
        "a record is durable before the first write, and none is made too early"
    );
}

/// The process dies while it restores at its own end.
fn killed_at_the_end(installation: &Installation) {
    let server = Server::with(Flavor::Redis82).arg("--active-expire-effort", "2").arg("--hz", "11").start();
    let own = setting(&server);
    let _churn = Churn::start(&server, RATE, LONGEST_TTL);
    let data = tempfile::tempdir().expect("a folder");
    let trap = Trap::before(server.address());
    let mut process = hold(installation, &trap.url(), data.path(), &["--below", "5%"]);
    eventually("a setting is raised", TIMEOUT, || (setting(&server) != own).then_some(()));
    trap.arm(Pid::from_child(&process), Moment { write: 1, at: At::Reply });
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    let exit = eventually("the process is killed at its restore", TIMEOUT, || process.try_wait().expect("a child"));
    assert!(trap.has_sprung() && !exit.success(), "{}", output(data.path()));
    let restored = restore_all(installation, data.path());
    let said = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert_eq!((restored.status.code(), setting(&server)), (Some(0), own), "{said}");
}

/// `keysweep restore` dies at each of its write points, before the record says that the server is restored; the next one goes on.
#[rstest::rstest]
fn a_restore_that_is_killed_at_any_write_is_finished_by_the_next(
    #[values(Flavor::Redis62, Flavor::Valkey91)] flavor: Flavor,
) {
    let installation = installation!();
    let server = Server::with(flavor).arg("--active-expire-effort", "2").arg("--hz", "11").start();
    let own = setting(&server);
    for (write, at) in [
        (1, At::Compare),
        (1, At::Command),
        (1, At::Reply),
        (1, At::ReadBack),
        (2, At::Command),
        (2, At::Reply),
        (2, At::ReadBack),
    ] {
        let data = tempfile::tempdir().expect("a folder");
        let trap = Trap::waiting(server.address());
        for (directive, value) in [("active-expire-effort", 7), ("hz", 30)] {
            redis::cmd("CONFIG").arg("SET").arg(directive).arg(value).exec(&mut server.connection()).expect("set");
        }
        let record = json!({
            "target": trap.url(), "address": trap.address().to_string(), "run_id": "an earlier process",
            "effort": {"baseline": 2, "written": [4, 7], "left": [7]}, "hz": {"baseline": 11, "written": [30], "left": [30]},
        });
        let file = data.path().join("restore.json");
        fs::write(&file, json!({"version": 1, "records": [record]}).to_string()).expect("written");
        let folder = data.path().to_str().expect("UTF-8");
        let mut command = installation.command(&["restore", "--all", "--data-dir", folder]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = KilledOnDrop(command.spawn().expect("the binary starts"));
        trap.arm(Pid::from_child(&process), Moment { write, at });
        eventually("the process is killed at the write", TIMEOUT, || process.try_wait().expect("a child"));
        assert!(trap.has_sprung(), "{write} {at:?}");
        let is_done = (write, at) == (2, At::Reply) || (write, at) == (2, At::ReadBack);
        assert_eq!(setting(&server) == own, is_done, "{write} {at:?}");
        let contents = fs::read_to_string(&file).expect("a file");
        assert!(!contents.contains("\"is_restored\": true"), "{write} {at:?}: {contents}");
        let restored = restore_all(&installation, data.path());
        let said = String::from_utf8_lossy(&restored.stdout).into_owned();
        assert_eq!((restored.status.code(), setting(&server)), (Some(0), own.clone()), "{write} {at:?}: {said}");
        assert!(fs::read_to_string(&file).expect("a file").contains("\"is_restored\": true"), "{write} {at:?}");
    }
}

/// Two processes that hold one server would each take what the other wrote for the server's own.
#[test]
fn heavy_a_server_that_one_process_holds_is_written_by_no_other_and_restored_after_the_death_of_both() {
    let installation = installation!();
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "2").start();
    let own = setting(&server);
    let _churn = Churn::start(&server, RATE, LONGEST_TTL);
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().to_str().expect("UTF-8");
    let second = data.path().join("second");
    let url = server.url();
    // Both begin while nothing is recorded yet, and ask for more than the first writes reach: each tries to write.
    let words = ["hold", &url, "--data-dir", folder, "--below", "2%", "--interval", "1s", "--settle-floor", "1s"];
    // On a busy machine cycles take longer, and the server would get its own settings back.
    let wide = ["--max-effort", "10", "--max-added-stall", "10", "--max-added-cpu", "20"];
    let start = || {
        let mut command = installation.command(&[&words[..], &wide].concat());
        let file = fs::File::create(&second).expect("a file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
        KilledOnDrop(command.spawn().expect("the binary starts"))
    };
    let mut first = hold(&installation, &url, data.path(), &[&["--below", "2%"][..], &wide].concat());
    let mut other = start();
    eventually("one of them holds the server, and the other one is refused", TIMEOUT, || {
        let said = output(data.path()) + &fs::read_to_string(&second).unwrap_or_default();
        (said.contains("another keysweep") && setting(&server) != own).then_some(())
    });
    for process in [&mut first, &mut other] {
        process.kill().expect("it runs");
        process.wait().expect("a child");
    }
    assert_ne!(setting(&server), own);
    let restored = restore_all(&installation, data.path());
    let said = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert_eq!((restored.status.code(), setting(&server)), (Some(0), own), "{said}");
}
