//! A complete run: every selected server and scenario in turn.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{
    backoff,
    claims::claims,
    cpu_limit, pressure,
    results::{Machine, Results, ServerResults},
    rounds,
    settings::Settings,
};

/// Runs all selected scenarios. `save` is called after each of them, since a run takes long and may fail in its last part.
pub fn run(settings: Settings, save: impl Fn(&Results) -> Result<()>) -> Result<()> {
    let machine = Machine { cores: std::thread::available_parallelism()?.get(), memory: memory()? };
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut results = Results { date, machine, settings: settings.clone(), servers: Vec::new() };
    for flavor in settings.servers.iter().copied() {
        let engine = if flavor.is_valkey() { "Valkey" } else { "Redis" };
        results.servers.push(ServerResults {
            server: format!("{engine} {}", flavor.version()),
            contests: Vec::new(),
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
        record(&|server| rounds::run(flavor, &settings).map(|contests| server.contests = contests))?;
        record(&|server| cpu_limit::run(flavor, &settings).map(|limits| server.cpu_limits = limits))?;
        record(&|server| backoff::run(flavor, &settings).map(|backoff| server.backoff = backoff))?;
        record(&|server| pressure::run(flavor, &settings).map(|pressure| server.pressure = pressure))?;
    }
    Ok(())
}

fn memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("/proc/meminfo has no MemTotal")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
