//! Tests of the binary as it is typed and installed.

mod client;
mod command_line;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod demo;
mod fleet;
mod hold;
mod init;
mod names;
mod package;
mod restore;
mod survey;
mod terminal;
