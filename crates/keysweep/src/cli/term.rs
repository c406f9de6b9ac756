//! Output on the terminal: progress bar, reports, errors. Results go to standard output, everything else to standard
//! error, so that a pipe receives the result alone.

use std::{
    io::{self, IsTerminal, Write, stderr, stdin, stdout},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anstream::ColorChoice;
use clap::builder::Styles;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use keysweep_engine::{Checkpoint, Monitor, Progress};
use serde::Serialize;

use super::{
    columns::{Fitted, Head, fit},
    progress_text::progress_text,
};

/// Interval of progress lines when standard error is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Resolution of the progress bar.
const STEPS: u64 = 10_000;
/// Columns that a bar leaves free for the `^C` that a terminal echoes behind it. Where the echo wrapped, the bar would stay above it.
const ECHO_WIDTH: u16 = 3;
/// Characters of the progress bar, of the percentage behind it, and of the free columns.
const BAR_WIDTH: usize = 22 + ECHO_WIDTH as usize;
/// Redraws of a bar a second, at most.
const BAR_RATE: u8 = 20;
/// Width of a terminal below which it is taken as unknown: nothing can be fitted into less.
const MIN_WIDTH: u16 = 40;

/// Whether progress and notes are left out.
static QUIET: AtomicBool = AtomicBool::new(false);
/// Whether details are printed.
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Sets when to color, "auto", "always" or "never", whether to leave out progress and notes, and whether to print details.
pub fn configure(color: &str, quiet: bool, verbose: bool) {
    match color {
        "always" => ColorChoice::Always.write_global(),
        "never" => ColorChoice::Never.write_global(),
        _ => {}
    }
    QUIET.store(quiet, Ordering::Relaxed);
    VERBOSE.store(verbose && !quiet, Ordering::Relaxed);
}

/// Returns whether details are printed.
pub fn is_verbose() -> bool {
    VERBOSE.load(Ordering::Relaxed)
}

fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints an error, in the style of the command line's parser and in whole words.
pub fn error(sentence: &str) {
    let mut table = Table::new();
    table.use_stderr();
    let text = in_words(fitted(table), &format!("error: {sentence}"));
    let style = Styles::styled();
    let error = style.get_error();
    // A closed standard error must not end the program.
    let _ = writeln!(anstream::stderr(), "{error}error:{error:#}{}", text.trim_start_matches("error:"));
}

/// Prints a note to standard error, unless output is quiet.
pub fn note(sentence: &str) {
    if !is_quiet() {
        let _ = writeln!(stderr(), "{sentence}");
    }
}

/// Prints a note that only a verbose command prints.
pub fn detail(sentence: &str) {
    if is_verbose() {
        note(sentence);
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
    encoded(serde_json::to_string(value));
}

/// Prints a result as indented JSON, for files under version control.
pub fn pretty_json(value: &impl Serialize) {
    encoded(serde_json::to_string_pretty(value));
}

fn encoded(text: serde_json::Result<String>) {
    match text {
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

/// Returns a table without borders. On a terminal, long cells are wrapped at words.
fn wrapped() -> Table {
    fitted(Table::new())
}

/// Fits a table to the terminal that it is printed on, if it is one.
fn fitted(mut table: Table) -> Table {
    table.load_style(NOTHING);
    if let Some(width) = table.width().filter(|width| *width >= MIN_WIDTH) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table
}

/// Prints a table of texts.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = wrapped();
    table.set_header(header).add_rows(rows);
    line(&table.trim_fmt());
}

/// Prints a list of objects, one line each.
pub fn list(heads: &[Head], rows: Vec<Vec<String>>) {
    let width = Table::new().width().filter(|width| *width >= MIN_WIDTH);
    let Fitted { titles, rows, left_out } = fit(heads, rows, width.map(usize::from));
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(titles).add_rows(rows);
    line(&table.trim_fmt());
    if !left_out.is_empty() {
        paragraph(&format!("No room for: {}. --output csv prints all columns.", left_out.join(", ")), note);
    }
}

/// Prints names and values, one pair per line.
pub fn pairs(rows: Vec<(&str, String)>) {
    let mut table = wrapped();
    table.add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    line(&table.trim_fmt());
}

/// Prints a text in whole words, with the function that prints a line of it.
pub fn paragraph(text: &str, print: fn(&str)) {
    print(&in_words(wrapped(), text));
}

/// Returns a text in lines of whole words, which are as long as the lines of a table.
fn in_words(mut table: Table, text: &str) -> String {
    table.add_row([text]);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 0));
    }
    table.trim_fmt()
}

/// Returns a bar on standard error, or a hidden one if output is quiet.
fn bar(length: u64) -> ProgressBar {
    let target = match is_quiet() || !stderr().is_terminal() {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::term_like_with_hz(Box::new(BarTerminal::default()), BAR_RATE),
    };
    ProgressBar::with_draw_target(Some(length), target)
}

/// Returns the width of the terminal on standard error.
fn bar_width() -> u16 {
    Table::new().use_stderr().width().filter(|width| *width >= MIN_WIDTH).unwrap_or(80)
}

/// The terminal on standard error as a bar sees it: bars fill their line with spaces, and this line ends before the terminal's.
#[derive(Debug, Default)]
struct BarTerminal {
    /// What is written at the next flush, so that a bar is drawn at once.
    pending: Mutex<String>,
}

impl BarTerminal {
    fn add(&self, text: &str) -> io::Result<()> {
        // A panic of another thread leaves the text valid.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    fn move_cursor(&self, cells: usize, direction: char) -> io::Result<()> {
        if cells == 0 { Ok(()) } else { self.add(&format!("\u{1b}[{cells}{direction}")) }
    }
}

impl TermLike for BarTerminal {
    fn width(&self) -> u16 {
        bar_width() - ECHO_WIDTH
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.move_cursor(lines, 'A')
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.move_cursor(lines, 'B')
    }

    fn move_cursor_right(&self, cells: usize) -> io::Result<()> {
        self.move_cursor(cells, 'C')
    }

    fn move_cursor_left(&self, cells: usize) -> io::Result<()> {
        self.move_cursor(cells, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text)?;
        self.add("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\u{1b}[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let text = std::mem::take(&mut *pending);
        stderr().write_all(text.as_bytes())
    }
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

/// A line that is redrawn on a terminal, and otherwise printed anew.
#[derive(Debug)]
pub struct Status(ProgressBar);

impl Status {
    /// Shows nothing yet.
    pub fn new() -> Self {
        let bar = bar(1);
        bar.set_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// Replaces the text on a terminal, and says nothing elsewhere.
    pub fn draw(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    /// Replaces the text.
    pub fn show(&self, text: &str) {
        if self.0.is_hidden() {
            line(text);
        }
        self.draw(text);
    }
}

impl Drop for Status {
    fn drop(&mut self) {
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
        let style = ProgressStyle::with_template("{bar:14} {percent:>3} %  {msg}");
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
            self.bar.set_message(progress_text(progress, usize::from(bar_width()) - BAR_WIDTH));
            return;
        }
        // A panic of another thread leaves the time valid.
        let mut next_line = self.next_line.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() >= *next_line {
            *next_line = Instant::now() + LINE_INTERVAL;
            note(&format!("{:.1} %  {}", progress.fraction * 100.0, progress_text(progress, usize::MAX)));
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
