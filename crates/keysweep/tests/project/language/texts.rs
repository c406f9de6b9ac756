//! Collects the texts that the glossary applies to.

use std::fs;

use clap::{Command, CommandFactory};
use keysweep::cli::Cli;

use super::phrases::Place;

use crate::common::root;

/// A piece of text and its origin.
#[derive(Debug)]
pub struct Text {
    /// Path below the root of the repository, or a command line.
    pub file: String,
    /// Number of the first line in the file.
    pub first_line: usize,
    /// The text, its line breaks as in the file.
    pub text: String,
}

impl Text {
    /// Returns the index of the line at this byte offset, counted within the text.
    pub fn line_at(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count()
    }
}

/// Returns all texts of a place.
pub fn of(place: Place) -> Vec<Text> {
    match place {
        Place::Docs => {
            let documents = files("docs", "md").into_iter().filter(|(name, _)| name != GLOSSARY);
            documents.chain([("README.md".into(), read("README.md"))]).map(|(file, text)| whole(file, text)).collect()
        }
        Place::Templates => {
            files("crates/keysweep/templates", "html").into_iter().map(|(file, text)| whole(file, text)).collect()
        }
        Place::Help => {
            let mut cli = Cli::command();
            cli.build();
            let mut texts = Vec::new();
            help(&mut cli, "keysweep", &mut texts);
            texts
        }
        Place::Comments => files("crates", "rs").iter().flat_map(|(file, source)| comments(file, source)).collect(),
        Place::Messages => {
            let sources =
                ["crates/engine/src", "crates/keysweep/src"].into_iter().flat_map(|folder| files(folder, "rs"));
            sources.flat_map(|(file, source)| messages(&file, &source)).collect()
        }
    }
}

const GLOSSARY: &str = "docs/glossary.md";

/// Returns the words in the last column of the glossary's tables.
pub fn ruled_out() -> Vec<String> {
    let glossary = read(GLOSSARY);
    let rows = glossary.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| term |"));
    let cells =
        rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit_once('|').filter(|_| !row.ends_with("| |")));
    cells.flat_map(|(_, cell)| cell.split(';').map(|word| word.trim().to_owned()).collect::<Vec<_>>()).collect()
}

/// Returns every run of comment lines of a source, without the comment markers.
pub fn comments(file: &str, source: &str) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    let mut open = false;
    for (number, line) in source.lines().enumerate() {
        let comment = line.trim_start().strip_prefix("//").map(|rest| rest.trim_start_matches(['/', '!']).trim());
        match (comment, texts.last_mut()) {
            (Some(comment), Some(text)) if open => {
                text.text.push('\n');
                text.text.push_str(comment);
            }
            (Some(comment), _) => {
                texts.push(Text { file: file.to_owned(), first_line: number + 1, text: comment.to_owned() });
            }
            (None, _) => {}
        }
        open = comment.is_some();
    }
    texts
}

/// Returns the string literals of a source, with their line numbers; escapes stay as written.
pub fn literals(source: &str) -> Vec<(usize, String)> {
    let characters: Vec<char> = source.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let (mut literals, mut index, mut line) = (Vec::new(), 0, 1);
    while index < characters.len() {
        let begin = (index, line);
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < characters.len() && at(index) != '\n' {
                    index += 1;
                }
                continue;
            }
            // A character such as '"', and not a lifetime.
            '\'' if at(index + 1) == '\\' => {
                index += 3;
                while index < characters.len() && at(index) != '\'' {
                    index += 1;
                }
            }
            '\'' if at(index + 2) == '\'' => index += 2,
            '"' => {
                let hashes = (1..=index).take_while(|back| at(index - back) == '#').count();
                let raw = index > hashes && at(index - hashes - 1) == 'r';
                let mut text = String::new();
                index += 1;
                while index < characters.len() {
                    let closes = at(index) == '"' && (!raw || (1..=hashes).all(|ahead| at(index + ahead) == '#'));
                    if closes {
                        break;
                    }
                    if at(index) == '\\' && !raw {
                        if at(index + 1) == '\n' {
                            // The compiler drops the line break and the indentation behind it.
                            line += 1;
                            index += 2;
                            while at(index).is_whitespace() {
                                index += 1;
                            }
                            continue;
                        }
                        text.push('\\');
                        index += 1;
                    }
                    line += usize::from(at(index) == '\n');
                    text.push(at(index));
                    index += 1;
                }
                literals.push((begin.1, text));
            }
            '\n' => line += 1,
            _ => {}
        }
        index += 1;
    }
    literals
}

fn messages(file: &str, source: &str) -> Vec<Text> {
    let production = source.split("#[cfg(test)]").next().unwrap_or_default();
    let prose = literals(production).into_iter().filter(|(_, text)| text.trim().contains(' '));
    prose.map(|(first_line, text)| Text { file: file.to_owned(), first_line, text }).collect()
}

fn help(command: &mut Command, path: &str, texts: &mut Vec<Text>) {
    let text = command.render_long_help().to_string();
    texts.push(Text { file: format!("{path} --help"), first_line: 1, text });
    for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
        let path = format!("{path} {}", below.get_name());
        help(below, &path, texts);
    }
}

fn whole(file: String, text: String) -> Text {
    Text { file, first_line: 1, text }
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns the files of a folder and its subfolders that have this extension, with their texts.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
                found.push((name, text));
            }
        }
    }
    found.sort();
    found
}
