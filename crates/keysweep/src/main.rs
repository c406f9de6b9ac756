//! keysweep: releases the memory that expired keys still hold in Redis and Valkey.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    keysweep::cli::Cli::parse().run().into()
}
