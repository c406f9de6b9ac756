//! The libraries that the console serves are those of their npm packages, unchanged, with version, checksum and licence.

use std::{collections::BTreeMap, fs};

use sha2::{Digest, Sha256};

use crate::common::root;

/// Returns the files of the libraries with their contents, by their path below the folder.
fn vendored() -> BTreeMap<String, Vec<u8>> {
    let folder = root().join("crates/keysweep/assets/vendor");
    let libraries = fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let files = libraries.filter(|path| path.is_dir()).flat_map(|library| {
        let files = fs::read_dir(&library).expect("a folder");
        files.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    });
    let relative = |path: &std::path::Path| path.strip_prefix(&folder).expect("below").display().to_string();
    files.map(|path| (relative(&path), fs::read(&path).expect("a file"))).collect()
}

#[test]
fn every_vendored_file_has_its_recorded_checksum() {
    let sums = fs::read_to_string(root().join("crates/keysweep/assets/vendor/SHA256SUMS")).expect("the checksums");
    let recorded: BTreeMap<String, String> = sums
        .lines()
        .filter_map(|line| line.split_once("  ./"))
        .map(|(sum, path)| (path.to_owned(), sum.to_owned()))
        .collect();
    let found: BTreeMap<String, String> =
        vendored().iter().map(|(path, content)| (path.clone(), hex::encode(Sha256::digest(content)))).collect();
    assert_eq!(found, recorded, "scripts/vendor copies the libraries and writes SHA256SUMS");
}

#[test]
fn every_vendored_library_has_its_licence_and_the_version_of_the_script() {
    let files = vendored();
    let script = fs::read_to_string(root().join("scripts/vendor")).expect("the script");
    let pinned: Vec<(&str, &str)> = script
        .lines()
        .filter_map(|line| line.strip_prefix("library "))
        .filter_map(|line| line.trim_end_matches(" \\").split_once(' '))
        .collect();
    assert!(!pinned.is_empty());
    for (name, version) in pinned {
        let licence = files.get(&format!("{name}/LICENSE")).unwrap_or_else(|| panic!("{name} has no licence"));
        assert!(String::from_utf8_lossy(licence).contains("MIT License"), "{name}: deny.toml lists the licences");
        let code = files.iter().filter(|(path, _)| path.starts_with(&format!("{name}/")) && path.ends_with(".js"));
        for (path, content) in code {
            let head = String::from_utf8_lossy(&content[..200]).into_owned();
            assert!(head.contains(&format!("(v{version})")), "{path} is another version than {version}: {head}");
        }
    }
}
