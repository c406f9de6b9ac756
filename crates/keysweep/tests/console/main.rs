//! The web console: over plain HTTP, as a browser without script sees it, and in a real browser.

mod browser;
#[path = "../common/mod.rs"]
mod common;
mod guard;
mod pages;
mod sign_in;
mod visitor;
