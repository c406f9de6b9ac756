//! The contestants: today's alternatives, keysweep at its paces, and the two ends of the scale, an idle server and the bare loop.

use std::{env, process::Command, sync::LazyLock};

use anyhow::{Context as _, Result};
use keysweep_harness::{Flavor, Server};

use crate::{child, outcome::Outcome, rival, settings::Settings};

/// Further settings of `keysweep scan`, as command-line options; `KEYSWEEP_BENCH_SETTINGS` replaces them. Slices without pauses between
/// them are fast, and clients wait for no more than one of them.
const SETTINGS: &str = "--pace max --max-slice 60; --pace max --max-slice 100; --pace max --max-slice 300";
/// Selects all of [`SETTINGS`] in `KEYSWEEP_BENCH_ONLY`.
const ALL_SETTINGS: &str = "settings";
/// COUNT of the bare loop if no scan at `max` was measured.
const BARE_COUNT: u64 = 1_000;

/// One contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// No scan: only the foreground clients.
    Idle,
    /// `redis-cli --scan`, COUNT 10.
    RedisCli,
    /// SCAN COUNT 1000 in a loop, as home-made scripts do it.
    Loop,
    /// SCAN COUNT 1000 every 5 ms.
    Dcs1000,
    /// SCAN COUNT 100 every 5 ms.
    Dcs100,
    /// `keysweep scan --pace …`.
    Pace(&'static str),
    /// `keysweep scan` with these options, see [`SETTINGS`].
    Setting(&'static str),
    /// SCAN in a loop that reads the replies and discards them.
    Bare,
}

/// All contestants, gentlest first. `max` precedes the bare loop, which uses the average COUNT of `max`.
static ALL: LazyLock<Vec<Contestant>> = LazyLock::new(|| {
    let settings = env::var("KEYSWEEP_BENCH_SETTINGS").unwrap_or_else(|_| SETTINGS.into()).leak();
    let settings = settings.split(';').map(str::trim).filter(|options| !options.is_empty());
    let rivals = [Contestant::Idle, Contestant::RedisCli, Contestant::Loop, Contestant::Dcs1000, Contestant::Dcs100];
    let paces = ["gentle", "normal", "fast"].map(Contestant::Pace);
    let fastest = [Contestant::Pace("max"), Contestant::Bare];
    rivals.into_iter().chain(paces).chain(settings.map(Contestant::Setting)).chain(fastest).collect()
});

impl Contestant {
    /// Returns the contestants that the settings select.
    pub fn wanted(settings: &Settings) -> Vec<Self> {
        let is_wanted = |contestant: &Self| match contestant {
            Self::Setting(_) => settings.wants(ALL_SETTINGS),
            _ => settings.wants(contestant.name()),
        };
        ALL.iter().copied().filter(is_wanted).collect()
    }

    /// Returns the name for `KEYSWEEP_BENCH_ONLY` (where all settings share one name), the JSON and the charts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::RedisCli => "redis-cli",
            Self::Loop => "loop-1000",
            Self::Dcs1000 => "dcs-1000",
            Self::Dcs100 => "dcs-100",
            Self::Pace(pace) => pace,
            Self::Setting(options) => options,
            Self::Bare => "bare",
        }
    }

    /// Returns the title for the tables, Markdown.
    pub fn title(self) -> String {
        match self {
            Self::Idle => "nothing running".into(),
            Self::RedisCli => "`redis-cli --scan`".into(),
            Self::Loop => "loop, COUNT 1000".into(),
            Self::Dcs1000 => "COUNT 1000 every 5 ms".into(),
            Self::Dcs100 => "COUNT 100 every 5 ms".into(),
            Self::Pace(pace) => format!("**keysweep {pace}**"),
            Self::Setting(options) => format!("**keysweep {options}**"),
            Self::Bare => "bare loop".into(),
        }
    }

    /// Returns the title as plain text.
    pub fn label(self) -> String {
        self.title().replace(['*', '`'], "")
    }

    /// Returns whether the contestant is keysweep.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Pace(_) | Self::Setting(_))
    }

    /// Returns whether the contestant is an alternative in use today.
    pub fn is_rival(self) -> bool {
        matches!(self, Self::RedisCli | Self::Loop | Self::Dcs1000 | Self::Dcs100)
    }

    /// Runs one complete scan. `max_count` is the average COUNT of the scan at `max`, if one was measured.
    pub fn run(self, server: &Server, max_count: Option<u64>) -> Result<Outcome> {
        match self {
            Self::Idle => rival::idle(),
            Self::RedisCli => redis_cli(server),
            Self::Loop => rival::scan_loop(server, 1_000, None),
            Self::Dcs1000 => rival::scan_loop(server, 1_000, Some(rival::DCS_INTERVAL)),
            Self::Dcs100 => rival::scan_loop(server, 100, Some(rival::DCS_INTERVAL)),
            Self::Pace(pace) => keysweep(server, &["--pace", pace]),
            Self::Setting(options) => keysweep(server, &options.split_whitespace().collect::<Vec<_>>()),
            Self::Bare => rival::bare_loop(server, max_count.unwrap_or(BARE_COUNT)),
        }
    }
}

fn redis_cli(server: &Server) -> Result<Outcome> {
    let binary = Flavor::Redis70.binary().with_file_name("redis-cli");
    let mut command = Command::new(binary);
    command.args(["-p", &server.port().to_string(), "--scan"]);
    Ok(Outcome::of_program(child::run(&mut command, false)?, None))
}

/// Runs `keysweep scan URL --json` with these options, using the binary that was built beside this one.
pub fn keysweep(server: &Server, options: &[&str]) -> Result<Outcome> {
    scan(&server.url(), options)
}

/// Does the same for a server that is known by its URL.
pub fn scan(url: &str, options: &[&str]) -> Result<Outcome> {
    let mut command = Command::new(child::keysweep()?);
    command.args(["scan", url, "--json"]).args(options);
    let finished = child::run(&mut command, true)?;
    let report = serde_json::from_slice(&finished.stdout).context("keysweep scan --json did not print a report")?;
    Ok(Outcome::of_program(finished, Some(report)))
}
