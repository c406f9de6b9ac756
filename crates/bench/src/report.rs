//! Writes the results: the numbers as JSON, the charts, and the tables of the page.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    chart,
    hold::{self, Held},
    page,
    results::Results,
    settings::Settings,
};

/// Writes all files below `settings.out`.
pub fn write(results: &Results) -> Result<()> {
    let out = &results.settings.out;
    let charts = out.join("benchmarks");
    fs::create_dir_all(&charts).with_context(|| format!("{} cannot be made", charts.display()))?;
    fs::write(out.join("benchmarks.json"), serde_json::to_string_pretty(results)? + "\n")?;
    if results.servers.iter().any(|server| !server.contests.is_empty()) {
        chart::frontier(&charts.join("frontier.svg"), &results.servers)?;
        chart::cpu(&charts.join("cpu.svg"), &results.servers, results.settings.keys)?;
    }
    update(out, &page::parts(results))
}

/// Writes the results of the scenario hold, and leaves the others as they are.
pub fn write_held(settings: &Settings, held: &Held) -> Result<()> {
    let charts = settings.out.join("benchmarks");
    fs::create_dir_all(&charts).with_context(|| format!("{} cannot be made", charts.display()))?;
    fs::write(charts.join("hold.json"), serde_json::to_string_pretty(held)? + "\n")?;
    hold::draw(&charts.join("hold.svg"), &held.servers)?;
    update(&settings.out, &[page::held(held)])
}

fn update(out: &Path, parts: &[page::Part]) -> Result<()> {
    let path = out.join("benchmarks.md");
    let old = if path.exists() { fs::read_to_string(&path)? } else { page::empty() };
    fs::write(&path, page::updated(&old, parts)?)?;
    eprintln!("written: {}", path.display());
    Ok(())
}
