//! Restoring servers from `restore.json`: which records a URL stands for, and what happens beside a process that holds a server.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use keysweep::hold::RestoreFile;
use keysweep_engine::{BaselineRegistry, Parameter, ServerProcess};
use keysweep_harness::{Authority, Flavor, KilledOnDrop, Server, eventually, free_port, installation};
use serde_json::{Value, json};

use crate::common::{
    servers::{address, effort, process},
    stderr,
};

/// Longest time until something happens that takes seconds on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(60);

fn raised() -> Server {
    Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start()
}

/// A record of a server whose effort was raised from 3 to 7.
fn record(server: &Server, target: &str) -> Value {
    json!({
        "target": target, "address": server.address().to_string(), "run_id": "an earlier process",
        "effort": {"baseline": 3, "written": [7]}, "hz": {"baseline": 10, "written": []},
    })
}

fn leave(folder: &Path, records: &[Value]) {
    let contents = json!({"version": 1, "records": records}).to_string();
    fs::write(folder.join("restore.json"), contents).expect("written");
}

fn restore(url: &str, folder: &Path) -> Output {
    installation!().run(&["restore", url, "--data-dir", folder.to_str().expect("UTF-8")])
}

#[test]
fn all_servers_of_a_target_are_restored_by_any_name_of_one_of_them_and_targets_that_are_left_are_named() {
    let (one, two, other) = (raised(), raised(), raised());
    let cluster = format!("redis-cluster://{}", one.address());
    let folder = tempfile::tempdir().expect("a folder");
    leave(folder.path(), &[record(&one, &cluster), record(&two, &cluster), record(&other, &other.url())]);

    let unknown = restore(&format!("redis://127.0.0.1:{}", free_port()), folder.path());
    let said = stderr(&unknown);
    assert_eq!((unknown.status.code(), effort(&one)), (Some(1), "7".into()), "{said}");
    assert!(said.contains(&format!("servers of {}", &cluster)) && said.contains(&other.url()), "{said}");

    let restored = restore(&format!("redis://localhost:{}", two.port()), folder.path());
    assert_eq!(restored.status.code(), Some(0), "{}", stderr(&restored));
    assert_eq!([&one, &two, &other].map(effort), ["3", "3", "7"].map(str::to_owned));

    let unknown = restore("redis://cache.invalid:6379", folder.path());
    let said = stderr(&unknown);
    assert_eq!(unknown.status.code(), Some(1), "{said}");
    assert!(said.contains(&other.url()) && !said.contains(&cluster), "what is restored is not named: {said}");
    assert_eq!(restore(&other.url(), folder.path()).status.code(), Some(0));
    let unknown = restore("redis://cache.invalid:6379", folder.path());
    assert_eq!(unknown.status.code(), Some(0), "nothing is left to restore: {}", stderr(&unknown));
}

#[test]
fn a_server_that_another_process_holds_is_not_restored_and_its_record_stays() {
    let (held, free) = (raised(), raised());
    let folder = tempfile::tempdir().expect("a folder");
    leave(folder.path(), &[record(&held, &held.url()), record(&free, &free.url())]);
    let file = RestoreFile::in_data(folder.path());
    let before = file.find(&address(&held)).expect("read");
    let _reservation = file.reserve(&process(&held)).expect("reserved");

    let data = folder.path().to_str().expect("UTF-8");
    for option in [&[][..], &["--forget-all"]] {
        let refused = installation!().run(&[&["restore", "--all", "--data-dir", data], option].concat());
        let said = stderr(&refused);
        assert_eq!((refused.status.code(), effort(&held), effort(&free)), (Some(1), "7".into(), "3".into()), "{said}");
        assert!(
            said.contains("holds this server; nothing was restored") && said.contains("another keysweep"),
            "{said}"
        );
        assert_eq!(file.find(&address(&held)).expect("read"), before);
    }
}

