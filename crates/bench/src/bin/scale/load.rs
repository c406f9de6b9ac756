//! Signed requests of several kinds at once, over few and many connections.

use std::{
    env,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use keysweep::model::Instance;
use keysweep_harness::{DataSet, Flavor, Server, Service, Signer};

use crate::{
    http::{Client, quantile},
    setup::Setup,
    table::{Table, row},
};

/// Heading of the table.
pub const TABLE: Table<'_> =
    Table(&["database", "connections", "requests a second", "p50", "p99", "memory at the start", "at the end", "most"]);

/// How long requests are sent; `KEYSWEEP_SCALE_SECONDS` replaces it.
const DURATION: Duration = Duration::from_secs(120);
/// Instances that the requests are about.
const INSTANCES: usize = 300;
/// Numbers of connections.
const CONNECTIONS: [usize; 2] = [16, 256];
/// Scans on the one server at a time.
const SCANS: u32 = 64;
/// Lines of the service's log that a failure shows, at most.
const LAST_LINES: usize = 20;

/// Sends reads, creates and PUTs for a while over each number of connections.
pub fn mixed(setup: &Setup) -> Result<()> {
    let duration = match env::var("KEYSWEEP_SCALE_SECONDS") {
        Ok(seconds) => Duration::from_secs(seconds.parse().context("KEYSWEEP_SCALE_SECONDS")?),
        Err(_) => DURATION,
    };
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).stale(20).load(&server);
    let instances = setup.register(INSTANCES, &server.url(), None)?;
    let signer = setup.signer();
    for connections in CONNECTIONS {
        let service = setup.serve_authenticated(SCANS);
        let (before, begun) = (service.resident_memory(), Instant::now());
        let next = AtomicUsize::new(0);
        let clients: Vec<Result<Vec<Duration>>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..connections)
                .map(|_| scope.spawn(|| one_client(&service, &signer, &instances, &next, begun + duration)))
                .collect();
            clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
        });
        let (wall, after) = (begun.elapsed(), service.resident_memory());
        let answered: Result<Vec<_>> = clients.into_iter().collect();
        let mut latencies = match answered {
            Ok(latencies) => latencies.concat(),
            Err(error) => return Err(error.context(complaints(&service.terminate().1))),
        };
        latencies.sort();
        let memory = |bytes: u64| format!("{} MiB", bytes >> 20);
        row(&[
            &setup.name,
            &connections,
            &format!("{:.0}", latencies.len() as f64 / wall.as_secs_f64()),
            &format!("{:.1} ms", quantile(&latencies, 0.5)),
            &format!("{:.1} ms", quantile(&latencies, 0.99)),
            &memory(before),
            &memory(after),
            &memory(service.peak_memory()),
        ]);
        service.terminate();
    }
    Ok(())
}

/// Returns what the service's log complains about, the last lines of it.
fn complaints(log: &[String]) -> String {
    let lines: Vec<&str> =
        log.iter().map(String::as_str).filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    let last = lines.len().saturating_sub(LAST_LINES);
    format!("the service's log:\n{}", lines[last..].join("\n"))
}

/// Sends requests of three kinds in turn until the end, each about the next instance: a read, a create and a PUT.
fn one_client(
    service: &Service,
    signer: &Signer,
    instances: &[Instance],
    next: &AtomicUsize,
    end: Instant,
) -> Result<Vec<Duration>> {
    let (mut client, mut latencies) = (Client::connect(service)?, Vec::new());
    while Instant::now() < end {
        let number = next.fetch_add(1, Ordering::Relaxed);
        // Each instance gets requests of all kinds.
        let Instance { id, project_id, .. } = &instances[number / 3 % instances.len()];
        let of_instance = format!("/v2/{project_id}/instances/{id}");
        let (method, path, body) = match number % 3 {
            0 => ("GET", "auto-expire/histories", String::new()),
            1 => ("POST", "scan-expire-keys-task", String::new()),
            _ => {
                // Another body each time: the signature of a change is good for one request.
                let interval = 3_600 + number % 1_000_000;
                let body = format!(
                    r#"{{"enable_auto_scan":true,"first_scan_at":"2100-01-01T00:00:00.000Z","interval":{interval},"timeout":{},"scan_keys_count":1000}}"#,
                    2 * interval
                );
                ("PUT", "scan-expire-keys/autoscan-config", body)
            }
        };
        let path = format!("{of_instance}/{path}");
        let mut headers = signer.headers(method, &path, body.as_bytes());
        if !body.is_empty() {
            headers.push(("content-type".into(), "application/json".into()));
        }
        latencies.push(client.send(method, &path, &headers, &body)?);
    }
    Ok(latencies)
}
