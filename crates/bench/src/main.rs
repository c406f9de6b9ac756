//! The benchmark: keysweep against what people use today, on real servers. See docs/benchmarks.md.

mod chart;
mod child;
mod claims;
mod contestant;
mod duty;
mod foreground;
mod gauge;
mod guard;
mod page;
mod pressure;
mod report;
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
