//! Tests of the store on both databases.

#[path = "../common/mod.rs"]
mod common;
mod conformance;
mod postgres;
mod sqlite;
mod unreadable;
