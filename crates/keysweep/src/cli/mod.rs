//! The command line: commands, and the modules that run them.

mod admin;
mod apply;
mod autoscan;
mod client;
mod columns;
mod connection;
mod demo;
mod estimate;
mod examples;
mod exit;
mod headings;
mod hold;
mod init;
mod instance;
mod listing;
mod login;
mod pages;
mod progress_text;
mod report;
mod restore;
mod scan;
mod serve;
mod signals;
mod survey;
mod task;
mod term;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use self::exit::Exit;
use crate::openapi;

/// The version; release builds add commit and date.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("KEYSWEEP_COMMIT"));

/// Reclaims the memory of expired keys in Redis and Valkey while clients keep running
#[derive(Debug, Parser)]
#[command(name = "keysweep", version = VERSION, max_term_width = 100)]
pub struct Cli {
    /// When to color the output; NO_COLOR disables it as well
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "always", "never"], global = true)]
    color: String,
    /// Print results and errors only, without progress and notes
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Print more: each request to a service, and limits and latencies of a scan
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Scan one target now and print a report; with --all or -l, instances of a service
    Scan(scan::ScanArgs),
    /// Estimate the share of stale keys; a sample reclaims those it meets
    Estimate(estimate::EstimateArgs),
    /// Estimate many targets, and say what to do about each
    Survey(survey::SurveyArgs),
    /// Hold the stale share of a target below a percentage, until interrupted
    Hold(hold::HoldArgs),
    /// Restore the settings of servers that were changed to hold their stale share
    Restore(restore::RestoreArgs),
    /// Create project, administrator, access key and first instance of a new installation
    Init(init::InitArgs),
    /// Serve the API and run its tasks
    Serve(serve::ServeArgs),
    /// Run tasks without serving the API
    Worker(serve::WorkArgs),
    /// Manage projects, users, access keys and instances in the store
    Admin(admin::AdminArgs),
    /// Create, watch, list and cancel scan tasks of a service
    Task(task::TaskArgs),
    /// Show the instances of a service
    Instance(instance::InstanceArgs),
    /// Add, change and remove instances of a service, as an inventory lists them
    Apply(apply::ApplyArgs),
    /// List, show and set the auto-scans of the instances of a service
    Autoscan(autoscan::AutoscanArgs),
    /// Print the OpenAPI document of the API
    Openapi,
    /// Demonstrate a scan on a disposable server
    Demo(demo::DemoArgs),
    /// Print a shell completion script
    Completions(pages::CompletionsArgs),
    /// Print the manual page
    Man(pages::ManArgs),
}

impl Cli {
    /// Reads the command line of this process. Ends the process after an error, a help text or the version.
    pub fn read() -> Self {
        let matches = Self::with_help().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Returns the commands with what their help texts have beside their options.
    fn with_help() -> clap::Command {
        examples::add(headings::group(Self::command()))
    }

    /// Runs the command and returns its exit code.
    pub fn run(self) -> Exit {
        term::configure(&self.color, self.quiet, self.verbose);
        match self.command {
            Command::Scan(args) => scan::run(args),
            Command::Estimate(args) => estimate::run(args),
            Command::Survey(args) => survey::run(&args),
            Command::Hold(args) => hold::run(&args),
            Command::Restore(args) => restore::run(&args),
            Command::Init(args) => finish(init::run(args)),
            Command::Serve(args) => finish(serve::serve(args)),
            Command::Worker(args) => finish(serve::work(args)),
            Command::Admin(args) => finish(admin::run(args)),
            Command::Task(args) => task::run(&args),
            Command::Instance(args) => instance::run(&args),
            Command::Apply(args) => apply::run(&args),
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
            Command::Man(args) => finish(pages::man(&args, Self::with_help())),
        }
    }
}

fn finish(result: anyhow::Result<()>) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        Err(error) => {
            term::error(&format!("{error:#}"));
            Exit::from(&error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `see` with a command and all below it, each with the words that call it.
    pub fn each(command: &clap::Command, path: &str, see: &mut impl FnMut(&clap::Command, &str)) {
        see(command, path);
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            each(below, format!("{path} {}", below.get_name()).trim(), see);
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
