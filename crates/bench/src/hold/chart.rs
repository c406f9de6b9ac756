//! The chart of the stale share over time: a panel for each server, a line for each keeper, and what it costs beside.

use std::path::Path;

use anyhow::Result;

use crate::svg::{Anchor, Picture};

use super::{HeldServer, Keeper, Run, TARGET};

/// Width of the chart and height of the panel of one server, pixels.
const PANEL: (f64, f64) = (940.0, 340.0);
/// Space around the lines of a panel, pixels: left, above, right (for the labels), below.
const MARGINS: (f64, f64, f64, f64) = (52.0, 44.0, 320.0, 48.0);
/// Least distance between two labels of two lines, and between these lines, pixels.
const LABEL: f64 = 36.0;
const LINE: f64 = 15.0;

/// Draws the last round of each keeper. The figures of the labels are medians of all rounds.
pub fn draw(path: &Path, servers: &[HeldServer]) -> Result<()> {
    let mut picture = Picture::new(PANEL.0, PANEL.1 * servers.len() as f64);
    for (index, server) in servers.iter().enumerate() {
        panel(&mut picture, PANEL.1 * index as f64, server);
    }
    picture.write(path, "Stale share of a server under churn over a minute, by what keeps it down")
}

fn panel(picture: &mut Picture, top: f64, server: &HeldServer) {
    let (left, above, right, below) = MARGINS;
    let (width, height) = (PANEL.0 - left - right, PANEL.1 - above - below);
    let last = Keeper::ALL.map(|keeper| server.runs.iter().rfind(|run| run.keeper == keeper));
    let runs: Vec<&Run> = last.into_iter().flatten().collect();
    let highest = runs.iter().flat_map(|run| &run.shares).fold(0.1, |highest: f64, share| highest.max(*share));
    let most = (highest * 10.0).ceil() / 10.0;
    let y = |share: f64| top + above + height * (1.0 - share / most);
    let seconds = runs.iter().map(|run| run.shares.len()).max().unwrap_or(1);
    let x = |second: usize| left + width * second as f64 / (seconds.max(2) - 1) as f64;
    picture.text("title", (left, top + 22.0), Anchor::Start, &format!("{}: stale share of all keys", server.server));
    for tenth in 0..=(most * 10.0).round() as u32 {
        let share = f64::from(tenth) / 10.0;
        picture.line("grid", (left, y(share)), (left + width, y(share)));
        picture.text("lesser", (left - 8.0, y(share)), Anchor::End, &format!("{} %", tenth * 10));
    }
    for second in (0..seconds).step_by(10) {
        picture.text("lesser", (x(second), top + above + height + 16.0), Anchor::Middle, &format!("{second} s"));
    }
    picture.line("leader", (left, y(TARGET)), (left + width, y(TARGET)));
    let ends: Vec<f64> = runs.iter().map(|run| y(run.shares.last().copied().unwrap_or_default())).collect();
    let room = (top + above, top + above + height - LINE);
    for ((run, end), label) in runs.iter().zip(&ends).zip(apart(&ends, room)) {
        let points: Vec<(f64, f64)> =
            run.shares.iter().enumerate().map(|(second, share)| (x(second), y(*share))).collect();
        let class = match run.keeper {
            Keeper::Hold | Keeper::AutoScan => "ours",
            Keeper::Nothing => "other",
            Keeper::RedisCli | Keeper::Dcs100 => "rival",
        };
        let dashed = if matches!(run.keeper, Keeper::AutoScan | Keeper::Dcs100) { " dashed" } else { "" };
        picture.polyline(&format!("{class}{dashed}"), &points);
        picture.line("leader", (left + width, *end), (left + width + 10.0, label));
        let median = |quantity: fn(&Run) -> f64| server.median(run.keeper, quantity).unwrap_or_default();
        let mean = format!("{}: {:.1} %", run.keeper.title(), 100.0 * median(Run::mean));
        let (cpu, p99) = (100.0 * median(|run| run.server_cpu), median(|run| run.latency.p99) / 1e3);
        let cost = format!("server {cpu:.1} % of a core, clients' p99 {p99:.2} ms");
        picture.text(class, (left + width + 14.0, label), Anchor::Start, &mean);
        picture.text("lesser", (left + width + 14.0, label + LINE), Anchor::Start, &cost);
    }
}

/// Returns heights for labels near these, none of them closer to another one than its text is high, in their order.
fn apart(heights: &[f64], (top, bottom): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|one, other| heights[*one].total_cmp(&heights[*other]));
    let mut places = vec![0.0; heights.len()];
    let mut free = top;
    for index in &order {
        places[*index] = heights[*index].max(free);
        free = places[*index] + LABEL;
    }
    // What was pushed beyond the end moves back up.
    let mut limit = bottom;
    for index in order.iter().rev() {
        places[*index] = places[*index].min(limit);
        limit = places[*index] - LABEL;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_apart_and_stay_in_the_panel() {
        let heights = [200.0, 201.0, 40.0, 202.0, 199.0];
        let places = apart(&heights, (40.0, 210.0));
        let mut sorted = places.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= LABEL - 1e-9), "{places:?}");
        assert!(sorted.iter().all(|place| (39.0..=210.0).contains(place)), "{places:?}");
        assert_eq!(apart(&[50.0, 90.0], (0.0, 100.0)), [50.0, 90.0], "no nearer than they have to be");
    }
}
