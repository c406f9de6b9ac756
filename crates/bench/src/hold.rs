//! The stale share of a server under churn, second by second: with its own expiry cycle alone, with what operators run against it
//! today, with scans at a steady interval, and with `keysweep hold`.

mod chart;
mod keeper;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use keysweep_harness::{Churn, Flavor, Server};
use serde::Serialize;

pub use chart::draw;
pub use keeper::Keeper;

use crate::{
    claim::Claim,
    foreground::Foreground,
    gauge::Gauge,
    results::{self, Machine},
    settings::Settings,
    spread::{Latency, Spread},
};

/// Name of this scenario in `KEYSWEEP_BENCH_ONLY`.
pub const NAME: &str = "hold";
/// Keys that are set a second, and the longest of their TTLs: some 200,000 keys live at a time.
pub const RATE: u64 = 10_000;
/// TTLs are from one second to this.
pub const LONGEST_TTL: Duration = Duration::from_secs(40);
/// The target of `keysweep hold`, and the share from which the interval of scans follows, 0–1.
pub const TARGET: f64 = 0.08;
/// How far the mean may lie above the target, 0–1.
const TOLERANCE: f64 = 0.005;
/// Time until as many keys expire as are set, and until the keeper has had its effect.
const SETTLE: Duration = LONGEST_TTL;
/// How often `keysweep hold` may back off in one round: on a machine that others use, cycles break its limits.
const MAX_BACKED_OFF: usize = 3;
/// Time that is measured, seconds.
const SECONDS: usize = 60;
/// Requests a second of the foreground, and the keys without TTL that it reads. They count as stale: a twentieth of a percent.
const FOREGROUND: (u64, u64) = (1_000, 100);

/// One keeper on one server.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// What kept the stale share down.
    pub keeper: Keeper,
    /// The mean stale share of each second by the client's own record, 0–1.
    pub shares: Vec<f64>,
    /// CPU of the server's main thread, as a share of a core, 0–1.
    pub server_cpu: f64,
    /// Latency of the foreground, microseconds.
    pub latency: Latency,
    /// How often the keeper gave up before it held, and began again with another server.
    pub backed_off: usize,
}

impl Run {
    /// Returns the mean stale share, 0–1.
    pub fn mean(&self) -> f64 {
        self.shares.iter().sum::<f64>() / self.shares.len().max(1) as f64
    }
}

/// All keepers on one server.
#[derive(Debug, Clone, Serialize)]
pub struct HeldServer {
    /// Engine and version.
    pub server: String,
    /// The rounds of each keeper, one round of all of them after the other.
    pub runs: Vec<Run>,
}

impl HeldServer {
    /// Returns the median of a quantity over the rounds of a keeper.
    pub fn median(&self, keeper: Keeper, quantity: impl Fn(&Run) -> f64) -> Option<f64> {
        Some(Spread::of(self.runs.iter().filter(|run| run.keeper == keeper).map(quantity))?.median)
    }

    /// Returns the claims about this server.
    pub fn claims(&self) -> Vec<Claim> {
        let hold = self.median(Keeper::Hold, Run::mean);
        let cpu = |keeper| self.median(keeper, |run: &Run| run.server_cpu);
        let added = cpu(Keeper::Hold).zip(cpu(Keeper::Nothing)).map(|(hold, nothing)| 100.0 * (hold - nothing));
        let p90 = |keeper| self.median(keeper, |run: &Run| run.latency.p90);
        let slower = p90(Keeper::Hold).zip(p90(Keeper::Nothing)).map(|(hold, nothing)| hold / nothing);
        let mut claims = vec![
            Claim::at_most("hold: mean stale share", hold.map(|share| 100.0 * share), 100.0 * (TARGET + TOLERANCE))
                .unit("%"),
            Claim::at_most("hold: CPU of the server beyond that with nothing running", added, 3.0).unit("% of a core"),
            Claim::at_most("hold: clients' p90 by that with nothing running", slower, 1.2),
        ];
        for rival in [Keeper::RedisCli, Keeper::Dcs100] {
            let ratio = hold.zip(self.median(rival, Run::mean)).map(|(hold, rival)| hold / rival);
            claims.push(Claim::at_most(
                format!("hold: mean stale share by that of {}", rival.title()),
                ratio,
                1.0 / 3.0,
            ));
        }
        claims
    }
}

