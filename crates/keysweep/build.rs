//! Lists the migrations, which `store/db/migrations.rs` embeds, and names the commit in release builds.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    let list = migrations("SQLITE", "migrations/sqlite") + &migrations("POSTGRES", "migrations/postgres");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("migrations.rs"), list).expect("the folder can be written to");
    // Only in release builds: a debug build would be compiled again after every commit.
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = if is_release { commit() } else { None };
    let suffix = commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
    println!("cargo:rustc-env=KEYSWEEP_COMMIT={suffix}");
}

/// Returns a constant with version, description and text of each file of a folder, in order.
fn migrations(name: &str, folder: &str) -> String {
    let folder = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut list = format!("const {name}_FILES: &[(i64, &str, &str)] = &[\n");
    for file in files {
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8");
        let (version, description) = stem.split_once('_').expect("0001_what_it_does.sql");
        let version: i64 = version.parse().expect("a number before the first underscore");
        let description = description.replace('_', " ");
        writeln!(list, "    ({version}, {description:?}, include_str!({:?})),", file.display().to_string())
            .expect("a string");
    }
    list + "];\n"
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
