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
mod grid;
mod hold;
mod labels;
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
mod svg;
mod wire;

fn main() -> anyhow::Result<()> {
    let settings = settings::Settings::from_environment()?;
    if settings.only != [hold::NAME] {
        run::run(settings.clone(), report::write)?;
    }
    if settings.wants(hold::NAME) {
        hold::run(&settings, |held| report::write_held(&settings, held))?;
    }
    Ok(())
}
