//! The web console: over plain HTTP, like a browser without script, and in a real browser.

mod browser;
#[path = "../common/mod.rs"]
mod common;
mod fleet;
mod forms;
mod list;
mod pages;
mod past;
mod protection;
mod sign_in;
mod visitor;
