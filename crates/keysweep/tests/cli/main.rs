//! Tests of the binary as it is typed and installed.

mod client;
mod command_line;
mod data;
mod demo;
mod hold;
mod init;
mod package;
mod survey;
