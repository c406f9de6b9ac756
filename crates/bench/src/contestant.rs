//! Who is measured: what people use today, keysweep's paces, and the two ends of the scale, nothing and the bare loop.

use std::{env, process::Command, sync::LazyLock, time::Instant};

use anyhow::{Context as _, Result};
use keysweep_engine::Report;
use keysweep_harness::{Flavor, Server};

use crate::{child, rival, settings::Settings};

/// Settings of `keysweep scan` beside its paces, options each; `KEYSWEEP_BENCH_SETTINGS` tries others. Long slices are cheap, and
/// where they take a few hundredths of the time p90 does not see them; without pauses, but short, they are quick at a p90 below `max`'s.
const SETTINGS: &str = "--duty 2 --max-slice 1000; --duty 4 --max-slice 1000; --pace max --max-slice 300";
/// The name of all of them in `KEYSWEEP_BENCH_ONLY`.
const ALL_SETTINGS: &str = "settings";
/// COUNT of the bare loop where no sweep at `max` says which.
const BARE_COUNT: u64 = 1_000;

/// One contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// Nothing runs.
    Idle,
    /// `redis-cli --scan`, COUNT 10.
    RedisCli,
    /// SCAN COUNT 1000 in a loop, as people write it.
    Loop,
    /// SCAN COUNT 1000 every 5 ms.
    Dcs1000,
    /// SCAN COUNT 100 every 5 ms.
    Dcs100,
    /// `keysweep scan --pace …`.
    Pace(&'static str),
    /// `keysweep scan` with a setting of its own, see [`SETTINGS`].
    Setting(&'static str),
    /// SCAN in a loop that reads the bytes and does nothing else.
    Bare,
}

/// Gentlest to fastest; `max` stands before the bare loop, which takes its COUNT.
static ALL: LazyLock<Vec<Contestant>> = LazyLock::new(|| {
    let settings = env::var("KEYSWEEP_BENCH_SETTINGS").unwrap_or_else(|_| SETTINGS.into()).leak();
    let settings = settings.split(';').map(str::trim).filter(|options| !options.is_empty());
    let rivals = [Contestant::Idle, Contestant::RedisCli, Contestant::Loop, Contestant::Dcs1000, Contestant::Dcs100];
    let paces = ["gentle", "normal", "fast"].map(Contestant::Pace);
    let fastest = [Contestant::Pace("max"), Contestant::Bare];
    rivals.into_iter().chain(paces).chain(settings.map(Contestant::Setting)).chain(fastest).collect()
});

/// What one run of a contestant did.
pub struct Run {
    /// When it began.
    pub began: Instant,
    /// Seconds to its end.
    pub wall: f64,
    /// CPU that it used itself, seconds.
    pub own_cpu: f64,
    /// Most memory that it held, bytes.
    pub peak_rss: Option<u64>,
    /// keysweep's own report.
    pub report: Option<Report>,
}

impl Contestant {
    /// Those that a run is to measure.
    pub fn wanted(settings: &Settings) -> Vec<Self> {
        let is_wanted = |contestant: &Self| match contestant {
            Self::Setting(_) => settings.wants(ALL_SETTINGS),
            _ => settings.wants(contestant.name()),
        };
        ALL.iter().copied().filter(is_wanted).collect()
    }

    /// Its name in `KEYSWEEP_BENCH_ONLY` (but settings have one together), in the JSON and in the charts.
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

    /// What it is, for the tables.
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

    /// The same as plain text.
    pub fn label(self) -> String {
        self.title().replace(['*', '`'], "")
    }

    /// Whether it is keysweep.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Pace(_) | Self::Setting(_))
    }

    /// Whether it is what people use today.
    pub fn is_rival(self) -> bool {
        matches!(self, Self::RedisCli | Self::Loop | Self::Dcs1000 | Self::Dcs100)
    }

    /// Runs it to its end. `max_count` is the COUNT that the sweep at `max` used on average.
    pub fn run(self, server: &Server, max_count: Option<u64>) -> Result<Run> {
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

fn redis_cli(server: &Server) -> Result<Run> {
    let binary = Flavor::Redis70.binary().with_file_name("redis-cli");
    let mut command = Command::new(binary);
    command.args(["-p", &server.port().to_string(), "--scan"]);
    Ok(Run::of(child::run(&mut command, false)?, None))
}

/// `keysweep scan URL --json` with these options, the binary that was built beside this one.
pub fn keysweep(server: &Server, options: &[&str]) -> Result<Run> {
    let binary = env::current_exe()?.with_file_name("keysweep");
    let mut command = Command::new(binary);
    command.args(["scan", &server.url(), "--json"]).args(options);
    let ended = child::run(&mut command, true)?;
    let report = serde_json::from_slice(&ended.stdout).context("keysweep scan --json printed something else")?;
    Ok(Run::of(ended, Some(report)))
}

impl Run {
    fn of(ended: child::Ended, report: Option<Report>) -> Self {
        Self { began: ended.began, wall: ended.wall, own_cpu: ended.cpu, peak_rss: ended.peak_rss, report }
    }
}
