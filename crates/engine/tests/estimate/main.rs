//! Tests of the estimate on real servers.

#[path = "../common/mod.rs"]
mod common;

mod limit;
mod methods;
mod monitor;
mod rights;
