//! Servers whose settings a worker has raised, and whose service is gone: they are restored from the database, and an instance is
//! neither removed nor moved before that.

use std::{process::Output, time::Duration};

use keysweep::{hold::RestoreFile, store::Store};
use keysweep_engine::{
    Address, Baseline, BaselineRecord, BaselineRegistry, HoldLevel, HoldPolicy, Parameter, ServerProcess,
    stale::CycleSetting,
};
use keysweep_harness::{Churn, Flavor, Installation, Server, eventually, free_port, installation};
use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use crate::common::{
    servers::{self, address, effort, process},
    stderr,
};

/// A record of a server whose effort was raised from 3.
fn record(target: &str, address: &Address, effort: u32, is_restored: bool) -> BaselineRecord {
    let mut baseline = Baseline::of(CycleSetting { effort: 3, hz: 10 });
    baseline.add(Parameter::Effort, effort);
    let record = json!({
        "target": target, "address": address, "run_id": "an earlier process", "is_restored": is_restored,
        "effort": baseline.effort, "hz": baseline.hz,
    });
    serde_json::from_value(record).expect("a record")
}

/// Leaves in the database what a worker leaves that has raised the effort of servers from 3 to 7 and was killed.
fn leave_raised(installation: &Installation, instance: &str, servers: &[Address]) {
    let records: Vec<_> = servers.iter().map(|one| record(&format!("redis://{one}"), one, 7, false)).collect();
    leave(installation, instance, &records);
}

#[tokio::main]
async fn leave(installation: &Installation, instance: &str, records: &[BaselineRecord]) {
    let store = Store::open_sqlite(&installation.database()).await.expect("a store");
    let policy = HoldPolicy {
        level: HoldLevel::Hold,
        interval_seconds: 3_600,
        settle_floor_seconds: 1,
        ..HoldPolicy::default()
    };
    store.set_hold(instance, &policy).await.expect("set");
    let lease = store.claim_holds("worker", Duration::from_secs(1), 1, 1).await.expect("claimed").remove(0);
    for record in records {
        assert!(store.save_baseline(&lease, record).await.expect("saved"));
    }
    store.close().await;
}

#[test]
fn a_held_instance_is_restored_from_the_database_alone_and_can_be_removed_then() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    leave_raised(&installation, &instance, &[address(&server)]);
    let admin = |words: &[&str]| -> Output {
        let words = [&["admin", "instance"], words, &["cache", "--project", &project]].concat();
        installation.run(&words)
    };

    let refused = admin(&["remove"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("instance \"cache\" is held; restore it first"), "{}", stderr(&refused));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/api/v1/projects/{project}/instances/{instance}");
    let url = format!(r#"{{"url": "redis://:secret@127.0.0.1:{}"}}"#, free_port());
    let refused = service.send("PATCH", &path, &[("content-type", "application/json")], url);
    assert_eq!(refused.status, 409, "a new password is not sent to the old server: {refused:?}");
    assert_eq!(service.request("DELETE", &path).status, 409);
    service.terminate();
    assert_eq!(effort(&server), "7");

    let restored = admin(&["restore"]);
    assert_eq!((restored.status.code(), effort(&server)), (Some(0), "3".into()), "{}", stderr(&restored));
    assert!(stderr(&restored).contains("restored effort 3"), "{}", stderr(&restored));
    let audit = installation.admin(&["audit", "--project", &project]);
    let entry = &audit[0];
    assert_eq!((&entry["action"], &entry["actor"]), (&"hold.restore".into(), &"(command line)".into()), "{audit:#}");
    assert_eq!((&entry["detail"]["from"]["effort"], &entry["detail"]["to"]["effort"]), (&7.into(), &3.into()));
    assert_eq!(admin(&["remove"]).status.code(), Some(0), "nothing is left to restore");
}

/// `keysweep hold` in the same folder was killed after a worker had restored the server.
#[test]
fn a_value_that_only_restore_json_knows_is_restored_by_an_administrator_too() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let other = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let (target, address) = (server.url(), address(&server));
    leave(&installation, &instance, &[record(&target, &address, 4, true)]);
    let file = RestoreFile::in_data(installation.folder());
    file.save(&record(&target, &address, 7, false)).expect("saved");
    file.save(&record(&other.url(), &servers::address(&other), 7, false)).expect("saved");

    let restored = installation.run(&["admin", "instance", "restore", "cache", "--project", &project]);
    assert_eq!((restored.status.code(), effort(&server)), (Some(0), "3".into()), "{}", stderr(&restored));
    assert!(stderr(&restored).contains("restored effort 3"), "{}", stderr(&restored));
    assert_eq!(effort(&other), "7", "it is no server of this instance");
    let known = file.find(&address).expect("read").expect("a record");
    assert!(
        known.is_restored && [4, 7].iter().all(|effort| known.baseline.effort.written.contains(effort)),
        "{known:?}"
    );
}

