//! Tests of what a server allows and reports.

mod checks;
#[path = "../common/mod.rs"]
mod common;
mod lazyfree;
mod rights;
