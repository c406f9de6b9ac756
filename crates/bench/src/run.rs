//! A complete run: every selected server and scenario in turn.

use anyhow::{Context as _, Result};

use crate::{
    backoff,
    claims::claims,
    contestant::Contestant,
    cpu_limit, grid, pressure,
    results::{self, Machine, Results, ServerResults},
    rounds,
    settings::Settings,
};

/// Runs all selected scenarios. `save` is called after each of them, since a run takes long and may fail in its last part.
pub fn run(settings: Settings, save: impl Fn(&Results) -> Result<()>) -> Result<()> {
    let mut results =
        Results { date: results::today(), machine: Machine::here()?, settings: settings.clone(), servers: Vec::new() };
    for flavor in settings.servers.iter().copied() {
        results.servers.push(ServerResults {
            server: results::engine(flavor),
            contests: Vec::new(),
            grid: Vec::new(),
            cpu_limits: Vec::new(),
            backoff: None,
            pressure: None,
            claims: Vec::new(),
        });
        let mut record = |measure: &dyn Fn(&mut ServerResults) -> Result<()>| {
            let server = results.servers.last_mut().context("one was just added")?;
            measure(server)?;
            server.claims = claims(server);
            save(&results)
        };
        let contestants = Contestant::wanted(&settings);
        record(&|server| {
            rounds::run(flavor, &settings, contestants.clone()).map(|contests| server.contests = contests)
        })?;
        record(&|server| grid::run(flavor, &settings).map(|grid| server.grid = grid))?;
        record(&|server| cpu_limit::run(flavor, &settings).map(|limits| server.cpu_limits = limits))?;
        record(&|server| backoff::run(flavor, &settings).map(|backoff| server.backoff = backoff))?;
        record(&|server| pressure::run(flavor, &settings).map(|pressure| server.pressure = pressure))?;
    }
    Ok(())
}