#[test]
fn a_restore_json_that_cannot_be_read_keeps_no_recorded_server_from_being_restored_and_does_not_pass_for_an_empty_one()
{
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    std::fs::write(installation.folder().join("restore.json"), "{").expect("written");
    let restore = || installation.run(&["admin", "instance", "restore", "cache", "--project", &project]);
    let refused = restore();
    assert_eq!((refused.status.code(), effort(&server)), (Some(1), "7".into()), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("restore.json: not a file of settings to restore"), "{}", stderr(&refused));

    leave_raised(&installation, &instance, &[address(&server)]);
    let restored = restore();
    assert_eq!((restored.status.code(), effort(&server)), (Some(0), "3".into()), "{}", stderr(&restored));
    assert!(stderr(&restored).contains("restored effort 3"), "{}", stderr(&restored));
}

/// The data folder of the service is read-only, or its disk is full.
#[test]
fn heavy_a_service_that_cannot_write_to_its_folder_restores_and_raises_nothing() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    leave_raised(&installation, &instance, &[address(&server)]);
    // A lock file cannot be made where a folder has its name.
    let ServerProcess { address, run_id } = process(&server);
    let name = format!("hold-{}-{run_id}.lock", address.replace(':', "-"));
    std::fs::create_dir(installation.folder().join(name)).expect("made");
    let path = format!("/api/v1/projects/{project}/instances/{instance}/hold");
    let json_body = &[("content-type", "application/json")][..];
    let service = installation.serve(&["--no-auth"]);
    let restored = service.send("POST", &format!("{path}/restore"), json_body, "");
    assert_eq!(restored.status, 200, "{restored:?}");
    service.wait_for(&path, |hold| hold["changed"] == false);
    assert_eq!(effort(&server), "3");

    let _churn = Churn::start(&server, 1_500, Duration::from_secs(8));
    let policy = json!({
        "level": "hold", "below": 0.02, "interval_seconds": 1, "settle_floor_seconds": 1,
        "max_added_stall_ms": 10, "max_added_cpu": 0.2,
    });
    assert_eq!(service.send("PUT", &path, json_body, policy.to_string()).status, 200);
    eventually("nothing is raised", Duration::from_secs(100), || {
        let held = service.get(&path);
        let sentence = held["servers"][0]["sentence"].as_str().unwrap_or_default();
        (sentence == "the worker cannot use its restore.json; its log says why; nothing was written").then_some(())
    });
    assert_eq!((service.get(&path)["changed"].as_bool(), effort(&server)), (Some(false), "3".into()));
    let (_, log) = service.terminate();
    assert!(log.iter().any(|line| line.contains("restore.json cannot be used")), "{log:#?}");
}

/// The next round at the interval of the policy would be an hour later.
#[test]
fn a_restore_that_did_not_reach_its_server_is_soon_tried_again_whatever_the_interval() {
    let mut server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    leave_raised(&installation, &instance, &[address(&server)]);
    server.kill();
    let path = format!("/api/v1/projects/{project}/instances/{instance}/hold");
    let service = installation.serve(&["--no-auth"]);
    let restore = || service.send("POST", &format!("{path}/restore"), &[("content-type", "application/json")], "");
    let held = service.wait_for(&path, |hold| !hold["failure"].is_null());
    assert_eq!(restore().status, 200);
    let failed = service.wait_for(&path, |hold| hold["reported_at"] != held["reported_at"]);
    assert!(failed["changed"] == true && !failed["failure"].is_null(), "{failed:#}");
    server.restart();
    let restored = service.wait_for(&path, |hold| hold["changed"] == false);
    assert_eq!((effort(&server), &restored["failure"]), ("3".into(), &json!(null)), "{restored:#}");
    let shown = &restored["servers"][0];
    assert_eq!(shown["state"], "off", "{restored:#}");
    assert!(shown["sentence"].as_str().is_some_and(|text| text.contains("effort 3")), "{restored:#}");
}

