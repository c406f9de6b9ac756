//! Tests of the estimate on real servers.

#[path = "../common/mod.rs"]
mod common;

mod methods;
mod rights;
