//! The list of phrases in phrases.toml.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, de::Error};

use super::texts::Text;

/// The whole list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phrases {
    /// Files and folders whose texts are not checked yet.
    pub not_yet_held: Vec<String>,
    /// Words of the glossary that no pattern can hold without false alarms.
    pub by_review: Vec<String>,
    /// The phrases.
    #[serde(rename = "phrase")]
    pub phrases: Vec<Phrase>,
}

/// One phrase that is ruled out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phrase {
    /// Case-insensitive; a space matches any white space.
    #[serde(deserialize_with = "compile")]
    pub pattern: Regex,
    /// What to write instead.
    #[serde(rename = "use")]
    pub instead: String,
    /// A text that the pattern matches.
    pub example: String,
    /// Where the phrase is forbidden.
    pub places: Vec<Place>,
    /// Where it is right.
    #[serde(default)]
    pub except: Vec<Exception>,
}

/// Kinds of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// README.md and docs/*.md, but for the glossary.
    Docs,
    /// The pages of the console.
    Templates,
    /// `--help` of every command.
    Help,
    /// Comments and doc comments of all crates, tests included.
    Comments,
    /// String literals of the engine and the product, unit tests excluded.
    Messages,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 5] = [Self::Docs, Self::Templates, Self::Help, Self::Comments, Self::Messages];
}

/// Where a phrase is right: a file or folder, or one line of a file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    file: String,
    /// Part of the line.
    #[serde(default)]
    line: String,
}

impl Exception {
    /// Returns whether the exception covers this line of a text.
    pub fn covers(&self, text: &Text, line: usize) -> bool {
        text.file.starts_with(&self.file) && text.text.lines().nth(line).is_some_and(|line| line.contains(&self.line))
    }
}

impl Phrases {
    /// Reads the list.
    pub fn read() -> Self {
        toml::from_str(include_str!("phrases.toml")).expect("phrases.toml can be parsed")
    }
}

/// Compiles a pattern once: that takes longer than all searches for it.
fn compile<'de, D: Deserializer<'de>>(field: D) -> Result<Regex, D::Error> {
    let pattern = String::deserialize(field)?.replace(' ', r"\s+");
    RegexBuilder::new(&pattern).case_insensitive(true).build().map_err(D::Error::custom)
}
