//! The progress of a scan in a line of text, which fits its place.

use std::time::Duration;

use indicatif::{HumanCount, HumanDuration};
use keysweep_engine::Progress;

/// Describes the progress in at most `room` characters: what is left out says less than what stays.
pub fn progress_text(progress: &Progress, room: usize) -> String {
    let (reclaimed, scanned) = (HumanCount(progress.keys_reclaimed), HumanCount(progress.keys_scanned));
    let eta = match progress.eta_seconds {
        Some(seconds) => format!("{} left", HumanDuration(Duration::from_secs_f64(seconds.min(1e9)))),
        None => "…".into(),
    };
    let keys = format!("{reclaimed} reclaimed of {scanned} scanned");
    let texts = [
        format!("{keys}  {} keys/s  {eta}", HumanCount(progress.keys_per_second as u64)),
        format!("{keys}  {eta}"),
        format!("{reclaimed} reclaimed  {eta}"),
    ];
    let fitting = texts.into_iter().find(|text| text.chars().count() <= room);
    fitting.unwrap_or_else(|| format!("{reclaimed} reclaimed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_shows_what_matters_most_of_the_progress() {
        let progress = Progress {
            keys_reclaimed: 292_161,
            keys_scanned: 1_250_000,
            keys_per_second: 310_000.0,
            eta_seconds: Some(12.0),
            ..Progress::default()
        };
        let whole = "292,161 reclaimed of 1,250,000 scanned  310,000 keys/s  12 seconds left";
        assert_eq!(progress_text(&progress, 95), whole);
        assert_eq!(progress_text(&progress, 55), "292,161 reclaimed of 1,250,000 scanned  12 seconds left");
        assert_eq!(progress_text(&progress, 35), "292,161 reclaimed  12 seconds left");
        assert_eq!(progress_text(&progress, 20), "292,161 reclaimed");
    }
}
