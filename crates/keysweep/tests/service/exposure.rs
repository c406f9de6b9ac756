//! Exposure of the listener: plain HTTP on loopback only, HTTPS with a certificate that can be replaced while it serves.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use keysweep_harness::{Authority, Service, eventually, free_port, id, installation};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

fn get_health(service: &Service, authority: &Authority) -> std::io::Result<(String, CertificateDer<'static>)> {
    get(service, authority, "/healthz")
}

/// Returns the answer to a GET over TLS, and the server's certificate.
fn get(service: &Service, authority: &Authority, path: &str) -> std::io::Result<(String, CertificateDer<'static>)> {
    get_over(TcpStream::connect(service.base.trim_start_matches("http://"))?, authority, path)
}

/// Returns the same, over this connection.
fn get_over(
    stream: TcpStream,
    authority: &Authority,
    path: &str,
) -> std::io::Result<(String, CertificateDer<'static>)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a certificate")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = StreamOwned::new(connection, stream);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let shown = stream.conn.peer_certificates().expect("a certificate")[0].clone().into_owned();
    Ok((String::from_utf8_lossy(&answer).into_owned(), shown))
}

fn hang_up(service: &Service) {
    let pid = Pid::from_raw(service.pid() as i32).expect("a process id");
    kill_process(pid, Signal::HUP).expect("a child can be sent signals");
}

#[test]
fn a_request_without_a_host_or_with_two_is_refused() {
    let installation = installation!();
    let service = installation.serve(&[]);
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n", "200"),
        ("GET /healthz HTTP/1.0\r\n", "200"),
    ] {
        let mut stream = TcpStream::connect(service.base.trim_start_matches("http://")).expect("a connection");
        write!(stream, "{head}Connection: close\r\n\r\n").expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer.split(' ').nth(1), Some(status), "{head:?}: {answer}");
    }
}

#[test]
fn sighup_replaces_the_certificate_unless_the_new_one_is_invalid() {
    let authority = Authority::new();
    let (first, second) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let installation = installation!();
    let [certificate, key] = ["api.pem", "api.key"].map(|name| installation.folder().join(name));
    let put = |from: &Path, to: &Path| fs::copy(from, to).map(drop).expect("copied");
    put(&first.certificate, &certificate);
    put(&first.key, &key);
    let [certificate_text, key_text] = [&certificate, &key].map(|path| path.to_str().expect("plain"));
    let service = installation.serve(&["--tls-cert", certificate_text, "--tls-key", key_text]);

    let (answer, shown) = get_health(&service, &authority).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"ok\""), "{answer}");
    assert_eq!(shown, CertificateDer::from_pem_file(&first.certificate).expect("a certificate"));
    let (sign_in, _) = get(&service, &authority, "/console/sign-in").expect("an answer");
    let cookie = sign_in.lines().find(|line| line.starts_with("set-cookie: ")).expect("a cookie");
    assert!(cookie.ends_with("; Secure"), "cookies of the console are for TLS only: {cookie}");
    get_health(&service, &Authority::new()).expect_err("a client that trusts another CA refuses the certificate");
    assert!(service.try_request("GET", "/healthz").is_err(), "there is no plain HTTP beside it");

    // A client that sends no handshake must not delay others.
    let _silent = TcpStream::connect(service.base.trim_start_matches("http://")).expect("it listens");
    fs::write(&certificate, "no certificate").expect("written");
    hang_up(&service);
    // Waiting for the log line keeps the second signal from being merged with the first.
    let kept = service.wait_for_log("certificate not reloaded");
    assert!(kept.contains("--tls-cert"), "{kept}");
    let (_, shown) = get_health(&service, &authority).expect("the certificate in use stays");
    assert_eq!(shown, CertificateDer::from_pem_file(&first.certificate).expect("a certificate"));

    put(&second.certificate, &certificate);
    put(&second.key, &key);
    hang_up(&service);
    let renewed = CertificateDer::from_pem_file(&second.certificate).expect("a certificate");
    eventually("the new certificate is shown", Duration::from_secs(20), || {
        (get_health(&service, &authority).expect("an answer").1 == renewed).then_some(())
    });
    assert_eq!(service.terminate().0, Some(0));
}

#[test]
fn without_a_certificate_sighup_is_logged_and_ignored() {
    let installation = installation!();
    let service = installation.serve(&["--no-auth"]);
    hang_up(&service);
    service.wait_for_log("SIGHUP ignored");
    assert_eq!(service.request("GET", "/healthz").status, 200);
    assert_eq!(service.terminate().0, Some(0));
}