/// The results of this scenario, as docs/benchmarks/hold.json holds them.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// Date of the run, UTC.
    pub date: String,
    /// The machine of the run.
    pub machine: Machine,
    /// Rounds of each keeper; the last one may be incomplete.
    pub rounds: usize,
    /// One entry per server.
    pub servers: Vec<HeldServer>,
}

/// Runs every keeper in every round, on all servers side by side, since each takes a part of a core. `save` is called after each
/// keeper.
pub fn run(settings: &Settings, save: impl Fn(&Held) -> Result<()>) -> Result<()> {
    let (date, machine) = (results::today(), Machine::here()?);
    let mut held = Held { date, machine, rounds: 0, servers: Vec::new() };
    let servers = settings.hold_servers.iter();
    held.servers = servers.map(|flavor| HeldServer { server: results::engine(*flavor), runs: Vec::new() }).collect();
    for round in 0..settings.hold_rounds {
        held.rounds = round + 1;
        let mut keepers = Keeper::ALL;
        // Each round in the other direction, since the speed of a machine drifts.
        if round % 2 == 1 {
            keepers.reverse();
        }
        for keeper in keepers {
            let runs: Vec<Result<Run>> = thread::scope(|scope| {
                let each = settings.hold_servers.iter().map(|flavor| scope.spawn(|| one(*flavor, keeper, settings)));
                let threads: Vec<_> = each.collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            for (server, run) in held.servers.iter_mut().zip(runs) {
                let run = run?;
                eprintln!(
                    "{} {keeper:?}: {:.1} % stale, {:.1} % of a core, p99 {:.0} µs",
                    server.server,
                    100.0 * run.mean(),
                    100.0 * run.server_cpu,
                    run.latency.p99
                );
                server.runs.push(run);
            }
            save(&held)?;
        }
    }
    Ok(())
}

fn one(flavor: Flavor, keeper: Keeper, settings: &Settings) -> Result<Run> {
    for backed_off in 0..=MAX_BACKED_OFF {
        if let Some(run) = attempt(flavor, keeper, settings)? {
            return Ok(Run { backed_off, ..run });
        }
    }
    bail!("keysweep hold has backed off {} times in a row", MAX_BACKED_OFF + 1)
}

/// Returns `None` where the keeper has backed off.
fn attempt(flavor: Flavor, keeper: Keeper, settings: &Settings) -> Result<Option<Run>> {
    let server = Server::start(flavor);
    let (rate, live) = FOREGROUND;
    let mut pipeline = redis::pipe();
    (0..live).for_each(|number| {
        pipeline.set(format!("live:{number}"), "v".repeat(settings.value_bytes)).ignore();
    });
    pipeline.exec(&mut server.connection())?;
    let churn = Churn::start(&server, RATE, LONGEST_TTL);
    thread::sleep(SETTLE);
    let Some(kept) = keeper.start(&server)? else { return Ok(None) };
    thread::sleep(SETTLE);
    let clients = Settings { rate, ..settings.with_live(live) };
    let foreground = Foreground::start(server.address(), &clients)?;
    let mut gauge = Gauge::new(&server);
    let (began, cpu) = (Instant::now(), gauge.cpu_seconds()?);
    let shares = (0..SECONDS).map(|_| churn.mean_share(&server, Duration::from_secs(1))).collect();
    let (ended, used) = (Instant::now(), gauge.cpu_seconds()? - cpu);
    let [histogram] = foreground.stop([(began, ended)])?;
    kept.stop()?;
    let server_cpu = used / (ended - began).as_secs_f64();
    Ok(Some(Run { keeper, shares, server_cpu, latency: Latency::from(&histogram), backed_off: 0 }))
}
