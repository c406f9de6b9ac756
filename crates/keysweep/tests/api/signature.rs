//! Signatures of generated requests by Huawei Cloud's own signer: each is verified, and none after any change.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use keysweep::auth::signature::{Authorization, SignatureError, SignedRequest};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

const ACCESS: &str = "AKOFTHETEST000000000";
const SECRET: &str = "the-secret-of-the-test";
const REQUESTS: usize = 300;
/// Pieces of generated text: plain, reserved, seemingly encoded, and not ASCII.
const PIECES: [&str; 28] = [
    "a", "Z", "0", "-", "_", ".", "~", " ", "+", "*", "'", "(", "!", ",", ";", ":", "@", "$", "=", "&", "\"", "<", "|",
    "é", "键", "🔑", "%", "%2F",
];

/// A request as sent.
#[derive(Clone, PartialEq)]
struct Wire {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Wire {
    fn verify(&self) -> Result<(), SignatureError> {
        let header = self.headers.get("authorization").ok_or(SignatureError::Malformed)?;
        let header = header.to_str().map_err(|_| SignatureError::Malformed)?;
        let Self { method, path, query, headers, body } = self;
        let authorization = Authorization::parse(header)?;
        // There is one key only; a changed access key would have another secret.
        if authorization.access != ACCESS {
            return Err(SignatureError::Mismatch);
        }
        authorization.prepare(SignedRequest { method, path, query, headers, body }, now())?.verify(SECRET)
    }
}

fn now() -> Timestamp {
    "2026-11-24T08:31:00Z".parse().expect("a time")
}

fn text(random: &mut StdRng, most: usize) -> String {
    let length = random.random_range(0..=most);
    (0..length).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect()
}

/// Percent-encodes a path segment like a client.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn generated(random: &mut StdRng) -> Value {
    let segments = random.random_range(0..5);
    let path: String = (0..segments).map(|_| format!("/{}", encoded(&text(random, 6)))).collect();
    let path = if path.is_empty() || random.random_bool(0.2) { format!("{path}/") } else { path };
    let pairs = random.random_range(0..4);
    let query: Vec<_> = (0..pairs).map(|_| (format!("k{}", text(random, 3)), text(random, 5))).collect();
    let mut headers = vec![("X-Sdk-Date".to_owned(), "20261124T083000Z".to_owned())];
    for name in ["Content-Type", "X-Project-Id", "x-lower", "User-Agent"] {
        if random.random_bool(0.5) {
            let value = match name {
                "Content-Type" => "application/json; charset=utf-8".to_owned(),
                _ => format!(" {} ", text(random, 8)),
            };
            headers.push((name.to_owned(), value));
        }
    }
    let (method, body) = match random.random_range(0..4) {
        0 => ("GET", String::new()),
        1 => ("DELETE", String::new()),
        2 => ("POST", String::new()),
        _ => ("PUT", text(random, 40)),
    };
    json!({ "method": method, "host": "dcs.example:7080", "path": path, "query": query, "headers": headers, "body": body })
}

/// Returns the requests with the SDK's signatures.
fn signed(requests: &[Value]) -> Vec<Wire> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = package.join("../../.cache/venv/bin/python");
    assert!(python.exists(), "the SDK is not installed; run scripts/python (`make test` does)");
    let mut child = Command::new(python)
        .arg(package.join("tests/signer.py"))
        .args([ACCESS, SECRET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut input = child.stdin.take().expect("a pipe");
    let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
    // Writing in a thread avoids a deadlock: both pipes are smaller than their data.
    let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writing.join().expect("no panic").expect("it reads");
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).expect("JSON lines");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), requests.len());
    requests.iter().zip(&answers).map(|(request, answer)| wire(request, answer)).collect()
}

fn wire(request: &Value, answer: &Value) -> Wire {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let target = text(&answer["target"]);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let header = |pair: &Value| {
        let bytes: Vec<u8> = serde_json::from_value(pair[1].clone()).expect("bytes");
        let name: HeaderName = text(&pair[0]).parse().expect("a name");
        (name, HeaderValue::from_bytes(&bytes).expect("a value"))
    };
    Wire {
        method: text(&request["method"]).parse().expect("a method"),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: answer["headers"].as_array().expect("headers").iter().map(header).collect(),
        body: text(&request["body"]).into_bytes(),
    }
}

fn generated_and_signed(seed: u64, number: usize) -> Vec<Wire> {
    let mut random = StdRng::seed_from_u64(seed);
    let requests: Vec<Value> = (0..number).map(|_| generated(&mut random)).collect();
    signed(&requests)
}

#[test]
fn every_signature_of_huaweis_signer_is_verified() {
    let seed = rand::random();
    for (index, wire) in generated_and_signed(seed, REQUESTS).iter().enumerate() {
        assert_eq!(
            wire.verify(),
            Ok(()),
            "seed {seed}, request {index}: {} {}?{} {:?}",
            wire.method,
            wire.path,
            wire.query,
            wire.headers
        );
    }
}

/// Returns copies of a text, each with one byte changed.
fn changed(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..text.len()).flat_map(move |index| {
        [0x01, 0x10, 0x20].map(|flip| {
            let mut changed = text.to_vec();
            changed[index] ^= flip;
            changed
        })
    })
}

/// Returns the decoded path or query, which is what a signature covers.
fn meaning(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

#[test]
fn changing_any_byte_of_a_signed_request_is_refused() {
    let seed = rand::random();
    let mut tried = 0;
    for wire in generated_and_signed(seed, 30) {
        let mut refused = |other: Wire, what: &str| {
            tried += 1;
            assert!(other.verify().is_err(), "seed {seed}, {what}: {} {}?{}", other.method, other.path, other.query);
        };
        for path in changed(wire.path.as_bytes()).filter_map(|path| String::from_utf8(path).ok()) {
            // `%2f` equals `%2F`, and the signature does not cover a trailing slash.
            if meaning(&path) != meaning(&wire.path) && path.trim_end_matches('/') != wire.path.trim_end_matches('/') {
                refused(Wire { path, ..wire.clone() }, "path");
            }
        }
        for query in changed(wire.query.as_bytes()).filter_map(|query| String::from_utf8(query).ok()) {
            let pairs = |query: &str| {
                let mut pairs: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).map(meaning).collect();
                pairs.sort();
                pairs
            };
            if pairs(&query) != pairs(&wire.query) {
                refused(Wire { query, ..wire.clone() }, "query");
            }
        }
        for body in changed(&wire.body) {
            refused(Wire { body, ..wire.clone() }, "body");
        }
        for method in changed(wire.method.as_str().as_bytes()) {
            if let Ok(method) = Method::from_bytes(&method) {
                refused(Wire { method, ..wire.clone() }, "method");
            }
        }
        for (name, value) in &wire.headers {
            for bytes in changed(value.as_bytes()) {
                let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut other = wire.clone();
                other.headers.insert(name, value);
                // The hexadecimal digits of a signature are case-insensitive.
                let lower = |wire: &Wire| wire.headers[name].as_bytes().to_ascii_lowercase();
                let is_signature = name == "authorization";
                if !is_signature || lower(&other) != lower(&wire) {
                    refused(other, name.as_str());
                }
            }
        }
    }
    assert!(tried > 10_000, "{tried}");
}
