//! Malformed requests: an invalid head, and bodies that are too long or cut off.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use keysweep_harness::{Service, free_port, installation};
use serde_json::{Value, json};

use super::OTHER;

/// Returns the answer to these bytes on a new connection.
fn answer_to(service: &Service, bytes: &str) -> String {
    let mut connection = TcpStream::connect(service.base.trim_start_matches("http://")).expect("the service listens");
    connection.write_all(bytes.as_bytes()).expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers and closes");
    answer
}

#[test]
fn an_invalid_head_is_refused_with_a_status_only() {
    let installation = installation!();
    let service = installation.serve(&["--no-auth"]);
    let many = (0..101).map(|number| format!("X-{number}: x\r\n")).collect::<String>();
    for (request, status) in [
        ("no request at all\r\n\r\n".to_owned(), "400"),
        (format!("GET /v2/{OTHER}/instances HTTP/1.1\r\nno header\r\n\r\n"), "400"),
        (format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(65_535)), "431"),
        (format!("GET /v2/{OTHER}/instances HTTP/1.1\r\n{many}\r\n"), "431"),
    ] {
        let answer = answer_to(&service, &request);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{:.60}: {head}", request);
        assert!(body.is_empty() && !head.contains("x-request-id"), "{:.60}: {answer}", request);
    }
}

#[test]
fn a_body_of_more_than_a_mebibyte_is_a_dcs_error() {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/v2/{project}/instances/{instance}/scan-expire-keys/autoscan-config");
    let answer = service.send("PUT", &path, &[], vec![b' '; 1024 * 1024 + 1]);
    assert_eq!((answer.status, &answer.body["error_code"]), (413, &"DCS.4005".into()));
    assert_eq!(answer.body["error_ext_msg"], Value::Null);
    assert!(answer.header("x-request-id").is_some());
}

#[test]
fn a_truncated_body_is_a_dcs_error() {
    let installation = installation!();
    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/v2/{project}/instances/{instance}/scan-expire-keys/autoscan-config");
    let host = service.base.strip_prefix("http://").expect("a plain URL");
    for (length, body) in [("Content-Length: 10", "{\"e"), ("Transfer-Encoding: chunked", "5\r\n{\"e")] {
        let mut connection = TcpStream::connect(host).expect("the service listens");
        let request = format!("PUT {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}\r\n\r\n{body}");
        connection.write_all(request.as_bytes()).expect("it reads");
        connection.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("it answers and closes");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("\r\nx-request-id: "), "{length}: {head}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let message = "The message body contains invalid characters or is not in JSON format.";
        assert_eq!(body, json!({ "error_code": "DCS.4005", "error_msg": message, "error_ext_msg": null }), "{length}");
    }
}
