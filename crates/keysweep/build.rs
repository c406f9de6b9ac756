//! Embeds the migrations again when a file joins their folder, which cargo would not notice by itself, and the commit in release builds.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    // Only in release builds: a debug build would be compiled again after every commit.
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = if is_release { commit() } else { None };
    let suffix = commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
    println!("cargo:rustc-env=KEYSWEEP_COMMIT={suffix}");
}

/// Returns hash and date of the commit, or `None` outside of a repository.
fn commit() -> Option<String> {
    let log = "../../.git/logs/HEAD";
    if Path::new(log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    let output = Command::new("git").args(["log", "-1", "--format=%h %cs"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
