//! `keysweep admin backup`, `copy` and `key rotate`: all the data, or all of its secrets, at once.

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;

use super::Answer;
use crate::{
    app,
    config::{Database, StoreSettings},
    fleet::rotation::{Rotated, rotate},
    store::Store,
};

/// Writes a copy of a SQLite store to a new file, while the service runs.
pub async fn backup(database: &Database, file: &Path) -> anyhow::Result<Answer> {
    let Database::Sqlite(from) = database else {
        bail!("backup is for SQLite; use PostgreSQL's own pg_dump for {database}");
    };
    crate::store::backup(from, file).await.context("no backup was made")?;
    Ok(Answer::one(&[("file", &file.display().to_string())]))
}

/// Copies a SQLite store into an empty PostgreSQL database.
pub async fn copy(database: &Database, to: &Database) -> anyhow::Result<Answer> {
    let (Database::Sqlite(from), Database::Postgres(url)) = (database, to) else {
        bail!("copy goes from SQLite (--database sqlite:PATH) to PostgreSQL (--to postgres://…)");
    };
    let source = Store::open_sqlite(from).await.with_context(|| format!("{database} cannot be opened"))?;
    let target = Store::open_postgres(url).await.with_context(|| format!("{to} cannot be opened"))?;
    let Some(mut import) = target.import().await.with_context(|| format!("{to} takes no copy"))? else {
        bail!("{to} must be empty, and it has projects already; nothing was copied");
    };
    let mut rows_copied = 0;
    let copied = source.export(async |table, rows| {
        rows_copied += rows.len();
        import.add(table, rows).await
    });
    copied.await.with_context(|| format!("{database} was not copied, and {to} is left empty"))?;
    import.finish().await.with_context(|| format!("{database} was not copied"))?;
    source.close().await;
    target.close().await;
    let rows = rows_copied.to_string();
    Ok(Answer { json: json!({ "rows": rows_copied }), ..Answer::one(&[("rows", &rows)]) })
}

/// Seals all secrets with another master key.
pub async fn rotate_key(settings: &StoreSettings, to: Option<&Path>) -> anyhow::Result<Answer> {
    let store = app::open_store(settings).await?;
    let rotated = rotate(&store, &settings.key_file, to).await;
    app::close(&store).await;
    let Rotated { old_key, new_key, key_file, old_key_file } = rotated.context("the master key was not changed")?;
    let (key_file, old_key_file) = (key_file.display().to_string(), old_key_file.display().to_string());
    Ok(Answer::one(&[
        ("new_key", &new_key),
        ("key_file", &key_file),
        ("old_key", &old_key),
        ("old_key_file", &old_key_file),
    ]))
}
