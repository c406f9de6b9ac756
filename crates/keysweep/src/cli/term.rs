//! Output on the terminal: progress bar, reports, errors. Results go to standard output, everything else to standard
//! error, so that a pipe receives the result alone.

use std::{
    io::{IsTerminal, Write, stderr, stdin, stdout},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anstream::ColorChoice;
use clap::builder::Styles;
use comfy_table::{Table, presets::NOTHING};
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use keysweep_engine::{Checkpoint, Monitor, Outcome, Progress, Report, ShardReport};
use serde::Serialize;

use crate::units::size;

/// Interval of progress lines when standard error is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Resolution of the progress bar.
const STEPS: u64 = 10_000;

/// Whether progress and notes are left out.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Sets when to color, "auto", "always" or "never", and whether to leave out progress and notes.
pub fn configure(color: &str, quiet: bool) {
    match color {
        "always" => ColorChoice::Always.write_global(),
        "never" => ColorChoice::Never.write_global(),
        _ => {}
    }
    QUIET.store(quiet, Ordering::Relaxed);
}

fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints an error, in the style of the command line's parser.
pub fn error(sentence: &str) {
    let style = Styles::styled();
    let error = style.get_error();
    // A closed standard error must not end the program.
    let _ = writeln!(anstream::stderr(), "{error}error:{error:#} {sentence}");
}

/// Prints a note to standard error, unless output is quiet.
pub fn note(sentence: &str) {
    if !is_quiet() {
        let _ = writeln!(stderr(), "{sentence}");
    }
}

/// Prints a line of the result.
pub fn line(text: &str) {
    let _ = writeln!(stdout(), "{text}");
}

/// Prints a result verbatim.
pub fn document(bytes: &[u8]) {
    let _ = stdout().write_all(bytes);
}

/// Prints a result as JSON on one line.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(failure) => error(&format!("cannot encode the result as JSON: {failure}")),
    }
}

/// Prints a result as indented JSON, for files under version control.
pub fn pretty_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&text),
        Err(failure) => error(&format!("cannot encode the result as JSON: {failure}")),
    }
}

/// Asks a question on the terminal; an empty answer is the default.
///
/// # Errors
/// Standard input cannot be read, or ends.
pub fn ask(question: &str, default: &str) -> anyhow::Result<String> {
    let suggestion = if default.is_empty() { String::new() } else { format!(" [{default}]") };
    let _ = write!(stderr(), "{question}{suggestion}: ");
    let _ = stderr().flush();
    let mut answer = String::new();
    if stdin().read_line(&mut answer)? == 0 {
        anyhow::bail!("standard input ended before the answer");
    }
    Ok(match answer.trim() {
        "" => default.to_owned(),
        answer => answer.to_owned(),
    })
}

/// Prompts for a secret without echo.
///
/// # Errors
/// There is no terminal.
pub fn ask_secret(prompt: &str) -> anyhow::Result<String> {
    rpassword::prompt_password(prompt)
        .map_err(|error| anyhow::anyhow!("cannot prompt for a password ({error}); use --password-stdin"))
}

/// Prints a table without borders, as wide as its content.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header).add_rows(rows);
    line(&table.to_string());
}

/// Prints names and values, one pair per line.
pub fn pairs(rows: Vec<(&str, String)>) {
    let mut table = Table::new();
    table.load_style(NOTHING).add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    line(&table.to_string());
}

/// Returns a bar on standard error, or a hidden one if output is quiet.
fn bar(length: u64) -> ProgressBar {
    let target = if is_quiet() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    ProgressBar::with_draw_target(Some(length), target)
}

/// Progress bar that counts up to a known number.
pub struct Counter(ProgressBar);

