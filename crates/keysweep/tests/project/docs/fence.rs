//! Examples in the documents: fenced blocks and the attributes of their fences.

use std::{fs, path::PathBuf};

use crate::common::root;

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// Document and line, for messages.
    pub place: String,
    /// Language of the fence: `sh`, `python`, `json` …
    pub language: String,
    /// Whether it keeps running while later blocks run, as a service does.
    pub in_background: bool,
    /// Whether it is the output of the block before it.
    pub is_output: bool,
    /// Why no test runs it.
    pub not_run: Option<String>,
    /// Content.
    pub text: String,
}

/// Returns README.md and docs/*.md: name and text.
pub fn documents() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md")];
    let pages = fs::read_dir(root().join("docs")).expect("docs/");
    let pages = pages.map(|entry| entry.expect("an entry").path());
    paths.extend(pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").display().to_string();
        (name, fs::read_to_string(&path).expect("a text"))
    };
    paths.into_iter().map(read).collect()
}

/// Returns the blocks of a document.
pub fn blocks(name: &str, text: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(""), Some(block)) => blocks.push(block),
            (Some(info), Some(block)) => panic!("{}: a fence within it: {info}", block.place),
            (Some(info), None) => open = Some(begin(format!("{name}:{}", number + 1), info)),
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{name}: a fence is left open");
    blocks
}

fn begin(place: String, info: &str) -> Block {
    let (words, not_run) = match info.split_once("not-run=\"") {
        Some((words, reason)) => (words, Some(reason.trim_end().trim_end_matches('"').to_owned())),
        None => (info, None),
    };
    let words: Vec<&str> = words.split_whitespace().collect();
    let language = words.first().map_or_else(|| panic!("{place}: the fence says no language"), |word| word.to_string());
    for word in &words[1..] {
        assert!(["background", "output"].contains(word), "{place}: what does {word:?} mean?");
    }
    assert!(not_run.as_ref().is_none_or(|reason| reason.len() > 5), "{place}: the reason is missing");
    Block {
        place,
        language,
        in_background: words.contains(&"background"),
        is_output: words.contains(&"output"),
        not_run,
        text: String::new(),
    }
}

/// Returns indented lines outside fences, which look like examples.
pub fn indented(text: &str) -> Vec<&str> {
    let (mut found, mut fenced, mut before) = (Vec::new(), false, "");
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && before.is_empty() && line.starts_with("    ") {
            found.push(line);
        }
        before = line;
    }
    found
}
