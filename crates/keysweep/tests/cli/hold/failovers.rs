//! Sentinels fail a held primary over: it gets its own settings back, also where `keysweep hold` died before, and the new
//! primary is held.

use std::fs;

use keysweep_harness::{Churn, Flavor, KilledOnDrop, Monitored, Server, eventually, installation};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{LONGEST_TTL, RATE, TIMEOUT, hold, output, restore_all, setting};

/// On a busy machine cycles take longer, and the server would get its own settings back.
const WIDE: [&str; 6] = ["--below", "5%", "--max-added-stall", "10", "--max-added-cpu", "20"];
/// Remark of a restore after which the configuration file may contain a temporary value.
const IN_FILE: &str = "its configuration file may contain a value that keysweep wrote";

/// Starts a primary, a replica and Sentinels. The operator's settings differ from the defaults, and by server.
fn monitored(flavor: Flavor) -> Monitored {
    let monitored = Monitored::of(Server::with(flavor).config_file().start());
    for (server, effort, hz) in [(&monitored.primary, 2, 11), (&monitored.replica, 1, 12)] {
        for (directive, value) in [("active-expire-effort", effort), ("hz", hz)] {
            redis::cmd("CONFIG").arg("SET").arg(directive).arg(value).exec(&mut server.connection()).expect("set");
        }
    }
    monitored
}

/// Churns until the server's setting is raised.
fn raise(server: &Server, own: &[String; 2]) -> Churn {
    let churn = Churn::start(server, RATE, LONGEST_TTL);
    eventually("a setting is raised", TIMEOUT, || (setting(server) != *own).then_some(()));
    churn
}

#[test]
fn heavy_after_a_failover_by_sentinels_the_old_primary_has_its_own_settings_and_the_new_one_is_held() {
    let installation = installation!();
    let monitored = monitored(Flavor::Redis82);
    let [own, other] = [&monitored.primary, &monitored.replica].map(setting);
    let data = tempfile::tempdir().expect("a folder");
    let mut process = hold(&installation, &monitored.url(), data.path(), &WIDE);
    drop(raise(&monitored.primary, &own));
    assert_eq!(setting(&monitored.replica), other, "CONFIG SET is not replicated");

    monitored.fail_over();
    await_demotion(&monitored);
    eventually("the demoted server has its own settings", TIMEOUT, || {
        (setting(&monitored.primary) == own).then_some(())
    });
    let _churn = raise(&monitored.replica, &other);
    assert_eq!(setting(&monitored.primary), own);

    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    let exit = eventually("it ends", TIMEOUT, || process.try_wait().expect("a child"));
    let said = output(data.path());
    assert_eq!((exit.code(), setting(&monitored.replica)), (Some(0), other), "{said}");
    assert_eq!(setting(&monitored.primary), own, "{said}");
}

#[test]
fn heavy_after_a_kill_and_a_failover_by_sentinels_restore_brings_back_exactly_the_old_primarys_own_settings() {
    let installation = installation!();
    // Where CONFIG REWRITE is not counted apart from other CONFIG commands.
    let mut monitored = monitored(Flavor::Redis62);
    let [own, other] = [&monitored.primary, &monitored.replica].map(setting);
    let data = tempfile::tempdir().expect("a folder");
    let process = hold(&installation, &monitored.url(), data.path(), &WIDE);
    drop(raise(&monitored.primary, &own));
    kill(process);
    let raised = setting(&monitored.primary);
    assert_ne!(raised, own);

    monitored.fail_over();
    await_demotion(&monitored);
    let file = configuration_file(&monitored.primary);
    eventually("the Sentinels make the raised value permanent", TIMEOUT, || {
        let file = fs::read_to_string(&file).expect("the server's file");
        file.lines().any(|line| line == format!("active-expire-effort {}", raised[0])).then_some(())
    });
    assert_eq!(setting(&monitored.primary), raised);
    let restore = || {
        let restored = restore_all(&installation, data.path());
        let said = String::from_utf8_lossy(&restored.stdout).into_owned();
        assert_eq!(restored.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&restored.stderr));
        assert!(said.contains(IN_FILE), "{said}");
    };
    restore();
    assert_eq!((setting(&monitored.primary), setting(&monitored.replica)), (own.clone(), other));

    // The file still has the raised value, and each restart brings it back.
    monitored.primary.kill();
    monitored.primary.restart();
    assert_eq!(setting(&monitored.primary), raised);
    restore();
    assert_eq!(setting(&monitored.primary), own);
}

/// The file has what was written before the last write, which is foreign while the server is held: an operator may have set it.
#[rstest::rstest]
fn an_earlier_value_that_came_back_from_the_configuration_file_is_restored_and_said_when_holding_ends(
    #[values(true, false)] is_restored: bool,
) {
    let server = Server::with(Flavor::Valkey81).arg("--active-expire-effort", "4").start();
    let data = tempfile::tempdir().expect("a folder");
    let record = json!({
        "target": server.url(), "address": server.address().to_string(), "run_id": "an earlier process",
        "is_restored": is_restored, "effort": {"baseline": 3, "written": [4, 7], "left": [if is_restored { 3 } else { 7 }]},
        "hz": {"baseline": 10, "written": []},
    });
    let contents = json!({"version": 1, "records": [record]}).to_string();
    fs::write(data.path().join("restore.json"), contents).expect("written");
    let mut process = hold(&installation!(), &server.url(), data.path(), &WIDE);
    eventually("the value is found", TIMEOUT, || output(data.path()).contains(": foreign: ").then_some(()));
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    let exit = eventually("it ends", TIMEOUT, || process.try_wait().expect("a child"));
    let said = output(data.path());
    assert_eq!((exit.code(), setting(&server)), (Some(0), ["3".into(), "10".into()]), "{said}");
    assert!(said.contains(IN_FILE), "{said}");
}

fn kill(mut process: KilledOnDrop) {
    process.kill().expect("it runs");
    process.wait().expect("a child");
}

/// Waits until the old primary is a replica. Its clients are closed meanwhile.
fn await_demotion(monitored: &Monitored) {
    eventually("the primary is demoted", TIMEOUT, || {
        let role = info(&monitored.primary, "replication", "role:");
        role.is_ok_and(|role| role == "slave").then_some(())
    });
}

fn configuration_file(server: &Server) -> String {
    info(server, "server", "config_file:").expect("an answer")
}

fn info(server: &Server, section: &str, field: &str) -> redis::RedisResult<String> {
    let info: String = redis::cmd("INFO").arg(section).query(&mut server.try_connection()?)?;
    Ok(info.lines().find_map(|line| line.strip_prefix(field)).expect("a field").to_owned())
}
