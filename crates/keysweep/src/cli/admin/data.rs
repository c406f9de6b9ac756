//! `keysweep admin backup`, `copy` and `key rotate`: operations on the whole database.

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;

use super::Output;
use crate::{
    app,
    config::{Database, StoreSettings},
    secrets::{Rotated, rotate},
    store::Store,
};

/// Backs up a SQLite database to a new file, also while the service runs.
///
/// # Errors
/// The database is not SQLite, or the file exists or cannot be written.
pub async fn backup(database: &Database, file: &Path) -> anyhow::Result<Output> {
    let Database::Sqlite(from) = database else {
        bail!("admin backup supports SQLite only; use pg_dump for {database}");
    };
    crate::store::backup(from, file).await.context("backup failed")?;
    Ok(Output::one(&[("file", &file.display().to_string())]))
}

/// Copies a SQLite database into an empty PostgreSQL database, in one transaction.
///
/// # Errors
/// A database cannot be opened, the target is not empty, or the copy failed; the target stays empty then.
pub async fn copy(database: &Database, to: &Database) -> anyhow::Result<Output> {
    let (Database::Sqlite(from), Database::Postgres(url)) = (database, to) else {
        bail!(
            "admin copy requires SQLite as the source (--database sqlite:PATH) and PostgreSQL as the target (--to postgres://…)"
        );
    };
    let source = Store::open_sqlite(from).await.with_context(|| format!("cannot open {database}"))?;
    let target = Store::open_postgres(url).await.with_context(|| format!("cannot open {to}"))?;
    let Some(mut import) = target.import().await.with_context(|| format!("cannot copy into {to}"))? else {
        bail!("{to} is not empty: it has projects; nothing was copied");
    };
    let mut rows_copied = 0;
    let copied = source.export(async |table, rows| {
        rows_copied += rows.len();
        import.add(table, rows).await
    });
    copied.await.with_context(|| format!("{database} was not copied, and {to} stays empty"))?;
    import.finish().await.with_context(|| format!("{database} was not copied"))?;
    source.close().await;
    target.close().await;
    let rows = rows_copied.to_string();
    Ok(Output::One { json: json!({ "rows": rows_copied }), rows: vec![("rows", rows)] })
}

/// Re-encrypts all secrets with a new master key.
///
/// # Errors
/// A key file cannot be used, or the database is in use.
pub async fn rotate_key(settings: &StoreSettings, to: Option<&Path>) -> anyhow::Result<Output> {
    let store = app::open_store(settings).await?;
    let rotated = rotate(&store, &settings.key_file, to).await;
    app::close(&store).await;
    let Rotated { old_key, new_key, key_file, old_key_file } = rotated.context("the master key was not changed")?;
    let (key_file, old_key_file) = (key_file.display().to_string(), old_key_file.display().to_string());
    Ok(Output::one(&[
        ("new_key", &new_key),
        ("key_file", &key_file),
        ("old_key", &old_key),
        ("old_key_file", &old_key_file),
    ]))
}
