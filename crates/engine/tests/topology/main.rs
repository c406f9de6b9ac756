//! Tests of the way to a primary: clusters, Sentinels, replicas, TLS, and first contact.

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod first_contact;
mod lost_reply;
mod memory;
mod replicas;
mod sentinel;
mod tls;
