//! The benchmark: keysweep against today's alternatives, on real servers. See docs/benchmarks.md.

mod backoff;
mod chart;
mod child;
mod claim;
mod claims;
mod contestant;
mod cpu_limit;
mod foreground;
mod gauge;
mod outcome;
mod page;
mod pressure;
mod report;
mod results;
mod rival;
mod rounds;
mod run;
mod saturation;
mod settings;
mod spread;
mod wire;

fn main() -> anyhow::Result<()> {
    let settings = settings::Settings::from_environment()?;
    run::run(settings, report::write)
}
