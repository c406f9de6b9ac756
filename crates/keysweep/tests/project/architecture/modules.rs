//! Reads the uses between the modules of a crate from its source text, and finds circles among them.

use std::collections::{BTreeMap, BTreeSet};

/// Edges of a graph: each module with the modules that it uses.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// Returns all paths in a source text that begin with `crate`, `super` or `self`, with groups expanded:
/// `use crate::{a::B, c}` gives `["crate", "a", "B"]` and `["crate", "c"]`. Comments are left out.
pub fn paths(text: &str) -> Vec<Vec<String>> {
    let words = words(text);
    let mut paths = Vec::new();
    let mut position = 0;
    while position < words.len() {
        let is_start = matches!(words[position].as_str(), "crate" | "super" | "self")
            && words.get(position + 1).is_some_and(|next| next == "::")
            && position.checked_sub(1).is_none_or(|before| words[before] != "::");
        if is_start {
            position = tree(&words, position, &[], &mut paths);
        } else {
            position += 1;
        }
    }
    paths
}

/// Splits a source text into identifiers, `::` and other characters.
fn words(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let mut words: Vec<String> = Vec::new();
    let code = code.join("\n");
    let mut characters = code.chars().peekable();
    while let Some(c) = characters.next() {
        if c.is_alphanumeric() || c == '_' {
            let mut word = c.to_string();
            while let Some(next) = characters.next_if(|next| next.is_alphanumeric() || *next == '_') {
                word.push(next);
            }
            words.push(word);
        } else if c == ':' && characters.next_if_eq(&':').is_some() {
            words.push("::".into());
        } else if !c.is_whitespace() {
            words.push(c.to_string());
        }
    }
    words
}

/// Adds the paths of the use tree at `position`, and returns the position after it.
fn tree(words: &[String], mut position: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(word) = words.get(position) {
        if word == "{" {
            position += 1;
            while words.get(position).is_some_and(|word| word != "}") {
                position = tree(words, position, &path, paths);
                while words.get(position).is_some_and(|word| word != "," && word != "}") {
                    // What follows a path in a group, such as `as Name`.
                    position += 1;
                }
                if words.get(position).is_some_and(|word| word == ",") {
                    position += 1;
                }
            }
            return position + 1;
        }
        path.push(word.clone());
        position += 1;
        if words.get(position).is_none_or(|word| word != "::") {
            break;
        }
        position += 1;
    }
    paths.push(path);
    position
}

/// A source file of a crate: its module path, empty for `lib.rs` and `main.rs`, and its text without unit tests.
pub struct Module {
    pub path: Vec<String>,
    /// Whether the file is the root of a folder (`mod.rs`, `lib.rs`, `main.rs`).
    pub is_folder: bool,
    pub text: String,
}

/// Returns the graphs of a crate, one per folder, by the module path of the folder. Their nodes are the children of the folder,
/// a folder being one node, and the folder's own file, called by the folder's name: the items that it defines, as opposed to
/// those that it only re-exports.
pub fn graphs(modules: &[Module]) -> BTreeMap<String, Graph> {
    let folders: Vec<&Module> = modules.iter().filter(|module| module.is_folder).collect();
    folders.into_iter().map(|folder| (folder.path.join("::"), graph(folder, modules))).collect()
}

fn graph(folder: &Module, modules: &[Module]) -> Graph {
    let own = folder.path.last().map_or("the crate's root", String::as_str);
    let depth = folder.path.len();
    let child_of =
        |path: &[String]| (path.len() > depth && path.starts_with(&folder.path)).then(|| path[depth].clone());
    let children: BTreeSet<String> = modules.iter().filter_map(|module| child_of(&module.path)).collect();
    let reexports = reexports(folder, &children);
    let mut graph = Graph::new();
    for module in modules.iter().filter(|module| module.path.starts_with(&folder.path)) {
        let from = child_of(&module.path);
        for path in paths(&module.text) {
            let Some(absolute) = absolute(module, &path) else { continue };
            let Some(name) = child_of(&absolute) else { continue };
            // A name that is no child is an item of the folder's own file, or of the child that it is re-exported from.
            let used = if children.contains(&name) { Some(name) } else { reexports.get(&name).cloned() };
            let (from, used) = (from.as_deref().unwrap_or(own), used.as_deref().unwrap_or(own));
            if from != used {
                graph.entry(from.to_owned()).or_default().insert(used.to_owned());
            }
        }
    }
    // The folder's own file names its children without a prefix.
    let words = words(&folder.text);
    for (position, word) in words.iter().enumerate() {
        let is_path = words.get(position + 1).is_some_and(|next| next == "::")
            && position.checked_sub(1).is_none_or(|before| words[before] != "::");
        if is_path && children.contains(word) && !is_reexport(&words[..position]) {
            graph.entry(own.to_owned()).or_default().insert(word.clone());
        }
    }
    graph
}

/// Returns a path from the crate's root without `crate`; `None` for what is not below it.
fn absolute(module: &Module, path: &[String]) -> Option<Vec<String>> {
    // The file `a/b.rs` and the file `a/b/mod.rs` are both the module `a::b`.
    let mut base = if path[0] == "crate" { Vec::new() } else { module.path.clone() };
    let mut rest = path;
    while let Some((first, more)) = rest.split_first() {
        match first.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()?),
            _ => break,
        }
        rest = more;
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// Returns whether the words before a path make it a re-export: `pub use`, `pub(crate) use`.
fn is_reexport(before: &[String]) -> bool {
    // A brace that closes a group of a `use` is followed by more of it.
    let ends = |at: usize| {
        let continues = before.get(at + 1).is_some_and(|next| matches!(next.as_str(), "," | "}" | ";"));
        before[at] == ";" || (before[at] == "}" && !continues)
    };
    let Some(at) = (0..before.len()).rev().find(|at| ends(*at)) else {
        return before.starts_with(&["pub".into(), "use".into()]);
    };
    let statement = &before[at + 1..];
    statement.first().is_some_and(|word| word == "pub") && statement.iter().any(|word| word == "use")
}

/// Returns the names that a folder's file re-exports, with the child of each.
fn reexports(folder: &Module, children: &BTreeSet<String>) -> BTreeMap<String, String> {
    let words = words(&folder.text);
    let mut names = BTreeMap::new();
    for (position, word) in words.iter().enumerate() {
        if children.contains(word)
            && is_reexport(&words[..position])
            && (words[..position].last().is_some_and(|word| word != "::")
                || words[..position].ends_with(&["self".into(), "::".into()]))
        {
            let mut paths = Vec::new();
            tree(&words, position, &[], &mut paths);
            names.extend(paths.into_iter().filter_map(|path| Some((path.last()?.clone(), word.clone()))));
        }
    }
    names
}

/// Returns a circle of the graph, its first module repeated at the end.
pub fn circle(graph: &Graph) -> Option<Vec<String>> {
    let mut finished = BTreeSet::new();
    graph.keys().find_map(|start| visit(graph, start, &mut Vec::new(), &mut finished))
}

fn visit<'a>(
    graph: &'a Graph,
    at: &'a str,
    open: &mut Vec<&'a str>,
    finished: &mut BTreeSet<&'a str>,
) -> Option<Vec<String>> {
    if let Some(first) = open.iter().position(|module| *module == at) {
        return Some(open[first..].iter().chain([&at]).map(|module| (*module).to_owned()).collect());
    }
    if finished.contains(at) {
        return None;
    }
    open.push(at);
    let found = graph.get(at).into_iter().flatten().find_map(|used| visit(graph, used, open, finished));
    open.pop();
    finished.insert(at);
    found
}