#[test]
fn an_invalid_certificate_prevents_the_start() {
    let authority = Authority::new();
    let (one, other) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let text = |path: &Path| path.to_str().expect("plain").to_owned();
    let empty = installation!();
    for (certificate, key, words) in [
        (Some(text(&one.certificate)), None, "given together"),
        (Some("/no/such.pem".into()), Some(text(&one.key)), "--tls-cert /no/such.pem"),
        (Some(text(&one.key)), Some(text(&one.key)), "--tls-cert"),
        (Some(text(&one.certificate)), Some(text(&one.certificate)), "--tls-key"),
        (Some(text(&one.certificate)), Some(text(&other.key)), "cannot be used together"),
    ] {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0"];
        arguments.extend(certificate.iter().flat_map(|path| ["--tls-cert", path]));
        arguments.extend(key.iter().flat_map(|path| ["--tls-key", path]));
        let output = empty.run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn without_authentication_only_local_requests_are_answered() {
    let installation = installation!();
    let project = id(&installation.admin(&["project", "add", "shop"]));
    let service = installation.serve(&["--no-auth"]);
    let port = service.base.rsplit(':').next().expect("a port").to_owned();
    let own = format!("/api/v1/projects/{project}/instances");
    let dcs = format!("/v2/{project}/instances");
    for path in [own.as_str(), &dcs, "/v3/projects", "/healthz", "/openapi.json"] {
        for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            assert_eq!(service.send("GET", path, &[("host", &host)], "").status, 200, "{path} {host}");
        }
        // DNS rebinding: a page of this host name could read the answer.
        let rebound = service.send("GET", path, &[("host", &format!("evil.example:{port}"))], "");
        assert_eq!(rebound.status, 403, "{path}");
        assert!(rebound.body.to_string().contains("--no-auth"), "{path}: {}", rebound.body);
    }
    let body = json!({ "name": "planted", "url": format!("redis://127.0.0.1:{}", free_port()) }).to_string();
    for (page, status) in [("https://evil.example", 403), ("null", 403), ("http://localhost:3000", 201)] {
        let answer = service.send("POST", &own, &[("origin", page), ("content-type", "text/plain")], &body);
        assert_eq!(answer.status, status, "{page}: {}", answer.body);
    }
    assert_eq!(service.send("GET", &dcs, &[("host", "evil.example")], "").body["error_code"], "DCS.2003");
    drop(service);
    // With authentication every host name is accepted, because credentials identify the caller.
    let service = installation.serve(&[]);
    assert_eq!(service.send("GET", "/healthz", &[("host", "keys.example")], "").status, 200);
}

/// Addresses from which all connections to the API are taken that there are, and connections from one of them.
const ADDRESSES: u8 = 4;
const FROM_ONE: usize = 128;

/// Opens connections from an address of this machine, each of which asks for a stylesheet 344 times and reads nothing.
fn stubborn_clients(service: &Service, last: u8, number: usize) -> Vec<TcpStream> {
    let request = "GET /console/assets/console.css HTTP/1.1\r\nHost: localhost\r\n\r\n";
    clients(service, last, number, request.repeat(344).as_bytes())
}

/// Opens connections from 127.0.0.`last`, sends something on each, and reads nothing.
#[tokio::main(flavor = "current_thread")]
pub async fn clients(service: &Service, last: u8, number: usize, sent: &[u8]) -> Vec<TcpStream> {
    let service: SocketAddr = service.base.trim_start_matches("http://").parse().expect("an address");
    let mut opened = Vec::new();
    for _ in 0..number {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1).expect("the system takes its least");
        socket.bind(([127, 0, 0, last], 0).into()).expect("loopback has many addresses");
        let mut stream = socket.connect(service).await.expect("it listens").into_std().expect("a stream");
        // As much as the buffers of the system take; the service may have closed the connection.
        let _ = stream.write(sent);
        opened.push(stream);
    }
    opened
}

