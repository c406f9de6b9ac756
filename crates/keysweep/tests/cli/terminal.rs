//! Bars, reports and lists on terminals of several widths: a virtual terminal shows what a reader would see.

use std::{
    fs,
    io::{Read, Write},
    num::NonZeroU16,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use keysweep_harness::{DataSet, Flavor, Server, eventually, installation};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::client::{Remote, nowhere};

/// Widths of terminals: of half a screen, of habit, and of a large screen.
const WIDTHS: [u16; 3] = [60, 80, 120];
const ROWS: u16 = 40;
const TIMEOUT: Duration = Duration::from_secs(30);

/// A command on a terminal of its own.
struct Terminal {
    master: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Everything that was ever drawn.
    drawn: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

fn size(columns: u16) -> PtySize {
    PtySize { rows: ROWS, cols: columns, pixel_width: 0, pixel_height: 0 }
}

fn characters(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("a terminal has a size")
}

impl Terminal {
    /// Runs a command with its arguments and variables on a terminal of this width.
    fn start(command: &Command, columns: u16) -> Self {
        let pair = native_pty_system().openpty(size(columns)).expect("a terminal");
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        builder.cwd(Path::new("/"));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => builder.env(name, value),
                None => builder.env_remove(name),
            }
        }
        builder.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(builder).expect("the binary starts");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(characters(ROWS), characters(columns), 0)));
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let (shown, all) = (Arc::clone(&screen), Arc::clone(&drawn));
        let mut output = pair.master.try_clone_reader().expect("a reader");
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last process has ended answers with an error.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                all.lock().expect("bytes").extend_from_slice(&buffer[..length]);
                shown.lock().expect("a screen").process(&buffer[..length]);
            }
        });
        let keyboard = pair.master.take_writer().expect("a keyboard");
        Self { master: pair.master, child, keyboard, screen, drawn, reader: Some(reader) }
    }

    /// Returns the rows of the screen down to the last one that shows something.
    fn rows(&self) -> Vec<String> {
        let screen = self.screen.lock().expect("a screen");
        let (_, columns) = screen.screen().size();
        let mut rows: Vec<String> =
            screen.screen().rows(0, columns.get()).map(|row| row.trim_end().to_owned()).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    /// Returns whether a row was longer than the screen is wide.
    fn has_wrapped(&self) -> bool {
        let screen = self.screen.lock().expect("a screen");
        (0..ROWS).any(|row| screen.screen().row_wrapped(row))
    }

    /// Returns whether a text was ever drawn.
    fn has_drawn(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.drawn.lock().expect("bytes")).contains(text)
    }

    /// Waits until the screen shows what is wanted.
    fn wait_for(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        eventually(what, TIMEOUT, || Some(self.rows()).filter(|rows| wanted(rows)))
    }

    fn resize(&self, columns: u16) {
        self.screen.lock().expect("a screen").set_size(characters(ROWS), characters(columns));
        self.master.resize(size(columns)).expect("it has a size");
    }

    fn press(&mut self, key: &[u8]) {
        self.keyboard.write_all(key).expect("a key");
    }

    /// Waits for the end of the command; returns its exit code.
    fn end(&mut self) -> u32 {
        let code = self.child.wait().expect("it ends").exit_code();
        self.reader.take().expect("one end").join().expect("it only reads");
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
    }
}

fn is_bar(row: &str) -> bool {
    row.contains('█') || row.contains('░')
}

/// Returns the keys that the only bar says were scanned.
fn scanned(rows: &[String]) -> Option<String> {
    let bars: Vec<&String> = rows.iter().filter(|row| is_bar(row)).collect();
    match bars.as_slice() {
        [bar] => bar.split(" % ").nth(1).map(|text| text.trim().to_owned()).filter(|text| text.contains("reclaimed")),
        _ => None,
    }
}

#[test]
fn the_bar_keeps_to_its_line_at_every_width_through_a_resize_and_leaves_nothing_after_ctrl_c() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(30_000).stale(10_000).load(&server);
    let installation = installation!();
    let command = installation.command(&["scan", &server.url(), "--keys-per-second", "2000"]);
    for (columns, then) in [(60, 80), (80, 60), (120, 60)] {
        let mut terminal = Terminal::start(&command, columns);
        let rows = terminal.wait_for("the bar moves", |rows| scanned(rows).is_some());
        let before = scanned(&rows);
        terminal.wait_for("it moves again", |rows| scanned(rows).is_some_and(|text| Some(text) != before));
        assert!(!terminal.has_wrapped(), "{columns}: {:#?}", terminal.rows());
        terminal.resize(then);
        let before = scanned(&terminal.rows());
        let rows = terminal.wait_for("the bar is drawn for the new width", |rows| {
            scanned(rows).is_some_and(|text| Some(text) != before)
        });
        assert_eq!(rows.iter().filter(|row| is_bar(row)).count(), 1, "{columns} → {then}: {rows:#?}");
        terminal.press(b"\x03");
        assert_eq!(terminal.end(), 130, "{:#?}", terminal.rows());
        let rows = terminal.rows();
        assert!(!rows.iter().any(|row| is_bar(row)), "{columns} → {then}: {rows:#?}");
        let text = rows.join(" ");
        assert!(text.contains("Stopped after reclaiming") && text.contains("outcome"), "{rows:#?}");
        assert!(text.contains("interrupted; reclaimed keys stay reclaimed"), "{rows:#?}");
        assert!(!terminal.has_wrapped(), "{columns} → {then}: {rows:#?}");
    }
}

