//! The migrations of both engines, embedded in the binary. sqlx's own macro embeds them, too, and compiles the drivers of both
//! databases a second time for that, SQLite included.

use std::sync::LazyLock;

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

// SQLITE_FILES and POSTGRES_FILES: version, description and text of each file.
include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// Migrations of SQLite.
pub(super) static SQLITE: LazyLock<Migrator> = LazyLock::new(|| migrator(SQLITE_FILES));

/// Migrations of PostgreSQL.
pub(super) static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| migrator(POSTGRES_FILES));

/// Returns a migrator; the checksums, which the database stores, are those of the texts.
fn migrator(files: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, description, text): &(i64, &'static str, &'static str)| {
        Migration::new(version, description.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_have_the_same_versions_in_order_and_each_once() {
        let versions = |migrator: &Migrator| migrator.iter().map(|migration| migration.version).collect::<Vec<_>>();
        let sqlite = versions(&SQLITE);
        assert!(sqlite.len() > 10 && sqlite.is_sorted_by(|one, next| one < next), "{sqlite:?}");
        assert_eq!(sqlite, versions(&POSTGRES));
    }
}
