//! The web console in a real browser, with script, a keyboard and a phone-sized screen.

use std::{path::Path, process::Command};

use keysweep_harness::{
    DataSet, Flavor, Installation, Server, Service, free_port, id, installation, scan_path, task_path,
};
use serde_json::{Value, json};

use crate::{common::root, fleet, past, visitor::PASSWORD};

/// Enough stale keys for a scan to take some seconds while a client watches them expire, and enough others for one that finds none.
const LIVE: u64 = 500_000;
const STALE: u64 = 120_000;
/// Label of the instances with an address on this machine: no name of another one is looked up.
const SITE: &str = "site=here";

#[test]
fn heavy_a_person_signs_in_adds_an_instance_watches_a_scan_sets_an_auto_scan_cancels_and_is_refused_as_a_reader() {
    let Some(browser) = browser() else { return };
    let installation = installation!();
    let shop = id(&installation.admin(&["project", "add", "shop"]));
    let long = fleet::write(&installation, &shop);
    for role in ["reader", "operator", "admin"] {
        installation.add_user(role, "shop", role, PASSWORD);
    }
    installation.admin(&["project", "add", "warehouse"]);
    installation.admin(&["user", "grant", "admin", "--project", "warehouse", "--role", "admin"]);
    // The longest addresses are those of clusters.
    let ports = [free_port(), free_port(), free_port()].map(|port| format!("127.0.0.1:{port}")).join(",");
    installation.admin(&[
        "instance",
        "add",
        "checkout",
        &format!("redis-cluster://{ports}"),
        "--project",
        "shop",
        "--label",
        SITE,
    ]);
    let server = Server::with(Flavor::Valkey91).password("hunter2-hunter2").start();
    DataSet::new().live(LIVE).stale(STALE).load(&server);
    server.watch_expired_keys();
    let seasoned = Server::start(Flavor::Valkey91);
    let service = installation.serve(&[]);
    let history = with_a_history(&installation, &service, &seasoned);

    drive(&json!({
        "browser": browser,
        "base": service.base,
        "password": PASSWORD,
        "server": { "url": format!("redis://127.0.0.1:{}", server.port()), "password": "hunter2-hunter2", "stale": STALE },
        "nowhere": format!("redis://127.0.0.1:{}", free_port()),
        "history": history,
        "long": format!("/console/{shop}/instances/{long}"),
        "longName": fleet::LONG,
        "longHost": fleet::LONG_HOST,
        "site": SITE,
        // The fleet, checkout, sessions, and cache, which the visitor adds.
        "instances": fleet::INSTANCES + 3,
        "screenshots": std::env::var_os("KEYSWEEP_SCREENSHOTS").map(|_| folder("docs/screenshots")),
    }));
    let (_, log) = service.terminate();
    assert!(!log.join("").contains("hunter2"));
}

/// Registers an instance with a past, scans it several times and returns its path in the console.
fn with_a_history(installation: &Installation, service: &Service, server: &Server) -> String {
    let add = ["instance", "add", "sessions", &server.url(), "--project", "shop", "--pace", "fast", "--label", SITE];
    let instance = id(&installation.admin(&add));
    let body = json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": {
        "name": "operator", "password": PASSWORD, "domain": { "name": "d" } } } } } });
    let signed_in = service.send("POST", "/v3/auth/tokens", &[], body.to_string());
    assert_eq!(signed_in.status, 201, "{:?}", signed_in.body);
    let token = signed_in.header("x-subject-token").expect("a token").to_owned();
    let project = signed_in.body["token"]["project"]["id"].as_str().expect("an id").to_owned();
    past::write(installation, &project, &instance);
    for stale in [9_000, 14_000, 11_000, 21_000, 16_000] {
        DataSet::new().prefix(&format!("s{stale}:")).live(4_000).stale(stale).load(server);
        let created = service.send("POST", &scan_path(&project, &instance), &[("X-Auth-Token", &token)], "");
        let task = task_path(&project, &id(&created.body));
        let ended = keysweep_harness::eventually("the scan to end", std::time::Duration::from_secs(30), || {
            let task = service.send("GET", &task, &[("X-Auth-Token", &token)], "").body;
            (task["status"] == "success").then_some(task)
        });
        assert_eq!(ended["keys_reclaimed"], stale);
    }
    if std::env::var_os("KEYSWEEP_SCREENSHOTS").is_some() {
        let_keys_expire(server);
    }
    format!("/console/{project}/instances/{instance}")
}

/// Fills the server with keys that expire, so that the screenshots show stale keys.
fn let_keys_expire(server: &Server) {
    let mut connection = server.connection();
    for batch in 0..40 {
        let mut pipe = redis::pipe();
        for number in 0..10_000 {
            pipe.cmd("SET").arg(format!("session:{batch}:{number}")).arg("a session, as long as they are").arg("PX");
            pipe.arg(1 + (number * 7_919) % 20_000).ignore();
        }
        pipe.exec(&mut connection).expect("it takes keys");
    }
    redis::cmd("DEBUG").arg("SET-ACTIVE-EXPIRE").arg(1).exec(&mut connection).expect("DEBUG is allowed");
    keysweep_harness::eventually("a tenth of the keys is stale", std::time::Duration::from_secs(60), || {
        let info: redis::InfoDict = redis::cmd("INFO").arg("stats").query(&mut connection).expect("it answers");
        info.get::<f64>("expired_stale_perc").filter(|percent| *percent > 10.0)
    });
}

fn folder(name: &str) -> String {
    root().join(name).display().to_string()
}

/// Returns the browser that `scripts/browser` found; prints the reason if it found none.
fn browser() -> Option<String> {
    let (ours, skipped) = (folder(".cache/chromium/chromium"), folder(".cache/chromium/skipped"));
    if let Ok(why) = std::fs::read_to_string(skipped) {
        eprint!("{why}");
        return None;
    }
    Some(if Path::new(&ours).exists() { ours } else { "/usr/bin/chromium".into() })
}

fn drive(what: &Value) {
    let modules = folder(".cache/browser/node_modules");
    assert!(Path::new(&modules).exists(), "the browser is not installed; run scripts/browser (`make test` does)");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/browser.mjs");
    let output = Command::new("node")
        .arg(script)
        .arg(what.to_string())
        .env("KEYSWEEP_NODE_MODULES", modules)
        .output()
        .expect("node starts");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{said}");
}
