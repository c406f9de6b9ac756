//! All that is drawn on the terminal: the live bar, the report, errors. Results go to standard output, everything
//! else to standard error, so that a pipe gets the result alone.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    sync::Mutex,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets::NOTHING};
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use keysweep_engine::{Checkpoint, Monitor, Outcome, Progress, Report, ShardReport};
use serde::Serialize;

use crate::units::size;

/// How often a line is written where there is no terminal to draw a bar on.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Steps of the bar.
const STEPS: u64 = 10_000;

/// An error, for people.
pub fn error(sentence: &str) {
    // A closed standard error is no reason to die; there is nobody to tell.
    let _ = writeln!(stderr(), "error: {sentence}");
}

/// Something worth knowing, for people.
pub fn note(sentence: &str) {
    let _ = writeln!(stderr(), "{sentence}");
}

/// A result line.
pub fn line(text: &str) {
    let _ = writeln!(stdout(), "{text}");
}

/// A result that is a file of some kind, as it is.
pub fn document(bytes: &[u8]) {
    let _ = stdout().write_all(bytes);
}

/// A result as one JSON object.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(failure) => error(&format!("the result cannot be written as JSON: {failure}")),
    }
}

/// The same over several lines, for people and for files under version control.
pub fn pretty_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&text),
        Err(failure) => error(&format!("the result cannot be written as JSON: {failure}")),
    }
}

/// Asks for something that nobody may see while it is typed. Fails where there is no terminal.
pub fn ask_secret(prompt: &str) -> anyhow::Result<String> {
    rpassword::prompt_password(prompt)
        .map_err(|error| anyhow::anyhow!("no password can be asked for here ({error}); use --password-stdin"))
}

/// A table without lines, as wide as its contents.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header).add_rows(rows);
    line(&table.to_string());
}

/// Names and what they stand for, a line each.
pub fn pairs(rows: Vec<(&str, String)>) {
    let mut table = Table::new();
    table.load_style(NOTHING).add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    line(&table.to_string());
}

/// Shows something that counts up to a known number.
pub struct Counter(ProgressBar);

impl Counter {
    /// A bar at its beginning.
    pub fn new(what: &str, upto: u64) -> Self {
        if !stderr().is_terminal() {
            note(what);
        }
        let bar = ProgressBar::new(upto);
        let style = ProgressStyle::with_template("{bar:32} {human_pos:>9} of {human_len}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what.to_owned());
        Self(bar)
    }

    /// Shows how far it is.
    pub fn set(&self, position: u64) {
        self.0.set_position(position);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Shows a sweep while it runs: a bar on a terminal, a line every few seconds elsewhere.
pub struct Live {
    bar: ProgressBar,
    next_line: Mutex<Instant>,
}

impl Live {
    /// A bar at its beginning.
    pub fn new() -> Self {
        let bar = ProgressBar::new(STEPS);
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, next_line: Mutex::new(Instant::now() + LINE_EVERY) }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// A sentence above the bar.
    pub fn note(&self, sentence: &str) {
        self.bar.suspend(|| note(sentence));
    }

    /// Shows how far it is.
    pub fn show(&self, progress: &Progress) {
        if stderr().is_terminal() {
            self.bar.set_position((progress.fraction * STEPS as f64) as u64);
            self.bar.set_message(in_words(progress));
            return;
        }
        // A lock that was poisoned by a panic elsewhere still holds a good time.
        let mut next_line = self.next_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if Instant::now() >= *next_line {
            *next_line = Instant::now() + LINE_EVERY;
            note(&format!("{:.1} %  {}", progress.fraction * 100.0, in_words(progress)));
        }
    }
}

impl Monitor for Live {
    fn progress(&self, progress: &Progress, _: &Checkpoint) {
        self.show(progress);
    }

    fn note(&self, sentence: &str) {
        Live::note(self, sentence);
    }
}

fn in_words(progress: &Progress) -> String {
    let eta = match progress.eta_seconds {
        Some(seconds) => format!("{} left", HumanDuration(Duration::from_secs_f64(seconds.min(1e9)))),
        None => "…".into(),
    };
    format!(
        "{} released of {} scanned  {} keys/s  {eta}",
        HumanCount(progress.keys_reclaimed),
        HumanCount(progress.keys_scanned),
        HumanCount(progress.keys_per_second as u64)
    )
}

/// The closing report of a sweep.
pub fn report(report: &Report) {
    let outcome = match report.outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Failed => format!("failed ({})", report.reason.map_or("", |reason| reason.as_str())),
    };
    let server = report.shards.iter().find_map(|shard| shard.server.clone()).unwrap_or_default();
    let mut rows = Vec::new();
    let mut row = |name, value: String| rows.push((name, value));
    row("target", format!("{}  {server}", report.target));
    row("outcome", outcome);
    row("keys scanned", HumanCount(report.totals.keys_scanned).to_string());
    let exactly = if report.totals.exact { "exactly" } else { "at least; not exact" };
    row("keys released", format!("{}  ({exactly})", HumanCount(report.totals.keys_reclaimed)));
    row("used memory", change(report.totals.used_memory_before, report.totals.used_memory_after));
    row("resident memory", change(report.totals.rss_before, report.totals.rss_after));
    row("elapsed", format!("{:.1} s", report.totals.elapsed_seconds));
    let whose = if report.shards.len() > 1 { "the busiest primary's" } else { "its" };
    let share = report.totals.cpu_share * 100.0;
    row("server's time", format!("{:.2} s, {share:.1} % of {whose} main thread", report.totals.server_seconds));
    let slices = &report.totals.slice_seconds;
    let micros = |seconds: f64| format!("{:.0} µs", seconds * 1e6);
    row(
        "slices",
        format!(
            "{} at pace {}: median {}, p99 {}, longest {}",
            HumanCount(report.totals.slices),
            report.pace,
            micros(slices.p50),
            micros(slices.p99),
            micros(slices.max)
        ),
    );
    pairs(rows);
    if report.shards.len() > 1 {
        line("");
        primaries(&report.shards);
    }
}

/// A line for each primary.
fn primaries(shards: &[ShardReport]) {
    let row = |shard: &ShardReport| {
        let outcome = match (shard.outcome, &shard.message) {
            (Outcome::Done, _) => "done".to_owned(),
            (Outcome::Failed, message) => format!("failed: {}", message.as_deref().unwrap_or_default()),
        };
        vec![
            shard.address.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            HumanCount(shard.totals.keys_scanned).to_string(),
            HumanCount(shard.totals.keys_reclaimed).to_string(),
            change(shard.totals.used_memory_before, shard.totals.used_memory_after),
            format!("{:.1} %", shard.totals.cpu_share * 100.0),
            outcome,
        ]
    };
    let header = ["primary", "keys scanned", "released", "used memory", "main thread", "outcome"];
    table(&header, shards.iter().map(row).collect());
}

/// A size before and after, and what came free.
fn change(before: Option<u64>, after: Option<u64>) -> String {
    match (before, after) {
        (Some(before), Some(after)) if before == after => format!("{}, unchanged", size(before)),
        (Some(before), Some(after)) => {
            let (sign, difference) = if after <= before { ("-", before - after) } else { ("+", after - before) };
            format!("{} → {}  ({sign}{})", size(before), size(after), size(difference))
        }
        (Some(before), None) => format!("{} before", size(before)),
        _ => "not known".into(),
    }
}