/// `keysweep hold` in the same folder would raise it again, and what it writes meanwhile would not be known.
#[test]
fn a_server_that_another_process_holds_is_not_restored_by_an_administrator() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    leave_raised(&installation, &instance, &[address(&server)]);
    let reservation = RestoreFile::in_data(installation.folder()).reserve(&process(&server)).expect("reserved");
    let restore = || installation.run(&["admin", "instance", "restore", "cache", "--project", &project]);
    let refused = restore();
    assert_eq!((refused.status.code(), effort(&server)), (Some(1), "7".into()), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("holds this server; nothing was restored"), "{}", stderr(&refused));
    let words = ["admin", "instance", "restore", "cache", "--project", &project, "--forget-all"];
    assert_eq!(installation.run(&words).status.code(), Some(1), "it is not gone");
    drop(reservation);
    let restored = restore();
    assert_eq!((restored.status.code(), effort(&server)), (Some(0), "3".into()), "{}", stderr(&restored));
}

#[tokio::main(flavor = "current_thread")]
async fn spoil_urls(installation: &Installation) {
    let url = format!("sqlite:{}", installation.database().display());
    let mut database = SqliteConnection::connect(&url).await.expect("it opens");
    sqlx::query("UPDATE instance SET url = 'gopher://'").execute(&mut database).await.expect("spoilt");
}

/// A later version may read URLs more strictly.
#[test]
fn servers_behind_a_url_that_cannot_be_read_any_more_are_forgotten_on_request() {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    leave_raised(&installation, &instance, &[Address::tcp("127.0.0.1", free_port())]);
    spoil_urls(&installation);
    let admin = |words: &[&str]| installation.run(&[&["admin", "instance"], words, &["--project", &project]].concat());
    let failed = admin(&["restore", "cache"]);
    assert_eq!(failed.status.code(), Some(1), "{}", stderr(&failed));
    assert_eq!(admin(&["remove", "cache"]).status.code(), Some(1));
    let forgotten = admin(&["restore", "cache", "--forget-all"]);
    assert_eq!(forgotten.status.code(), Some(0), "{}", stderr(&forgotten));
    assert_eq!(admin(&["remove", "cache"]).status.code(), Some(0));
}

#[test]
fn a_server_that_is_gone_for_good_is_forgotten_on_request() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let gone = Address::tcp("127.0.0.1", free_port());
    leave_raised(&installation, &instance, &[address(&server), gone.clone()]);
    let file = RestoreFile::in_data(installation.folder());
    file.save(&record(&server.url(), &gone, 7, false)).expect("saved");
    let admin = |words: &[&str]| installation.run(&[&["admin", "--json", "instance"], words].concat());
    let restore = ["restore", "cache", "--project", &project];
    let failed = admin(&restore);
    assert_eq!((failed.status.code(), effort(&server)), (Some(1), "3".into()), "the other one is restored");
    assert!(stderr(&failed).contains("1 of 2 servers may have other settings"), "{}", stderr(&failed));
    assert_eq!(admin(&["remove", "cache", "--project", &project]).status.code(), Some(1));
    let forgotten = admin(&[&restore[..], &["--forget-all"]].concat());
    assert_eq!(forgotten.status.code(), Some(0), "{}", stderr(&forgotten));
    let known = file.find(&gone).expect("read").expect("a record");
    assert!(known.is_restored && known.baseline.effort.written == [7], "it is known, and not waited for: {known:?}");
    let again = admin(&restore);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert_eq!(admin(&["remove", "cache", "--project", &project]).status.code(), Some(0));
}
