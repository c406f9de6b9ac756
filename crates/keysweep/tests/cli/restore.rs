//! Restoring servers from `restore.json`: which records a URL stands for.

use std::{fs, path::Path, process::Output};

use keysweep_harness::{Flavor, Server, free_port, installation};
use serde_json::json;

use crate::common::stderr;

fn raised() -> Server {
    Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start()
}

fn effort(server: &Server) -> String {
    let pair: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("active-expire-effort").query(&mut server.connection()).expect("a value");
    pair[1].clone()
}

fn restore(url: &str, folder: &Path) -> Output {
    installation!().run(&["restore", url, "--data-dir", folder.to_str().expect("UTF-8")])
}

#[test]
fn all_servers_of_a_target_are_restored_by_any_name_of_one_of_them_and_targets_that_are_left_are_named() {
    let (one, two, other) = (raised(), raised(), raised());
    let cluster = format!("redis-cluster://{}", one.address());
    let record = |server: &Server, target: &str| {
        json!({
            "target": target, "address": server.address().to_string(), "run_id": "an earlier process",
            "effort": {"baseline": 3, "written": [7]}, "hz": {"baseline": 10, "written": []},
        })
    };
    let records = [record(&one, &cluster), record(&two, &cluster), record(&other, &other.url())];
    let folder = tempfile::tempdir().expect("a folder");
    let contents = json!({"version": 1, "records": records}).to_string();
    fs::write(folder.path().join("restore.json"), contents).expect("written");

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
