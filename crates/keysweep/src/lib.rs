//! keysweep reclaims the memory that expired keys still hold in Redis and Valkey: the product behind the binary.
//! ARCHITECTURE.md says where things are.

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod hold;
pub mod identity;
pub mod instances;
pub mod metrics;
pub mod model;
pub mod openapi;
pub mod proxies;
pub mod random;
pub mod secrets;
pub mod store;
pub mod task;
pub mod telemetry;

mod allocator;
mod answers;
mod api;
mod budget;
mod connections;
mod console;
mod csv;
mod dcs;
mod folder;
mod iam;
mod inventory;
mod loopback;
mod request;
mod router;
mod surface;
mod tls;
mod units;
