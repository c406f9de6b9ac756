//! What ARCHITECTURE.md promises, as far as a test can see it.

mod modules;

use std::{fs, path::Path};

use modules::{Module, circle, graphs, paths};

use crate::common::root;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a folder, with their text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let (mut files, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                files.push((name, read(&path)));
            }
        }
    }
    assert!(!files.is_empty(), "{folder} has no sources");
    files
}

/// The part of a file that is not its unit tests.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

/// Returns the modules of crates/keysweep that a file names in paths from the crate's root.
fn modules_used(text: &str) -> Vec<String> {
    let paths = paths(production(text)).into_iter().filter(|path| path[0] == "crate");
    paths.filter_map(|path| path.get(1).cloned()).filter(|name| name != "self").collect()
}

/// From left to right, as the drawing has them; a module may use those of higher rank, and itself.
const RANKS: &[(&str, u32)] = &[
    ("cli", 0),
    ("app", 1),
    ("router", 2),
    ("openapi", 3),
    ("api", 4),
    ("console", 4),
    ("dcs", 4),
    ("iam", 4),
    ("hold", 5),
    ("surface", 5),
    ("auth", 6),
    ("task", 6),
    ("identity", 7),
    ("instances", 7),
    ("inventory", 6),
    ("metrics", 8),
    ("secrets", 8),
    ("answers", 10),
    ("connections", 10),
    ("store", 9),
    ("config", 10),
    ("telemetry", 10),
    ("tls", 9),
    ("folder", 11),
    ("allocator", 11),
    ("loopback", 11),
    ("model", 11),
    ("proxies", 11),
    ("random", 11),
    ("request", 11),
    ("units", 11),
    ("budget", 12),
    ("csv", 12),
];

/// The engine's folders and the files beside them, from the sweep down to the stop; each may use those of higher rank, and
/// itself.
const ENGINE_RANKS: &[(&str, u32)] = &[
    ("hold", 0),
    ("estimate", 1),
    ("scan", 1),
    ("pacing", 2),
    ("options", 3),
    ("monitor", 4),
    ("server", 5),
    ("speed", 6),
    ("record", 6),
    ("topology", 7),
    ("failure", 8),
    ("link", 9),
    ("url", 9),
    ("limits", 10),
    ("rdb", 10),
    ("stale", 10),
    ("target", 10),
    ("stop", 10),
    ("address", 11),
];

#[test]
fn the_engine_has_one_direction() {
    let rank = |module: &str| ENGINE_RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank);
    let mut seen = 0;
    for (file, text) in sources("crates/engine/src") {
        let inside = file.trim_start_matches("crates/engine/src/");
        let module = inside.split(['/', '.']).next().unwrap_or_default();
        if module == "lib" {
            continue;
        }
        let own = rank(module).unwrap_or_else(|| panic!("{file}: the module {module:?} has no rank"));
        for used in modules_used(&text) {
            let other = rank(&used).unwrap_or_else(|| panic!("{file} uses {used:?}, which has no rank"));
            assert!(used == module || other > own, "{file} uses crate::{used}, which is not below it");
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} uses were found; the search finds too little");
}

#[test]
fn no_module_uses_one_to_its_left() {
    let rank = |module: &str| RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank);
    let mut seen = 0;
    for (file, text) in sources("crates/keysweep/src") {
        let inside = file.trim_start_matches("crates/keysweep/src/");
        let module = inside.split(['/', '.']).next().unwrap_or_default();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let own =
            rank(module).unwrap_or_else(|| panic!("{file}: the module {module:?} has no place in ARCHITECTURE.md"));
        for used in modules_used(&text) {
            let other = rank(&used).unwrap_or_else(|| panic!("{file} uses {used:?}, which is no module"));
            assert!(used == module || other > own, "{file} uses {used}, which stands to its left or beside it");
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} uses were found; the search finds too little");
}

/// Sources whose modules form no circles; programs of a crate with several binaries count by themselves.
const WITHOUT_CIRCLES: &[&str] = &[
    "crates/engine/src",
    "crates/harness/src",
    "crates/keysweep/src",
    "crates/bench/src",
    "crates/bench/src/bin/scale",
];

/// Folders of the product whose file defines a type that the files beside it implement, aggregate by aggregate. That file is
/// left out of the search; the others form no circles either.
const TYPES_IN_PARTS: &[&str] = &["auth", "cli::client", "identity", "instances", "metrics"];

/// Returns the modules of a crate whose root file is in this folder.
fn modules(folder: &str) -> Vec<Module> {
    let inside = |file: &str| file.trim_start_matches(folder).trim_start_matches('/').to_owned();
    let files = sources(folder).into_iter().map(|(file, text)| (inside(&file), text));
    let modules = files.filter(|(file, _)| !file.starts_with("bin/")).map(|(file, text)| {
        let mut path: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        let is_folder = path.last().is_some_and(|name| matches!(name.as_str(), "lib" | "main" | "mod"));
        if is_folder {
            path.pop();
        }
        Module { path, is_folder, text: production(&text).to_owned() }
    });
    modules.collect()
}

#[test]
fn modules_form_no_circles() {
    for folder in WITHOUT_CIRCLES {
        let mut uses = 0;
        for (module, mut graph) in graphs(&modules(folder)) {
            if *folder == "crates/keysweep/src" && TYPES_IN_PARTS.contains(&module.as_str()) {
                let own = module.rsplit("::").next().unwrap_or_default();
                graph.remove(own);
            }
            uses += graph.values().map(std::collections::BTreeSet::len).sum::<usize>();
            let circle = circle(&graph).unwrap_or_default().join(" → ");
            assert!(circle.is_empty(), "{folder}: modules of \"crate::{module}\" use each other in a circle: {circle}");
        }
        assert!(uses > 5, "{folder}: only {uses} uses were found; the search finds too little");
    }
}

