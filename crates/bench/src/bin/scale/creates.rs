//! Creates tasks over HTTP on keep-alive connections.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use keysweep::model::Instance;
use keysweep_harness::Service;

use crate::http::{Client, quantile};

/// Result of creating tasks.
pub struct Creates {
    /// Number of tasks created.
    pub number: usize,
    /// Time from the first request to the last response.
    pub wall: Duration,
    /// Response times, shortest first.
    pub latencies: Vec<Duration>,
}

impl Creates {
    /// Returns the number of tasks per second.
    pub fn rate(&self) -> f64 {
        self.number as f64 / self.wall.as_secs_f64()
    }

    /// Returns this quantile of the response times in milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(&self.latencies, share)
    }
}

/// Creates a scan task for each instance over this number of connections.
pub fn create(service: &Service, instances: &[Instance], connections: usize) -> Result<Creates> {
    let (begun, share) = (Instant::now(), instances.len().div_ceil(connections));
    let clients: Vec<Result<Vec<Duration>>> = thread::scope(|scope| {
        let clients: Vec<_> =
            instances.chunks(share).map(|share| scope.spawn(move || one_client(service, share))).collect();
        clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
    });
    let wall = begun.elapsed();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client?);
    }
    latencies.sort();
    Ok(Creates { number: instances.len(), wall, latencies })
}

fn one_client(service: &Service, instances: &[Instance]) -> Result<Vec<Duration>> {
    let mut client = Client::connect(service)?;
    let path =
        |Instance { id, project_id, .. }: &Instance| format!("/v2/{project_id}/instances/{id}/scan-expire-keys-task");
    instances.iter().map(|instance| client.send("POST", &path(instance), &[], "")).collect()
}
