//! Faults that several tests cause in an installation.

use keysweep_harness::Installation;
use sqlx::{Connection, SqliteConnection};

/// Breaks the database of a running service by renaming a table.
#[tokio::main(flavor = "current_thread")]
pub async fn break_database(installation: &Installation) {
    let url = format!("sqlite:{}", installation.database().display());
    let mut database = SqliteConnection::connect(&url).await.expect("it opens");
    sqlx::query("ALTER TABLE instance RENAME TO gone").execute(&mut database).await.expect("renamed");
}
