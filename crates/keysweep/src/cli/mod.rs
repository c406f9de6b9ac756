//! The command line: what can be typed, and which room answers.

mod admin;
mod autoscan;
mod client;
mod demo;
mod estimate;
mod exit;
mod instance;
mod login;
mod pages;
mod reach;
mod scan;
mod serve;
mod signals;
mod task;
mod term;

use clap::{CommandFactory, Parser, Subcommand};

pub use self::exit::Exit;
use crate::openapi;

/// Releases the memory that expired keys still hold in Redis and Valkey, gently, while clients go on.
#[derive(Debug, Parser)]
#[command(name = "keysweep", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sweep one server now and print what it did
    Scan(scan::ScanArgs),
    /// Say how much is dead, without releasing anything
    Estimate(estimate::EstimateArgs),
    /// Serve the API and carry out its tasks
    Serve(serve::ServeArgs),
    /// Carry out tasks without serving the API
    Worker(serve::WorkerArgs),
    /// Manage projects, users, access keys and instances in the store
    Admin(admin::AdminArgs),
    /// Create, watch, list and cancel scan tasks of a remote service
    Task(task::TaskArgs),
    /// Show the instances of a remote service
    Instance(instance::InstanceArgs),
    /// Show and set when a remote service sweeps an instance by itself
    Autoscan(autoscan::AutoscanArgs),
    /// Print the OpenAPI document of the API
    Openapi,
    /// Show the whole thing on a throwaway server of its own
    Demo(demo::DemoArgs),
    /// Print a script that completes commands and options in a shell
    Completions(pages::CompletionsArgs),
    /// Print the manual page
    Man(pages::ManArgs),
}

impl Cli {
    /// Does what was typed.
    pub fn run(self) -> Exit {
        match self.command {
            Command::Scan(args) => scan::run(args),
            Command::Estimate(args) => estimate::run(args),
            Command::Serve(args) => finish(serve::serve(args)),
            Command::Worker(args) => finish(serve::work(args)),
            Command::Admin(args) => finish(admin::run(args)),
            Command::Task(args) => task::run(&args),
            Command::Instance(args) => instance::run(&args),
            Command::Autoscan(args) => autoscan::run(&args),
            Command::Openapi => {
                term::pretty_json(&openapi::document());
                Exit::Done
            }
            Command::Demo(args) => finish(demo::run(args)),
            Command::Completions(args) => {
                pages::completions(&args, Self::command());
                Exit::Done
            }
            Command::Man(args) => finish(pages::man(&args, Self::command())),
        }
    }
}

fn finish(result: anyhow::Result<()>) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        Err(error) => {
            term::error(&format!("{error:#}"));
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