#[test]
fn a_circle_is_found_through_groups_parents_and_reexports() {
    let module = |path: &[&str], is_folder, text: &str| Module {
        path: path.iter().map(|name| (*name).to_owned()).collect(),
        is_folder,
        text: text.to_owned(),
    };
    let circles = |modules: &[Module]| -> Vec<String> {
        graphs(modules).values().filter_map(circle).map(|circle| circle.join(" ")).collect()
    };
    let root = || module(&[], true, "mod a;\nmod b;\npub use b::{Thing, Other as More};\n");
    let a = || module(&["a"], false, "use crate::b::Thing; // not crate::c\nfn f() { super::b::g() }");
    assert!(circles(&[root(), a(), module(&["b"], false, "fn g() {}")]).is_empty());
    assert_eq!(circles(&[root(), a(), module(&["b"], false, "use crate::{self, a::{f as h}};")]), ["a b a"]);
    let through_root = [root(), a(), module(&["b"], false, ""), module(&["c"], false, "use crate::Thing;")];
    assert!(circles(&through_root).is_empty());
    let root = module(&[], true, "mod a;\nfn main() { a::f() }\nfn help() {}");
    assert_eq!(circles(&[root, module(&["a"], false, "fn f() { crate::help() }")]), ["a the crate's root a"]);
    let nested = [
        module(&[], true, "mod link;"),
        module(&["link"], true, "mod dial;\nmod tls;\npub(crate) use tls::wrap;"),
        module(&["link", "dial"], false, "use super::wrap;"),
        module(&["link", "tls"], false, "use super::dial::Dialer;"),
    ];
    assert_eq!(circles(&nested), ["dial tls dial"]);
}

#[test]
fn every_file_of_the_engine_and_every_module_of_the_product_is_on_the_map() {
    let map = read(&root().join("ARCHITECTURE.md"));
    for (file, _) in sources("crates/engine/src") {
        let name = file.rsplit('/').next().expect("a name");
        // What holds tests only is found where it is used.
        let is_test = file.contains("/tests/");
        assert!(is_test || name == "mod.rs" || map.contains(&format!("`{name}`")), "{file} is not in ARCHITECTURE.md");
    }
    for entry in fs::read_dir(root().join("crates/keysweep/src")).expect("the sources") {
        let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
        let module = if name.ends_with(".rs") { format!("`{name}`") } else { format!("`{name}/`") };
        assert!(
            matches!(name.as_str(), "lib.rs" | "main.rs") || map.contains(&module),
            "{name} is not in ARCHITECTURE.md"
        );
    }
    for line in map.lines().filter(|line| line.starts_with("| `")) {
        let name = line.split('`').nth(1).expect("a name in backticks");
        let places = ["crates/engine/src", "crates/keysweep/src", "crates/keysweep"];
        assert!(
            places.iter().any(|place| root().join(place).join(name).exists()),
            "the map names {name}, which is not there"
        );
    }
    assert!(map.lines().count() <= 150);
}

#[test]
fn the_engine_knows_neither_http_nor_sql() {
    let manifest = read(&root().join("crates/engine/Cargo.toml"));
    let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
    for foreign in ["axum", "sqlx", "tokio", "ureq", "keysweep-harness"] {
        assert!(!dependencies.contains(&format!("\n{foreign} ")), "the engine depends on {foreign}");
    }
}

#[test]
fn sql_is_in_one_place() {
    for (file, text) in sources("crates/keysweep/src") {
        let text = production(&text);
        let is_engine = file.starts_with("crates/keysweep/src/store/db/");
        assert!(is_engine || !text.contains("sqlx"), "{file} uses sqlx, which belongs in store/db");
        let is_statement =
            ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM "].iter().any(|verb| text.contains(verb));
        assert!(file.starts_with("crates/keysweep/src/store/") || !is_statement, "{file} has an SQL statement");
    }
}

#[test]
fn status_codes_are_in_one_file_per_surface() {
    for (file, text) in sources("crates/keysweep/src") {
        let allowed =
            ["dcs/error.rs", "api/error.rs", "iam/error.rs", "console/error.rs", "src/router.rs", "src/surface.rs"]
                .iter()
                .any(|place| file.ends_with(place));
        assert!(allowed || !production(&text).contains("StatusCode::"), "{file} knows status codes");
    }
}

#[test]
fn only_the_terminal_file_draws() {
    for folder in ["crates/keysweep/src", "crates/engine/src"] {
        for (file, text) in sources(folder) {
            let text = production(&text);
            let draws = ["println!", "eprintln!", "print!(", "stdout()"].iter().any(|word| text.contains(word));
            // An example in the documentation shows how a caller would print.
            let allowed = file.ends_with("cli/term.rs") || file.ends_with("engine/src/lib.rs");
            assert!(allowed || !draws, "{file} writes to the terminal");
        }
    }
}

#[test]
fn surfaces_do_not_touch_the_store() {
    for (file, text) in sources("crates/keysweep/src") {
        let is_surface = ["/dcs/", "/api/", "/iam/", "/console/"].iter().any(|surface| file.contains(surface));
        if is_surface || file.ends_with("/router.rs") {
            // The variant of an error is not the store.
            let text = production(&text).replace("::Store(", "");
            let uses = text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "Store");
            assert!(!uses, "{file} uses the store's verbs");
        }
    }
}

#[test]
fn every_document_that_is_linked_is_there() {
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = read(&root().join(file));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            assert!(
                target.starts_with("http") || root().join(path).exists(),
                "{file} links {target}, which is not there"
            );
        }
    }
}