impl Counter {
    /// Shows an empty bar.
    pub fn new(label: &str, upto: u64) -> Self {
        if !stderr().is_terminal() {
            note(label);
        }
        let bar = bar(upto);
        let style = ProgressStyle::with_template("{bar:32} {human_pos:>9} of {human_len}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(label.to_owned());
        Self(bar)
    }

    /// Sets the position.
    pub fn set(&self, position: u64) {
        self.0.set_position(position);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Progress of a running scan: a bar on a terminal, otherwise a line every few seconds.
pub struct Live {
    bar: ProgressBar,
    next_line: Mutex<Instant>,
}

impl Live {
    /// Shows an empty bar.
    pub fn new() -> Self {
        let bar = bar(STEPS);
        let style = ProgressStyle::with_template("{bar:20} {percent:>3} %  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, next_line: Mutex::new(Instant::now() + LINE_INTERVAL) }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints a note above the bar.
    pub fn note(&self, sentence: &str) {
        self.bar.suspend(|| note(sentence));
    }

    /// Shows the progress.
    pub fn show(&self, progress: &Progress) {
        if stderr().is_terminal() {
            self.bar.set_position((progress.fraction * STEPS as f64) as u64);
            self.bar.set_message(progress_text(progress));
            return;
        }
        // A panic of another thread leaves the time valid.
        let mut next_line = self.next_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if Instant::now() >= *next_line {
            *next_line = Instant::now() + LINE_INTERVAL;
            note(&format!("{:.1} %  {}", progress.fraction * 100.0, progress_text(progress)));
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

fn progress_text(progress: &Progress) -> String {
    let eta = match progress.eta_seconds {
        Some(seconds) => format!("{} left", HumanDuration(Duration::from_secs_f64(seconds.min(1e9)))),
        None => "…".into(),
    };
    format!(
        "{} reclaimed of {} scanned  {} keys/s  {eta}",
        HumanCount(progress.keys_reclaimed),
        HumanCount(progress.keys_scanned),
        HumanCount(progress.keys_per_second as u64)
    )
}

/// Stale share after a scan from which the report mentions it, 0–1.
const WORTH_REPORTING: f64 = 0.005;

/// Returns what a scan did, in one sentence.
fn sentence(report: &Report) -> String {
    let totals = &report.totals;
    let reclaimed = match (totals.keys_reclaimed, totals.exact) {
        (1, true) => "1 expired key".to_owned(),
        (keys, true) => format!("{} expired keys", HumanCount(keys)),
        (keys, false) => format!("at least {} expired keys", HumanCount(keys)),
    };
    let memory = match (totals.used_memory_before, totals.used_memory_after) {
        (Some(before), Some(after)) => format!(", {} → {}", size(before), size(after)),
        _ => String::new(),
    };
    let left = totals.remaining.map(|left| format!("; {:.1} % stale left", left.share * 100.0)).unwrap_or_default();
    let begin = match report.outcome {
        Outcome::Done => "Reclaimed",
        Outcome::Failed => "Stopped after reclaiming",
    };
    format!("{begin} {reclaimed}{memory}, in {:.1} s{left}.", totals.elapsed_seconds)
}

/// Prints the report of a scan: what it did in one sentence, then the details.
pub fn report(report: &Report) {
    line(&sentence(report));
    line("");
    let outcome = match report.outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Failed => format!("failed ({})", report.reason.map_or("", |reason| reason.as_str())),
    };
    let server = report.shards.iter().find_map(|shard| shard.server.clone()).unwrap_or_default();
    let mut rows = Vec::new();
    let mut row = |name, value: String| rows.push((name, value));
    row("target", format!("{}  {server}", report.target));
    row("outcome", outcome);
    let repeated = match report.totals.keys_repeated {
        0 => String::new(),
        keys => format!("  (about {} of them twice)", HumanCount(keys)),
    };
    row("keys scanned", format!("{}{repeated}", HumanCount(report.totals.keys_scanned)));
    let exactness = if report.totals.exact { "exact" } else { "lower bound" };
    row("keys reclaimed", format!("{}  ({exactness})", HumanCount(report.totals.keys_reclaimed)));
    if let Some(left) = report.totals.remaining.filter(|left| left.share >= WORTH_REPORTING) {
        let rate = left.expired_per_second.map(|rate| format!(", at about {} a second", HumanCount(rate as u64)));
        let value = format!(
            "about {} keys ({:.1} %), which expired during the scan{}",
            HumanCount(left.stale_keys),
            left.share * 100.0,
            rate.unwrap_or_default()
        );
        row("stale now", value);
    }
    row("used memory", change(report.totals.used_memory_before, report.totals.used_memory_after));
    row("resident memory", change(report.totals.rss_before, report.totals.rss_after));
    row("elapsed", format!("{:.1} s", report.totals.elapsed_seconds));
    let whose = if report.shards.len() > 1 { "the busiest primary's" } else { "the" };
    let share = report.totals.cpu_share * 100.0;
    row("server time", format!("{:.2} s, {share:.1} % of {whose} main thread", report.totals.server_seconds));
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

/// Prints one line per primary.
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
    let header = ["primary", "keys scanned", "keys reclaimed", "used memory", "main thread", "outcome"];
    table(&header, shards.iter().map(row).collect());
}

/// Formats a size before and after, with the difference.
fn change(before: Option<u64>, after: Option<u64>) -> String {
    match (before, after) {
        (Some(before), Some(after)) if before == after => format!("{}, unchanged", size(before)),
        (Some(before), Some(after)) => {
            let (sign, difference) = if after <= before { ("-", before - after) } else { ("+", after - before) };
            format!("{} → {}  ({sign}{})", size(before), size(after), size(difference))
        }
        (Some(before), None) => format!("{} before", size(before)),
        _ => "unknown".into(),
    }
}
