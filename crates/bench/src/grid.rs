//! The grid from which the presets are chosen: CPU limits and pause limits, with backoff and without, beside the presets.

use std::sync::LazyLock;

use anyhow::Result;
use keysweep_harness::Flavor;

use crate::{
    contestant::Contestant,
    rounds::{self, Contest},
    settings::Settings,
};

/// Name of this scenario in `KEYSWEEP_BENCH_ONLY`.
pub const NAME: &str = "grid";
/// CPU limits with backoff, percent of the main thread.
const CPU_LIMITS: [u32; 4] = [25, 50, 75, 100];
/// CPU limits without it; below that only the time before the first slice differs.
const UNGUARDED: [u32; 1] = [100];
/// Pause limits, microseconds.
const PAUSE_LIMITS: [u32; 4] = [60, 100, 150, 250];
/// Settings below a tenth of the time, where only the pause limit differs.
const SLOW: [&str; 3] = ["--max-cpu 5 --max-slice 250", "--max-cpu 8 --max-slice 100", "--max-cpu 8 --max-slice 250"];
/// The presets that are compared with the grid. The last one, max, is the end of it.
const PRESETS: [&str; 3] = ["gentle", "normal", "fast"];

/// The settings of the grid, as options of `keysweep scan`.
static SETTINGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let guarded = CPU_LIMITS.map(|cpu| ("normal", cpu));
    // The pace max is the only one without backoff.
    let unguarded = UNGUARDED.map(|cpu| ("max", cpu));
    let limits = guarded.into_iter().chain(unguarded);
    let grid = limits
        .flat_map(|(pace, cpu)| PAUSE_LIMITS.map(|pause| format!("--pace {pace} --max-cpu {cpu} --max-slice {pause}")));
    SLOW.map(str::to_owned).into_iter().chain(grid).collect()
});

/// Runs the grid if the settings select it.
pub fn run(flavor: Flavor, settings: &Settings) -> Result<Vec<Contest>> {
    if !settings.wants(NAME) {
        return Ok(Vec::new());
    }
    let settings = Settings { rounds: settings.scenario_rounds, ..settings.clone() };
    let presets = PRESETS.map(Contestant::Pace);
    let grid = SETTINGS.iter().map(|options| Contestant::Setting(options));
    rounds::run(flavor, &settings, presets.into_iter().chain(grid).collect())
}
