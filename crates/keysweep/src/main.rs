//! keysweep: reclaims the memory of expired keys in Redis and Valkey.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    keysweep::cli::Cli::parse().run().into()
}
