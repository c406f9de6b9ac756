//! Tests of a running service: its tasks, schedule, replicas, outages, registration and telemetry.

mod adaptive;
mod background;
mod chaos;
#[path = "../common/mod.rs"]
mod common;
mod concurrency;
mod exposure;
mod hold;
mod hostile_servers;
mod incomplete;
mod logs;
mod metrics;
mod modes;
mod outages;
mod recovery;
mod registration;
mod replicas;
mod rotation;
mod schedule;
mod startup;
mod tasks;
mod traces;
