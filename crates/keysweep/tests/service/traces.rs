//! Traces of a task: one trace from its creation to each primary, whichever replicas ran it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use keysweep_harness::{DataSet, Flavor, Server, installation};
use serde_json::Value;

/// A fake OpenTelemetry collector: accepts requests over HTTP and passes on their spans.
struct FakeCollector {
    endpoint: String,
    spans: Receiver<(BTreeMap<String, String>, Value)>,
}

impl FakeCollector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (sender, spans) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || Self::serve(&stream, &sender));
            }
        });
        Self { endpoint, spans }
    }

    /// Answers requests until the connection ends.
    fn serve(stream: &TcpStream, sender: &Sender<(BTreeMap<String, String>, Value)>) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = BTreeMap::new();
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            head.insert("request".to_owned(), line.trim().to_owned());
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let Some((name, value)) = line.trim().split_once(": ") else { break };
                head.insert(name.to_lowercase(), value.to_owned());
            }
            let mut body = vec![0; head.get("content-length")?.parse().ok()?];
            reader.read_exact(&mut body).ok()?;
            let body = serde_json::from_slice(&body).expect("JSON");
            (&*stream)
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
                .ok()?;
            // The receiver is gone once the test is over.
            let _ = sender.send((head, body));
        }
    }

    /// Returns the next batch of spans, with the headers of its request.
    fn next(&self) -> (BTreeMap<String, String>, Vec<Value>) {
        let (head, body) = self.spans.recv_timeout(Duration::from_secs(30)).expect("spans");
        let resource = &body["resourceSpans"][0];
        let service = attribute(&resource["resource"], "service.name").expect("a name").clone();
        assert_eq!(service["stringValue"], "keysweep");
        (head, resource["scopeSpans"][0]["spans"].as_array().expect("spans").clone())
    }
}

fn attribute<'s>(of: &'s Value, name: &str) -> Option<&'s Value> {
    of["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == name).map(|attribute| &attribute["value"])
}

#[test]
fn a_task_is_one_trace_from_its_creation_to_each_primary() {
    let collector = FakeCollector::start();
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(20_000).stale(1_000).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()), ("OTEL_EXPORTER_OTLP_HEADERS", "tenant=shop")];
    let service = installation.serve_with(&["--no-auth"], &environment);
    let scan = service.scan(&project, &instance);
    let task = service.wait_for_task(&scan, |task| task["status"] == "success");

    let mut spans = BTreeMap::new();
    while spans.len() < 4 {
        let (head, batch) = collector.next();
        assert_eq!(head["request"], "POST /v1/traces HTTP/1.1");
        assert_eq!((head["content-type"].as_str(), head["tenant"].as_str()), ("application/json", "shop"));
        spans.extend(batch.into_iter().map(|span| (span["name"].as_str().expect("a name").to_owned(), span)));
    }
    assert_eq!(spans.keys().collect::<Vec<_>>(), ["scan.shard", "task.claim", "task.create", "task.scan"]);
    for span in spans.values() {
        assert_eq!(span["traceId"], scan.id, "{span:#}");
        let nanos = |name: &str| span[name].as_str().expect("a time").parse::<u64>().expect("a number");
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{span:#}");
    }
    assert!(spans["task.create"].get("parentSpanId").is_none());
    for (child, parent) in [("task.claim", "task.create"), ("task.scan", "task.claim"), ("scan.shard", "task.scan")] {
        assert_eq!(spans[child]["parentSpanId"], spans[parent]["spanId"], "{child}");
    }
    let reclaimed =
        |span: &str| attribute(&spans[span], "keysweep.keys.reclaimed").expect("a number")["intValue"].clone();
    assert_eq!(reclaimed("task.scan"), loaded.stale.to_string());
    assert_eq!(reclaimed("scan.shard"), loaded.stale.to_string());
    let address = attribute(&spans["scan.shard"], "server.address").expect("an address");
    assert_eq!(address["stringValue"], server.address().to_string());
    let seconds = |span: &Value| {
        let nanos = |name: &str| span[name].as_str().expect("a time").parse::<u64>().expect("a number");
        (nanos("endTimeUnixNano") - nanos("startTimeUnixNano")) as f64 / 1e9
    };
    let reported = task["report"]["shards"][0]["elapsed_seconds"].as_f64().expect("seconds");
    assert!((seconds(&spans["scan.shard"]) - reported).abs() < 0.001);
    assert!(seconds(&spans["task.scan"]) >= reported);
}

#[test]
fn remaining_spans_are_exported_on_shutdown() {
    let collector = FakeCollector::start();
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(50_000).stale(50_000).load(&server);
    server.watch_expired_keys();
    let installation = installation!();
    let (project, instance) = installation.register_with(&server.url(), &["--pace", "gentle"]);
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str())];
    let service = installation.serve_with(&["--no-auth"], &environment);
    let task = service.scan(&project, &instance);
    service.wait_for_task(&task, |task| task["keys_scanned"].as_u64() > Some(0));
    assert_eq!(service.terminate().0, Some(0));
    let mut names = Vec::new();
    while !names.contains(&"task.scan".to_owned()) {
        names.extend(collector.next().1.iter().map(|span| span["name"].as_str().expect("a name").to_owned()));
    }
}

#[test]
fn an_unavailable_collector_delays_nothing() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(1_000).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let endpoint = format!("http://127.0.0.1:{}", keysweep_harness::free_port());
    let service = installation.serve_with(&["--no-auth"], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let task = service.scan(&project, &instance);
    service.wait_for_task(&task, |task| task["status"] == "success");
    let (code, log) = service.terminate();
    assert_eq!(code, Some(0));
    assert_eq!(log.iter().filter(|line| line.contains("collector")).count(), 1, "logged once: {log:#?}");
}

#[test]
fn an_invalid_endpoint_is_rejected_at_the_start() {
    let installation = installation!();
    let mut command = installation.command(&["serve", "--listen", "127.0.0.1:0"]);
    let output = command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example:4318").output();
    let output = output.expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{said}");
}
