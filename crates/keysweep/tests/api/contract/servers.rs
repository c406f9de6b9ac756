//! Servers that cannot be scanned: not Redis or Valkey at all, or too old.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use keysweep_harness::installation;
use serde_json::{Value, json};

use super::good_config;
use crate::common::web::Web;

#[test]
fn a_server_that_is_not_redis_is_refused_at_once() {
    let web = Web::start();
    let installation = installation!();
    let (project, instance) = installation.register(&web.url());
    let service = installation.serve(&["--no-auth"]);
    for (method, path, body) in [
        ("POST", "scan-expire-keys-task", String::new()),
        ("POST", "auto-expire/scan", String::new()),
        ("PUT", "scan-expire-keys/autoscan-config", good_config().to_string()),
    ] {
        let answer = service.send(method, &format!("/v2/{project}/instances/{instance}/{path}"), &[], body);
        assert_eq!((answer.status, &answer.body["error_code"]), (400, &"DCS.4818".into()), "{path}");
        assert_eq!(answer.body["error_msg"], "Do not support auto expire scan.");
    }
    assert_eq!(service.get(&format!("/v2/{project}/instances/{instance}"))["status"], "ERROR");
}

/// Starts a stand-in for Redis 2.8.0, of which the tests have no binary: INFO reports that version, PING and CLIENT succeed,
/// and ROLE, which is newer, is unknown. It proves nothing about other behaviour of a real one.
fn stand_in_for_redis_2_8() -> u16 {
    stand_in("# Server\r\nredis_version:2.8.0\r\nredis_mode:standalone\r\n")
}

/// The same for a server with this section in its INFO reply.
fn stand_in(server: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    // The thread ends with the process of the test.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_as(stream, server));
        }
    });
    port
}

fn answer_as(stream: TcpStream, server: &str) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream).lines();
    loop {
        // `*2`, then a length and a word for each argument.
        let words: usize = lines.next()?.ok()?.strip_prefix('*')?.parse().ok()?;
        let mut command = Vec::new();
        for _ in 0..words {
            lines.next()?.ok()?;
            command.push(lines.next()?.ok()?.to_ascii_uppercase());
        }
        let reply = match command.first()?.as_str() {
            "PING" => "+PONG\r\n".to_owned(),
            "CLIENT" => "+OK\r\n".to_owned(),
            "INFO" => {
                let text = match command.get(1)?.as_str() {
                    "SERVER" => server,
                    "REPLICATION" => "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n",
                    "MEMORY" => "# Memory\r\nused_memory:503856\r\n",
                    "KEYSPACE" => "# Keyspace\r\ndb0:keys=3,expires=2,avg_ttl=0\r\n",
                    _ => "",
                };
                format!("${}\r\n{text}\r\n", text.len())
            }
            other => format!("-ERR unknown command '{other}'\r\n"),
        };
        writer.write_all(reply.as_bytes()).ok()?;
    }
}

#[test]
fn a_server_that_reports_a_version_below_4_0_is_refused() {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", stand_in_for_redis_2_8()));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/v2/{project}/instances/{instance}");
    for (method, rest, body) in [
        ("POST", "scan-expire-keys-task", String::new()),
        ("POST", "auto-expire/scan", String::new()),
        ("PUT", "scan-expire-keys/autoscan-config", good_config().to_string()),
    ] {
        let answer = service.send(method, &format!("{path}/{rest}"), &[], body);
        let expected =
            json!({ "error_code": "DCS.4818", "error_msg": "Do not support auto expire scan.", "error_ext_msg": null });
        assert_eq!((answer.status, &answer.body), (400, &expected), "{rest}");
    }
    let shown = service.get(&path);
    assert_eq!((&shown["engine_version"], &shown["status"]), (&"2.8".into(), &"ERROR".into()));
    let tested = service.request("POST", &format!("/api/v1/projects/{project}/instances/{instance}/test"));
    assert_eq!((tested.status, &tested.body["ok"], &tested.body["stats"]), (200, &json!(false), &Value::Null));
    let message = tested.body["message"].as_str().expect("a message");
    assert!(message.contains("redis 2.8.0 is not supported; 4.0 is the oldest supported version"), "{message}");
}

#[test]
fn an_engine_that_gains_nothing_is_refused_by_name_and_its_auto_scan_paused() {
    let installation = installation!();
    let dragonfly = stand_in("# Server\r\nredis_version:7.4.0\r\ndragonfly_version:df-v1.40.1\r\n");
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{dragonfly}"));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/v2/{project}/instances/{instance}");
    for (method, rest, body) in [
        ("POST", "scan-expire-keys-task", String::new()),
        ("PUT", "scan-expire-keys/autoscan-config", good_config().to_string()),
    ] {
        let answer = service.send(method, &format!("{path}/{rest}"), &[], body);
        assert_eq!((answer.status, &answer.body["error_code"]), (400, &"DCS.4818".into()), "{rest}: {answer:?}");
    }
    let shown = service.get(&format!("/api/v1/projects/{project}/instances/{instance}"));
    assert_eq!(shown["stats"]["engine"], "dragonfly", "{shown:#}");
    let cause = shown["unreachable"].as_str().expect("a sentence");
    assert!(cause.contains("Dragonfly gains nothing from a scan"), "{cause}");
}
