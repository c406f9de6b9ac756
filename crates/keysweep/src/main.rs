//! keysweep: reclaims the memory of expired keys in Redis and Valkey.

use std::process::ExitCode;

fn main() -> ExitCode {
    keysweep::cli::Cli::read().run().into()
}
