//! Event streams, which hold a connection for as long as a task runs: how many a user has, and how long they last.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::*;

/// Most streams of one user.
const MAX_OF_ONE: usize = 16;

/// Opens a stream; returns the status and the rest of the answer.
fn open(service: &Service, path: &str, headers: &[(String, String)]) -> (String, BufReader<TcpStream>) {
    let address = service.base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{lines}Connection: close\r\n\r\n").expect("it reads");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("it answers");
    (line, reader)
}

/// Returns the rest of a stream, which must end within 20 s.
fn rest(mut stream: BufReader<TcpStream>) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it ends in time");
    text
}

#[test]
fn a_user_has_a_bounded_number_of_streams_which_end_with_its_credentials() {
    let installation = installation!();
    let [(project, _), _] = two_projects(&installation);
    // Its window is closed, so that its task waits for hours.
    let in_hours = |hours: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours)).strftime("%H:%M");
    let window = format!("{}-{} UTC", in_hours(2), in_hours(3));
    let url = format!("redis://127.0.0.1:{}", free_port());
    let closed = ["--window", window.as_str(), "--window-binds-manual"];
    let instance = installation.register_another(&project, "later", &url, &closed);
    for name in ["ada", "bob", "eve"] {
        add_user(&installation, name, "shop", "operator");
    }
    let key = add_key(&installation, "bob");
    let service = installation.serve(&[]);
    let [adas, eves] = ["ada", "eve"].map(|name| vec![("X-Auth-Token".to_owned(), token(&service, name, &project))]);
    let created = send(&service, "POST", &scan_path(&project, &instance), &adas, "");
    let path = format!("/api/v1/projects/{project}/tasks/{}/events", id(&created.body));

    let open_all: Vec<_> = (0..MAX_OF_ONE).map(|_| open(&service, &path, &adas)).collect();
    assert!(open_all.iter().all(|(status, _)| status.contains("200")), "{:?}", open_all[0].0);
    let (status, answer) = open(&service, &path, &adas);
    assert!(status.contains("429"), "{status}");
    let answer = rest(answer);
    assert!(answer.contains("retry-after: ") && answer.contains("too many event streams"), "{answer}");

    let (status, of_key) = open(&service, &path, &key.headers("GET", &path, b""));
    assert!(status.contains("200"), "another user is not affected: {status}");
    let (status, of_role) = open(&service, &path, &eves);
    assert!(status.contains("200"), "{status}");
    installation.admin(&["access-key", "disable", &key.access]);
    installation.admin(&["user", "revoke", "eve", "--project", "shop"]);
    installation.admin_with_input(&["user", "passwd", "ada", "--password-stdin"], "another password");
    let streams = open_all.into_iter().map(|(_, stream)| stream).chain([of_key, of_role]);
    for stream in streams {
        let text = rest(stream);
        assert!(text.contains("event: task"), "it had begun");
        assert!(text.to_ascii_lowercase().contains("x-accel-buffering: no"), "{text}");
    }
}
