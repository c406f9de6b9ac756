//! Monitors that act in the middle of a sweep, for several test files.

#![allow(dead_code, reason = "every test file uses another part of it")]

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use keysweep_engine::{Checkpoint, Monitor, Options, Progress, Stop};
use keysweep_harness::Server;

/// Returns options so slow that a test can act in the middle of the sweep.
pub fn slow(keys_per_second: u64) -> Options {
    let mut options = Options::default();
    options.limits.keys_per_second = Some(keys_per_second);
    options
}

/// Runs an action once, as soon as the progress is in a range.
pub struct Once<F> {
    between: Range<f64>,
    what: F,
    done: AtomicBool,
}

impl<F: Fn(&Progress) + Sync> Once<F> {
    pub fn between(between: Range<f64>, what: F) -> Self {
        Self { between, what, done: AtomicBool::new(false) }
    }

    /// Whether the action has run to its end.
    pub fn was_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
}

impl<F: Fn(&Progress) + Sync> Monitor for Once<F> {
    fn progress(&self, progress: &Progress, _: &Checkpoint) {
        if !self.was_done() && self.between.contains(&progress.fraction) {
            (self.what)(progress);
            self.done.store(true, Ordering::SeqCst);
        }
    }
}

/// Stops the sweep at some progress, and keeps the last checkpoint.
pub struct StopWhen {
    pub stop: Stop,
    when: fn(&Progress) -> bool,
    last: Mutex<Option<Checkpoint>>,
}

impl StopWhen {
    pub fn new(when: fn(&Progress) -> bool) -> Self {
        Self { stop: Stop::new(), when, last: Mutex::default() }
    }

    pub fn last(self) -> Option<Checkpoint> {
        self.last.into_inner().expect("no panic")
    }
}

impl Monitor for StopWhen {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        *self.last.lock().expect("no panic") = Some(checkpoint.clone());
        if (self.when)(progress) {
            self.stop.raise();
        }
    }
}

/// Returns the documented rules for this user.
pub fn documented(user: &str) -> Vec<String> {
    let page = include_str!("../../../../docs/servers.md");
    let lines = page.lines().filter_map(|line| line.trim().strip_prefix("ACL SETUSER ")?.strip_prefix(user));
    let rights: Vec<String> = lines.flat_map(str::split_whitespace).map(str::to_owned).collect();
    assert!(!rights.is_empty(), "docs/servers.md has a rule for {user}");
    rights
}

/// Creates a user with these rights and no others.
pub fn set_user(server: &Server, user: &str, rights: &[String]) {
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(user).arg("reset").arg(rights);
    command.exec(&mut server.connection()).expect("the rule is one");
}
