//! The two charts of docs/benchmarks.md.

use std::path::Path;

use anyhow::Result;

use crate::{
    contestant::Contestant,
    labels::{self, Area},
    results::ServerResults,
    rounds::{Contest, Measurement},
    svg::{Anchor, Picture},
};

/// Width of a chart and height of the panel of one server, pixels.
const PANEL: (f64, f64) = (900.0, 420.0);
/// Space for axes around the points of a panel, pixels: left, above, right, below.
const MARGINS: (f64, f64, f64, f64) = (64.0, 44.0, 16.0, 52.0);
/// Least added p90 that is drawn, microseconds: the axis is logarithmic, and smaller values are noise.
const FLOOR: f64 = 3.0;
/// Height of a bar with its space, and where bars begin, pixels.
const BAR: (f64, f64) = (24.0, 330.0);

/// Draws what clients feel: wall time against added p90, a panel for each server, a point for each contestant.
pub fn frontier(path: &Path, servers: &[ServerResults]) -> Result<()> {
    let servers = charted(servers);
    let mut picture = Picture::new(PANEL.0, PANEL.1 * servers.len() as f64);
    for (index, server) in servers.iter().enumerate() {
        frontier_panel(&mut picture, PANEL.1 * index as f64, server);
    }
    picture.write(path, "Wall time of a scan against the latency that it adds for clients")
}

/// Draws server CPU per key: a panel for each server, a bar for each contestant.
pub fn cpu(path: &Path, servers: &[ServerResults], keys: u64) -> Result<()> {
    let servers = charted(servers);
    let heights: Vec<f64> = servers.iter().map(|server| 60.0 + BAR.0 * busy(server).count() as f64).collect();
    let mut picture = Picture::new(PANEL.0, heights.iter().sum());
    let mut top = 0.0;
    for (server, height) in servers.into_iter().zip(heights) {
        cpu_panel(&mut picture, top, server, keys);
        top += height;
    }
    picture.write(path, "CPU of the server's main thread for each key")
}

fn charted(servers: &[ServerResults]) -> Vec<&ServerResults> {
    servers.iter().filter(|server| !server.contests.is_empty()).collect()
}

/// A logarithmic axis: values from `from` to `to` at pixels from `start` to `end`.
#[derive(Debug, Clone, Copy)]
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn at(self, value: f64) -> f64 {
        let share = (value.max(self.from) / self.from).ln() / (self.to / self.from).ln();
        self.start + (self.end - self.start) * share
    }

    /// Returns 1, 2 and 5 of each power of ten within the axis.
    fn ticks(self) -> Vec<f64> {
        let powers = (-3..6).map(|power| 10f64.powi(power));
        let ticks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * power));
        ticks.filter(|tick| (self.from..=self.to).contains(tick)).collect()
    }
}

