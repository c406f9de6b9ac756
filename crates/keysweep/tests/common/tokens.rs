//! Expired tokens.

use keysweep_harness::Installation;
use sqlx::{Connection, SqliteConnection};

/// Expires the only token of the database.
#[tokio::main(flavor = "current_thread")]
pub async fn expire(installation: &Installation) {
    let url = format!("sqlite:{}", installation.database().display());
    let mut database = SqliteConnection::connect(&url).await.expect("it opens");
    let moved =
        sqlx::query("UPDATE token SET issued_at = issued_at - 86400000000, expires_at = expires_at - 86400000000")
            .execute(&mut database)
            .await
            .expect("moved");
    assert_eq!(moved.rows_affected(), 1);
}
