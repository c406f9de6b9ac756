//! What several tests share: clients, servers and faults.

#![allow(dead_code, reason = "every test binary uses another part of it")]

pub mod sdk;
pub mod servers;
pub mod tasks;
pub mod tokens;
pub mod web;

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use keysweep_harness::Installation;
use sqlx::{Connection, SqliteConnection};

/// Returns the folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// Returns the standard error of a process.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Breaks the database of a running service by renaming a table.
#[tokio::main(flavor = "current_thread")]
pub async fn break_database(installation: &Installation) {
    let url = format!("sqlite:{}", installation.database().display());
    let mut database = SqliteConnection::connect(&url).await.expect("it opens");
    sqlx::query("ALTER TABLE instance RENAME TO gone").execute(&mut database).await.expect("renamed");
}
