//! The two charts of docs/benchmarks.md.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    contestant::Contestant,
    results::ServerResults,
    rounds::{Contest, Measurement},
};

const OURS: RGBColor = RGBColor(0, 110, 90);
const RIVAL: RGBColor = RGBColor(200, 80, 30);
const OTHER: RGBColor = RGBColor(110, 110, 110);
const FONT: &str = "sans-serif";
/// Width and height of one server's panel, pixels.
const PANEL: (u32, u32) = (900, 420);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws wall time against added p90: one panel per server, one point per contestant.
pub fn frontier(path: &Path, servers: &[ServerResults]) -> Result<()> {
    panels(path, servers, frontier_panel)
}

/// Draws server CPU per key: one panel per server, one bar per contestant.
pub fn cpu(path: &Path, servers: &[ServerResults], keys: u64) -> Result<()> {
    panels(path, servers, |area, server| cpu_panel(area, server, keys))
}

fn panels(path: &Path, servers: &[ServerResults], draw: impl Fn(&Area, &ServerResults) -> Result<()>) -> Result<()> {
    let servers: Vec<&ServerResults> = servers.iter().filter(|server| !server.contests.is_empty()).collect();
    let root = SVGBackend::new(path, (PANEL.0, PANEL.1 * u32::try_from(servers.len())?)).into_drawing_area();
    root.fill(&WHITE).map_err(drawing)?;
    for (area, server) in root.split_evenly((servers.len(), 1)).iter().zip(servers) {
        draw(area, server)?;
    }
    root.present().map_err(drawing)
}

/// Returns the medians of a contest: wall time in seconds and added p90 in microseconds.
fn point(contest: &Contest) -> Option<(f64, f64)> {
    Some((contest.median(|run| run.wall)?, contest.median(|run| run.added_p90)?.max(FLOOR)))
}

/// Least added p90 that is drawn, microseconds: the axis is logarithmic, and smaller values are noise.
const FLOOR: f64 = 1.0;

fn frontier_panel(area: &Area, server: &ServerResults) -> Result<()> {
    let contests: Vec<&Contest> = busy(server).collect();
    let points: Vec<(f64, f64)> = contests.iter().filter_map(|contest| point(contest)).collect();
    let max = |axis: fn(&(f64, f64)) -> f64| points.iter().map(axis).fold(FLOOR, f64::max);
    let min = points.iter().map(|point| point.0).fold(f64::MAX, f64::min);
    let (right, top) = (max(|point| point.0) * 4.0, max(|point| point.1) * 2.0);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: shorter and gentler is down and left", server.server), (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((min * 0.7..right).log_scale(), (FLOOR * 0.8..top).log_scale())
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("wall time, s")
        .y_desc("added p90, µs (1: none)")
        .label_style((FONT, 13))
        .draw()
        .map_err(drawing)?;
    for (contest, (wall, added)) in contests.iter().zip(points) {
        let color = color(contest.contestant);
        let label = (FONT, 13).into_font().color(&color).pos(Pos::new(HPos::Left, VPos::Center));
        let text = Text::new(contest.contestant.label(), (10, 0), label);
        let dot = Circle::new((0, 0), 5, color.filled());
        chart.draw_series([EmptyElement::at((wall, added)) + dot + text]).map_err(drawing)?;
    }
    Ok(())
}

fn cpu_panel(area: &Area, server: &ServerResults, keys: u64) -> Result<()> {
    let per_key = |run: &Measurement| run.server_cpu * 1e6 / keys as f64;
    let bars: Vec<(&Contest, f64)> =
        busy(server).filter_map(|contest| Some((contest, contest.median(per_key)?))).collect();
    let rows = bars.len() as f64;
    let max = bars.iter().map(|bar| bar.1).fold(0.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: server CPU per key, µs", server.server), (FONT, 18))
        .margin(12)
        .margin_left(210)
        .x_label_area_size(30)
        .build_cartesian_2d(0.0..max, rows..0.0)
        .map_err(drawing)?;
    chart.configure_mesh().disable_y_mesh().disable_y_axis().label_style((FONT, 13)).draw().map_err(drawing)?;
    for (row, (contest, value)) in bars.iter().enumerate() {
        let (color, top) = (color(contest.contestant), row as f64);
        let bar = Rectangle::new([(0.0, top + 0.15), (*value, top + 0.85)], color.filled());
        chart.draw_series([bar]).map_err(drawing)?;
        let style = |side| (FONT, 13).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center));
        let name = Text::new(contest.contestant.label(), (-8, 0), style(HPos::Right));
        let figure =
            EmptyElement::at((*value, top + 0.5)) + Text::new(format!("{value:.2}"), (6, 0), style(HPos::Left));
        chart.draw_series([EmptyElement::at((0.0, top + 0.5)) + name]).map_err(drawing)?;
        chart.draw_series([figure]).map_err(drawing)?;
    }
    Ok(())
}

fn busy(server: &ServerResults) -> impl Iterator<Item = &Contest> {
    server.contests.iter().filter(|contest| contest.contestant != Contestant::Idle && !contest.rounds.is_empty())
}

fn color(contestant: Contestant) -> RGBColor {
    match contestant {
        contestant if contestant.is_ours() => OURS,
        contestant if contestant.is_rival() => RIVAL,
        _ => OTHER,
    }
}

/// Converts a drawing error, which borrows the backend and cannot be returned as it is.
fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing a chart: {error}")
}