fn frontier_panel(picture: &mut Picture, top: f64, server: &ServerResults) {
    let points: Vec<(&Contest, f64, f64)> = busy(server).filter_map(point).collect();
    let (left, above, right, below) = MARGINS;
    let area = Area { x: left, y: top + above, width: PANEL.0 - left - right, height: PANEL.1 - above - below };
    let most = |value: fn(&(&Contest, f64, f64)) -> f64| points.iter().map(value).fold(FLOOR, f64::max);
    let least = points.iter().map(|point| point.1).fold(f64::MAX, f64::min);
    let (bottom, end) = (area.y + area.height, area.x + area.width);
    let walls = Axis { from: least * 0.6, to: most(|point| point.1) * 2.2, start: area.x, end };
    let added = Axis { from: FLOOR * 0.7, to: most(|point| point.2) * 1.6, start: bottom, end: area.y };
    let title = format!("{}: shorter is left, gentler is down", server.server);
    picture.text("title", (PANEL.0 / 2.0, top + 22.0), Anchor::Middle, &title);
    for (class, text, x) in
        [("ours", "keysweep", 730.0), ("rival", "alternatives", 815.0), ("other", "bare loop", 884.0)]
    {
        picture.text(class, (x, top + 24.0), Anchor::End, text);
    }
    for tick in walls.ticks() {
        let x = walls.at(tick);
        picture.line("grid", (x, area.y), (x, bottom));
        picture.text("lesser", (x, bottom + 14.0), Anchor::Middle, &tick.to_string());
    }
    for tick in added.ticks() {
        let y = added.at(tick);
        picture.line("grid", (area.x, y), (end, y));
        picture.text("lesser", (area.x - 8.0, y), Anchor::End, &tick.to_string());
    }
    picture.text("lesser", (area.x + area.width / 2.0, bottom + 34.0), Anchor::Middle, "wall time, s");
    let axis = format!("added p90, µs ({FLOOR:.0}: that or less)");
    picture.text("lesser", (8.0, top + 24.0), Anchor::Start, &axis);
    let labels: Vec<((f64, f64), String)> = points
        .iter()
        .map(|(contest, wall, micros)| ((walls.at(*wall), added.at(*micros)), short(contest.contestant)))
        .collect();
    let places = labels::place(&labels, area);
    for ((at, _), place) in labels.iter().zip(&places) {
        let nearest = place.nearest(*at);
        if (nearest.0 - at.0).hypot(nearest.1 - at.1) > 14.0 {
            picture.line("leader", *at, nearest);
        }
    }
    // Above the lines, which may cross a text.
    for (((at, text), place), (contest, ..)) in labels.iter().zip(&places).zip(&points) {
        let class = class(contest.contestant);
        picture.point(class, *at);
        picture.text(class, (place.x, place.y + labels::HEIGHT / 2.0), Anchor::Start, text);
    }
}

/// Returns the label of a contestant; the colour shows which ones are keysweep.
fn short(contestant: Contestant) -> String {
    let label = contestant.label();
    let label = label.strip_prefix("keysweep ").unwrap_or(&label);
    label.strip_prefix("--pace ").unwrap_or(label).to_owned()
}

/// Returns the medians of a contest: wall time in seconds and added p90 in microseconds.
fn point(contest: &Contest) -> Option<(&Contest, f64, f64)> {
    Some((contest, contest.median(|run| run.wall)?, contest.median(|run| run.added_p90)?.max(FLOOR)))
}

fn cpu_panel(picture: &mut Picture, top: f64, server: &ServerResults, keys: u64) {
    let per_key = |run: &Measurement| run.server_cpu * 1e6 / keys as f64;
    let bars: Vec<(&Contest, f64)> =
        busy(server).filter_map(|contest| Some((contest, contest.median(per_key)?))).collect();
    let most = bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
    let title = format!("{}: server CPU per key, µs", server.server);
    picture.text("title", (PANEL.0 / 2.0, top + 24.0), Anchor::Middle, &title);
    for (row, (contest, value)) in bars.into_iter().enumerate() {
        let middle = top + 44.0 + BAR.0 * (row as f64 + 0.5);
        let length = (PANEL.0 - BAR.1 - 70.0) * (value / most).max(0.0);
        let class = class(contest.contestant);
        picture.text("", (BAR.1 - 10.0, middle), Anchor::End, &contest.contestant.label());
        picture.rectangle(class, (BAR.1, middle - 8.0), (length, 16.0));
        picture.text("lesser", (BAR.1 + length + 8.0, middle), Anchor::Start, &format!("{value:.2}"));
    }
}

fn busy(server: &ServerResults) -> impl Iterator<Item = &Contest> {
    server.contests.iter().filter(|contest| contest.contestant != Contestant::Idle && !contest.rounds.is_empty())
}

fn class(contestant: Contestant) -> &'static str {
    match contestant {
        contestant if contestant.is_ours() => "ours",
        contestant if contestant.is_rival() => "rival",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_a_tick_at_each_round_value() {
        let axis = Axis { from: 0.13, to: 40.0, start: 64.0, end: 884.0 };
        assert_eq!(axis.ticks(), [0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!((axis.at(0.13), axis.at(40.0), axis.at(0.01)), (64.0, 884.0, 64.0));
    }
}
