//! Who is measured: what people use today, keysweep's paces, and the two ends of the scale, nothing and the bare loop.

use std::{env, process::Command, time::Instant};

use anyhow::{Context as _, Result};
use keysweep_engine::Report;
use keysweep_harness::{Flavor, Server};

use crate::{child, rival};

/// The setting that is meant to be faster than `redis-cli --scan` at a p90 no higher; `KEYSWEEP_BENCH_FINE` tries another.
const FINE: &str = "--duty 9 --max-slice 500";
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
    /// `keysweep scan` with a setting of its own, see [`FINE`].
    Fine,
    /// SCAN in a loop that reads the bytes and does nothing else.
    Bare,
}

/// Gentlest to fastest; `max` stands before the bare loop, which takes its COUNT.
pub const ALL: [Contestant; 11] = [
    Contestant::Idle,
    Contestant::RedisCli,
    Contestant::Loop,
    Contestant::Dcs1000,
    Contestant::Dcs100,
    Contestant::Pace("gentle"),
    Contestant::Pace("normal"),
    Contestant::Pace("fast"),
    Contestant::Fine,
    Contestant::Pace("max"),
    Contestant::Bare,
];

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
    /// Its name in `KEYSWEEP_BENCH_ONLY`, in the JSON and in the charts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::RedisCli => "redis-cli",
            Self::Loop => "loop-1000",
            Self::Dcs1000 => "dcs-1000",
            Self::Dcs100 => "dcs-100",
            Self::Pace(pace) => pace,
            Self::Fine => "fine",
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
            Self::Fine => format!("**keysweep {}**", fine()),
            Self::Bare => "bare loop".into(),
        }
    }

    /// The same as plain text.
    pub fn label(self) -> String {
        self.title().replace(['*', '`'], "")
    }

    /// Whether it is keysweep.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Pace(_) | Self::Fine)
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
            Self::Fine => keysweep(server, &fine().split_whitespace().collect::<Vec<_>>()),
            Self::Bare => rival::bare_loop(server, max_count.unwrap_or(BARE_COUNT)),
        }
    }
}

fn fine() -> String {
    env::var("KEYSWEEP_BENCH_FINE").unwrap_or_else(|_| FINE.into())
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
