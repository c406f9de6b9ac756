//! A bar chart of the memory that the last scans reclaimed, drawn on the server, so that it needs no script.

use super::{format, status::Badge};
use crate::units;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 120.0;
/// Gap between two bars, as a share of a bar's slot.
const GAP: f64 = 0.25;
/// Widest bar, so that a single scan does not fill the page.
const MAX_WIDTH: f64 = 36.0;
/// Lowest bar, so that a scan that reclaimed nothing is visible.
const MIN_HEIGHT: f64 = 2.0;

/// A finished scan.
pub(super) struct Run {
    pub(super) started: String,
    pub(super) bytes_reclaimed: u64,
    pub(super) keys_reclaimed: u64,
    pub(super) result: Badge,
}

/// A chart with a bar per scan, from the oldest to the newest.
pub(super) struct Chart {
    pub(super) bars: Vec<Bar>,
    /// Size that the full height stands for.
    pub(super) most: String,
    /// The chart in a sentence, for screen readers.
    pub(super) summary: String,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A bar of the chart, in SVG coordinates.
pub(super) struct Bar {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) width: String,
    pub(super) height: String,
    pub(super) class: &'static str,
    pub(super) title: String,
}

impl Chart {
    /// Returns the chart; `None` if no scan reclaimed memory.
    pub(super) fn new(runs: &[Run]) -> Option<Self> {
        let most = runs.iter().map(|run| run.bytes_reclaimed).max().filter(|most| *most > 0)?;
        let room = (WIDTH / runs.len() as f64).min(MAX_WIDTH);
        let bars = runs.iter().enumerate().map(|(index, run)| {
            let height = (run.bytes_reclaimed as f64 / most as f64 * HEIGHT).max(MIN_HEIGHT);
            Bar {
                x: format!("{:.1}", room * (index as f64 + GAP / 2.0)),
                y: format!("{:.1}", HEIGHT - height),
                width: format!("{:.1}", room * (1.0 - GAP)),
                height: format!("{height:.1}"),
                class: run.result.class,
                title: format!(
                    "{}, {}: {} and {} keys reclaimed",
                    run.started,
                    run.result.word,
                    units::size(run.bytes_reclaimed),
                    format::count(run.keys_reclaimed)
                ),
            }
        });
        let bars: Vec<Bar> = bars.collect();
        let last = runs.last().map(|run| units::size(run.bytes_reclaimed)).unwrap_or_default();
        let summary = format!(
            "Memory reclaimed by the last {} scans: at most {}, by the newest {last}.",
            runs.len(),
            units::size(most)
        );
        Some(Self { bars, most: units::size(most), summary, width: WIDTH, height: HEIGHT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes_reclaimed: u64) -> Run {
        let result = Badge { word: "success", class: "good" };
        Run { started: "then".into(), bytes_reclaimed, keys_reclaimed: 1, result }
    }

    #[test]
    fn bars_are_proportional_and_stay_inside_the_chart() {
        let chart = Chart::new(&[run(0), run(50), run(100)]).expect("a chart");
        let heights: Vec<&str> = chart.bars.iter().map(|bar| bar.height.as_str()).collect();
        assert_eq!(heights, ["2.0", "60.0", "120.0"]);
        let many: Vec<Run> = (0..200).map(run).collect();
        let chart = Chart::new(&many).expect("a chart");
        let last = chart.bars.last().expect("bars");
        let end = last.x.parse::<f64>().expect("a number") + last.width.parse::<f64>().expect("a number");
        assert!(end <= WIDTH, "{end}");
    }

    #[test]
    fn there_is_no_chart_without_reclaimed_memory() {
        assert!(Chart::new(&[]).is_none());
        assert!(Chart::new(&[run(0)]).is_none());
    }
}
