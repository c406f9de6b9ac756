//! The memory that the last runs released, as bars: drawn on the server, so that no script is needed.

use super::{status::Chip, words};
use crate::units;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 120.0;
/// Between two bars, as a share of the room for one.
const GAP: f64 = 0.25;
/// Bars are no wider than this, so that the first run does not fill the page.
const WIDEST: f64 = 36.0;
/// A bar of nothing is still seen.
const LEAST: f64 = 2.0;

/// A run, as the chart needs it.
pub(super) struct Run {
    pub(super) begun: String,
    pub(super) memory_released: u64,
    pub(super) keys_released: u64,
    pub(super) result: Chip,
}

/// The bars, from the oldest run to the newest.
pub(super) struct Chart {
    pub(super) bars: Vec<Bar>,
    /// The most that a run released, in words: the height of the whole.
    pub(super) most: String,
    /// The chart in a sentence.
    pub(super) summary: String,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// One of them.
pub(super) struct Bar {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) width: String,
    pub(super) height: String,
    pub(super) class: &'static str,
    pub(super) title: String,
}

impl Chart {
    /// `None`: there is nothing to compare yet.
    pub(super) fn new(runs: &[Run]) -> Option<Self> {
        let most = runs.iter().map(|run| run.memory_released).max().filter(|most| *most > 0)?;
        let room = (WIDTH / runs.len() as f64).min(WIDEST);
        let bars = runs.iter().enumerate().map(|(index, run)| {
            let height = (run.memory_released as f64 / most as f64 * HEIGHT).max(LEAST);
            Bar {
                x: format!("{:.1}", room * (index as f64 + GAP / 2.0)),
                y: format!("{:.1}", HEIGHT - height),
                width: format!("{:.1}", room * (1.0 - GAP)),
                height: format!("{height:.1}"),
                class: run.result.class,
                title: format!(
                    "{}, {}: {} and {} keys released",
                    run.begun,
                    run.result.word,
                    units::size(run.memory_released),
                    words::count(run.keys_released)
                ),
            }
        });
        let bars: Vec<Bar> = bars.collect();
        let last = runs.last().map(|run| units::size(run.memory_released)).unwrap_or_default();
        let summary = format!(
            "Memory released by the last {} runs: at most {}, by the newest {last}.",
            runs.len(),
            units::size(most)
        );
        Some(Self { bars, most: units::size(most), summary, width: WIDTH, height: HEIGHT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(memory_released: u64) -> Run {
        Run { begun: "then".into(), memory_released, keys_released: 1, result: Chip { word: "success", class: "good" } }
    }

    #[test]
    fn bars_are_as_high_as_their_share_of_the_most_and_stay_inside() {
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
    fn there_is_no_chart_of_nothing() {
        assert!(Chart::new(&[]).is_none());
        assert!(Chart::new(&[run(0)]).is_none());
    }
}
