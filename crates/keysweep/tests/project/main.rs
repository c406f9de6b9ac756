//! Tests of the repository itself: its structure, language, documentation and deployment files.

mod architecture;
#[path = "../common/mod.rs"]
mod common;
mod containers;
mod docs;
mod language;
mod vendored;
mod workflows;
