//! Tests of the repository itself: its structure, language, documentation and deployment files.

mod architecture;
mod containers;
mod docs;
mod language;