#[test]
fn a_server_that_is_gone_for_good_is_forgotten_on_request_and_no_failure_where_it_was_restored_before() {
    let (server, mut gone) = (raised(), raised());
    // It answers, so that it is not gone.
    let denied = Server::with(Flavor::Valkey91).password("secret").start();
    let target = format!("redis://{}", denied.address());
    let folder = tempfile::tempdir().expect("a folder");
    leave(folder.path(), &[record(&server, &server.url()), record(&gone, &gone.url()), record(&denied, &target)]);
    gone.kill();
    let data = folder.path().to_str().expect("UTF-8");
    let restore_all = |options: &[&str]| {
        let restored = installation!().run(&[&["restore", "--all", "--data-dir", data], options].concat());
        (restored.status.code(), stderr(&restored))
    };
    let (code, said) = restore_all(&["--forget-all"]);
    assert_eq!((code, effort(&server)), (Some(1), "3".into()), "{said}");
    let left = RestoreFile::in_data(folder.path()).records().expect("read");
    let left: Vec<_> = left.into_iter().map(|record| record.address).collect();
    assert_eq!(left, [address(&denied)], "{said}");

    let mut restored = record(&gone, &gone.url());
    restored["is_restored"] = json!(true);
    leave(folder.path(), &[restored]);
    let (code, said) = restore_all(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("it had its own settings when it was reached last"), "{said}");
}

/// The file may be a copy where nothing can be written.
#[test]
fn a_server_that_cannot_be_reserved_is_restored_all_the_same() {
    let server = raised();
    let folder = tempfile::tempdir().expect("a folder");
    leave(folder.path(), &[record(&server, &server.url())]);
    let ServerProcess { address, run_id } = process(&server);
    // A lock file cannot be made where a folder has its name.
    fs::create_dir(folder.path().join(format!("hold-{}-{run_id}.lock", address.replace(':', "-")))).expect("made");
    let restored = restore(&server.url(), folder.path());
    let said = stderr(&restored);
    assert_eq!((restored.status.code(), effort(&server)), (Some(0), "3".into()), "{said}");
    assert!(said.contains("no other keysweep is kept from this server"), "{said}");
}

/// The restore waits for one server while `keysweep hold` writes to another one and ends.
#[test]
fn what_is_written_while_a_restore_waits_for_another_server_is_restored_too() {
    let (mut gone, server) = (raised(), raised());
    let folder = tempfile::tempdir().expect("a folder");
    leave(folder.path(), &[record(&gone, &gone.url()), record(&server, &server.url())]);
    let file = RestoreFile::in_data(folder.path());
    gone.kill();
    let mut command =
        installation!().command(&["restore", "--all", "--data-dir", folder.path().to_str().expect("UTF-8")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let knocks = TcpListener::bind(("127.0.0.1", gone.port())).expect("its port is free");
    knocks.set_nonblocking(true).expect("a listener");
    let mut restore = KilledOnDrop(command.spawn().expect("the binary starts"));
    // It has read the records by the time at which it connects.
    drop(eventually("it connects", TIMEOUT, || knocks.accept().ok()));
    redis::cmd("CONFIG").arg("SET").arg("active-expire-effort").arg(9).exec(&mut server.connection()).expect("set");
    let mut newer = file.find(&address(&server)).expect("read").expect("a record");
    newer.baseline.add(Parameter::Effort, 9);
    file.save(&newer).expect("saved");
    drop(knocks);
    gone.restart();

    let exit = eventually("it ends", TIMEOUT, || restore.try_wait().expect("a child"));
    assert_eq!((exit.code(), effort(&server), effort(&gone)), (Some(0), "3".into(), "3".into()));
    let known = file.find(&address(&server)).expect("read").expect("a record");
    assert!(known.is_restored && known.baseline.knows(Parameter::Effort, 9), "{known:?}");
}

#[test]
fn an_option_that_does_not_fit_one_server_keeps_no_other_one_from_being_restored() {
    let plain = raised();
    let authority = Authority::new();
    let certificate = authority.issue(&["127.0.0.1"]);
    let raised_effort = Server::with(Flavor::Redis70).arg("--active-expire-effort", "7");
    let encrypted = raised_effort.tls(&authority, &certificate, false).start();
    let target = format!("rediss://{}", encrypted.tls_address().expect("a TLS port"));
    let mut record_of_encrypted = record(&encrypted, &target);
    record_of_encrypted["address"] = json!(encrypted.tls_address().expect("a TLS port").to_string());
    let folder = tempfile::tempdir().expect("a folder");
    leave(folder.path(), &[record(&plain, &plain.url()), record_of_encrypted]);

    let ca = authority.file();
    let [data, ca] = [folder.path(), &ca].map(|path| path.to_str().expect("UTF-8"));
    let words = ["restore", "--all", "--data-dir", data, "--cacert", ca];
    let restored = installation!().run(&words);
    let said = stderr(&restored);
    assert_eq!((restored.status.code(), effort(&encrypted)), (Some(1), "3".into()), "{said}");
    assert!(said.contains(&format!("{}: ", plain.address())) && said.contains("nothing was restored"), "{said}");
    assert_eq!(effort(&plain), "7");
}