#[test]
fn the_report_begins_with_its_sentence_and_no_row_is_longer_than_the_terminal() {
    let server = Server::start(Flavor::Valkey91);
    let installation = installation!();
    for columns in WIDTHS {
        DataSet::new().live(2_000).stale(1_234).load(&server);
        let mut terminal = Terminal::start(&installation.command(&["scan", &server.url()]), columns);
        assert_eq!(terminal.end(), 0, "{:#?}", terminal.rows());
        let rows = terminal.rows();
        let first = rows.iter().position(|row| !row.is_empty()).expect("a report");
        assert!(rows[first].starts_with("Reclaimed 1,234 expired keys, "), "{columns}: {rows:#?}");
        for name in ["target", "outcome", "slices", "server time", "slowed down", "keys reclaimed", "used memory"] {
            let named = rows.iter().filter(|row| row.trim_start().starts_with(name)).count();
            assert_eq!(named, 1, "{columns}: {name}: {rows:#?}");
        }
        let gaps = rows[first..].iter().filter(|row| row.is_empty()).count();
        assert_eq!(gaps, 1, "one empty row, behind the sentence: {columns}: {rows:#?}");
        assert!(!terminal.has_wrapped(), "{columns}: {rows:#?}");
        redis::cmd("FLUSHALL").query::<()>(&mut server.connection()).expect("emptied");
    }
}

#[test]
fn an_estimate_shows_a_line_of_progress_until_its_result_and_a_quiet_one_none() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(6_000).stale(2_000).load(&server);
    let replica = server.replica();
    let installation = installation!();
    let empty = installation.folder().join("empty.rdb");
    fs::write(&empty, b"REDIS0011\xff\0\0\0\0\0\0\0\0").expect("a file");
    let empty = empty.to_str().expect("UTF-8");
    let (url, counted) = (server.url(), format!("% counted on {}", replica.address()));
    let lines = ["measuring how fast keys expire, for 2 s", &counted];
    for (arguments, shown, result) in [
        (&["estimate", &url][..], &lines[..], "2,000 of 8,000 keys are stale"),
        (&["estimate", &url, "--quiet"], &[], "2,000 of 8,000 keys are stale"),
        (&["estimate", "--rdb", empty], &["100 % read of empty.rdb"], "0 of 0 keys are stale"),
        (&["estimate", "redis://127.0.0.1:1"], &["connecting"], "cannot connect"),
    ] {
        let mut terminal = Terminal::start(&installation.command(arguments), WIDTHS[0]);
        terminal.end();
        let rows = terminal.rows();
        assert!(rows.join(" ").contains(result), "{arguments:?}: {rows:#?}");
        for line in lines.iter().chain(["% read of", "connecting"].iter()) {
            assert!(!rows.iter().any(|row| row.contains(line)), "{line:?} stays: {rows:#?}");
            assert!(!shown.is_empty() || !terminal.has_drawn(line), "{line:?} of a quiet command");
        }
        for line in shown {
            assert!(terminal.has_drawn(line), "{arguments:?} has not drawn {line:?}: {rows:#?}");
        }
        assert!(!terminal.has_wrapped(), "{rows:#?}");
    }
}

#[test]
fn a_list_of_long_names_fits_the_terminal_and_says_what_it_leaves_out() {
    let remote =
        Remote::start_with(&nowhere(), "reader", &["--label", "env=prod", "--label", "team=payments-and-carts"]);
    let url = format!("redis-cluster://{}.example:6379,10.0.0.7:6380", "h".repeat(60));
    remote.installation.register_another(&remote.project, &"n".repeat(60), &url, &[]);
    for columns in WIDTHS {
        let mut terminal = Terminal::start(&remote.command(&["instance", "list"]), columns);
        assert_eq!(terminal.end(), 0, "{:#?}", terminal.rows());
        let rows = terminal.rows();
        assert!(!terminal.has_wrapped(), "{columns}: {rows:#?}");
        assert!(rows[0].trim_start().starts_with("name") && rows[0].contains("status"), "{columns}: {rows:#?}");
        assert!(rows[1].trim_start().starts_with("cache "), "{columns}: {rows:#?}");
        assert!(rows[2].trim_start().starts_with("nnnn") && rows[2].contains('…'), "{columns}: {rows:#?}");
        let note = rows[3..].join(" ");
        match columns {
            120 => assert!(rows[2].contains("redis-cluster:") && note.is_empty(), "{rows:#?}"),
            _ => assert!(note.starts_with("No room for: ") && note.contains("--output csv"), "{columns}: {rows:#?}"),
        }
    }
}

#[test]
fn help_is_wrapped_at_words() {
    let installation = installation!();
    for columns in WIDTHS {
        let mut terminal = Terminal::start(&installation.command(&["task", "create", "--help"]), columns);
        assert_eq!(terminal.end(), 0);
        assert!(!terminal.has_wrapped(), "{columns}: {:#?}", terminal.rows());
    }
}
