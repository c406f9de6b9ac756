//! Tests of the APIs: contracts, clients, authentication and authorization.

mod access;
mod audit;
mod bounds;
#[path = "../common/mod.rs"]
mod common;
mod contract;
mod estimates;
mod inventory;
mod openapi;
mod own_api;
mod refusals;
mod schemathesis;
mod sdk;
mod sign_in;
mod signature;
mod tasks;
mod terraform;