/// Alone, since the service answers a hundred thousand requests until all buffers are full.
#[test]
fn alone_connections_that_do_not_read_keep_no_probe_and_no_other_client_waiting() {
    let installation = installation!();
    let service = installation.serve(&["--metrics-listen", "127.0.0.1:0"]);
    let status = |path: &str| service.request("GET", path).status;
    let everything: Vec<_> = (2..2 + ADDRESSES).map(|last| stubborn_clients(&service, last, FROM_ONE)).collect();
    eventually("all connections are taken", Duration::from_secs(20), || (status("/v3") == 503).then_some(()));
    // Silent ones of a further address want the reserved connections, too. If they held them for two seconds each, eight at a time,
    // the probe would give up.
    let silent = clients(&service, 2 + ADDRESSES, FROM_ONE, b"");
    assert_eq!(status("/healthz"), 200);
    let busy = service.request("GET", "/v3");
    assert!(busy.header("retry-after").is_some() && busy.header("x-request-id").is_some(), "{busy:?}");
    for _ in 0..3 {
        assert_eq!((status("/healthz"), status("/readyz")), (200, 200));
    }
    let metrics = service.metrics.as_ref().expect("it has one").replace("/metrics", "/readyz");
    let ready = ureq::get(&metrics).call().expect("the listener of the metrics answers probes, too");
    assert_eq!(ready.status(), 200);
    drop((everything, silent));
    eventually("connections are free again", Duration::from_secs(20), || (status("/v3") == 200).then_some(()));

    // One address cannot take them all.
    let _of_one = stubborn_clients(&service, 20, 600);
    assert_eq!(status("/v3"), 200);
}

/// Sends half of a body of this size with this header on a connection.
fn half_sent(stream: TcpStream, header: &str, size: usize) -> TcpStream {
    stream.set_nonblocking(false).expect("a stream");
    // The service answers some of them without waiting for the rest.
    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a stream");
    let path = "/api/v1/projects/0123456789abcdef0123456789abcdef/instances";
    let _ = write!(&stream, "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n{header}\r\n\r\n");
    let _ = (&stream).write_all(&vec![b' '; size / 2]);
    stream
}

#[test]
fn bodies_of_clients_without_credentials_take_little_memory() {
    const SIZE: usize = 1 << 20;
    let installation = installation!();
    let service = installation.serve(&[]);
    assert_eq!(service.request("GET", "/v3").status, 200);
    let idle = service.peak_memory();
    let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let signature = "0".repeat(64);
    let signed = format!(
        "X-Sdk-Date: {date}\r\nAuthorization: SDK-HMAC-SHA256 Access=UNKNOWN, SignedHeaders=x-sdk-date, Signature={signature}"
    );
    let mut held = Vec::new();
    for (last, header) in [(2, "X-Auth-Token: 0123"), (3, signed.as_str())] {
        let streams = clients(&service, last, 80, b"").into_iter();
        held.extend(streams.map(|stream| half_sent(stream, header, SIZE)));
    }
    // Bodies of another client are read meanwhile, small and large.
    for body in ["{}".into(), format!("{}{{}}", " ".repeat(SIZE / 2))] {
        let refused = service.send("POST", "/v3/auth/tokens", &[], body.as_bytes());
        assert_eq!(refused.status, 400, "{:?}", refused.body);
    }
    let taken = service.peak_memory() - idle;
    assert!(taken < 48 << 20, "{} bodies took {} MiB", held.len(), taken >> 20);
}

/// Opens a connection from 127.0.0.`last`.
#[tokio::main(flavor = "current_thread")]
async fn connection_from(service: &Service, last: u8) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, last], 0).into()).expect("loopback has many addresses");
    let service = service.base.trim_start_matches("http://").parse().expect("an address");
    let stream = socket.connect(service).await.expect("it listens").into_std().expect("a stream");
    stream.set_nonblocking(false).expect("a stream");
    stream
}

#[test]
fn silent_handshakes_of_many_clients_keep_no_other_waiting() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let installation = installation!();
    let [certificate, key] = [&issued.certificate, &issued.key].map(|path| path.to_str().expect("plain"));
    let service = installation.serve(&["--tls-cert", certificate, "--tls-key", key]);
    // More than the handshakes that the service performs at a time, and than those of one client.
    let _silent: Vec<_> = (2..14).map(|last| clients(&service, last, 20, b"")).collect();
    let began = std::time::Instant::now();
    // One client with an address of its own, and one that shares the address of silent ones.
    for last in [20, 2] {
        let answer = get_over(connection_from(&service, last), &authority, "/healthz").map(|(answer, _)| answer);
        assert!(answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")), "127.0.0.{last}: {answer:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(8), "they waited for the silent ones: {:?}", began.elapsed());
}
