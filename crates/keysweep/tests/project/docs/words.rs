//! Commands, options and variables of the command line, and those in the pages about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use clap::{Command, CommandFactory, parser::ValueSource};
use keysweep::cli::Cli;

use crate::common::root;

/// Variables without an option.
const WITHOUT_OPTION: [&str; 3] = ["KEYSWEEP_ACCESS_KEY", "KEYSWEEP_SECRET_KEY", "KEYSWEEP_LOG"];

/// The pages about the command line.
const PAGES: [&str; 4] = [
    "docs/command-line.md",
    "docs/command-line-stale-share.md",
    "docs/command-line-service.md",
    "docs/configuration.md",
];

/// Returns the text of the pages about the command line.
pub fn command_line_pages() -> String {
    PAGES.map(|page| fs::read_to_string(root().join(page)).expect("the page")).join("\n")
}

fn built() -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli
}

/// Returns every command without subcommands, such as `admin user add`, with its options and those of its parents, such as
/// `--database` of `admin`, but for those of [`everywhere`].
pub fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    walk(&built(), "", &BTreeSet::new(), &mut found);
    let everywhere = everywhere();
    for options in found.values_mut() {
        options.retain(|option| !everywhere.contains(option));
    }
    found
}

/// Returns the options of every command.
pub fn everywhere() -> BTreeSet<String> {
    built().get_arguments().filter_map(|argument| argument.get_long()).map(|name| format!("--{name}")).collect()
}

/// Returns all options of all commands, but for `--help`.
pub fn options() -> BTreeSet<String> {
    let mut all: BTreeSet<String> = commands().into_values().flatten().chain(everywhere()).collect();
    all.remove("--help");
    all
}

fn walk(command: &Command, path: &str, above: &BTreeSet<String>, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let below: Vec<&Command> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
    let options = command.get_arguments().filter_map(|argument| argument.get_long());
    let options = options.filter(|name| !["help", "version"].contains(name)).map(|name| format!("--{name}"));
    let options: BTreeSet<String> = options.chain(above.iter().cloned()).collect();
    for command in &below {
        walk(command, format!("{path} {}", command.get_name()).trim(), &options, found);
    }
    if below.is_empty() {
        found.insert(path.to_owned(), options);
    }
}

/// Returns the command of a line and the options it uses, in the form of [`commands`].
pub fn used_by(line: &[&str]) -> (String, BTreeSet<String>) {
    let root = built();
    let parsed = root.clone().try_get_matches_from(["keysweep"].iter().chain(line));
    let parsed = parsed.unwrap_or_else(|error| panic!("{line:?}: {error}"));
    let (mut command, mut matches) = (&root, &parsed);
    let (mut path, mut options) = (Vec::new(), BTreeSet::new());
    loop {
        let given = command
            .get_arguments()
            .filter(|argument| matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine));
        options.extend(given.filter_map(|argument| argument.get_long()).map(|name| format!("--{name}")));
        let Some((name, below)) = matches.subcommand() else { break };
        path.push(name);
        command = command.find_subcommand(name).expect("it was parsed as one");
        matches = below;
    }
    (path.join(" "), options)
}

/// Returns all variables, with and without an option.
pub fn variables() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = WITHOUT_OPTION.map(str::to_owned).into();
    let mut commands = vec![built()];
    while let Some(command) = commands.pop() {
        let names = command.get_arguments().filter_map(|argument| argument.get_env());
        found.extend(names.map(|name| name.to_string_lossy().into_owned()));
        commands.extend(command.get_subcommands().cloned());
    }
    found
}

/// Returns the text of code spans, and the lines of fences.
pub fn code_spans(text: &str) -> Vec<String> {
    let (mut spans, mut fenced) = (Vec::new(), false);
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            spans.push(line.trim().to_owned());
        } else {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

/// Returns the options in a text.
pub fn options_in(text: &str) -> BTreeSet<String> {
    let pieces = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '-'));
    let is_option =
        |piece: &&str| piece.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    pieces.filter(is_option).map(str::to_owned).collect()
}

/// Returns the variables in a text.
pub fn variables_in(text: &str) -> BTreeSet<String> {
    let pieces = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    pieces.filter(|piece| piece.starts_with("KEYSWEEP_")).map(str::to_owned).collect()
}

/// Returns the commands in code spans; `pause|resume` are two.
pub fn commands_in(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for span in code_spans(text).iter().chain(&headings(text)) {
        let Some(rest) = span.strip_prefix("keysweep ") else { continue };
        let mut ways = vec![String::new()];
        let is_word =
            |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '|') && !word.starts_with('-');
        for word in rest.split_whitespace().take_while(|word| is_word(word)) {
            let each = |way: &String| word.split('|').map(|word| format!("{way} {word}")).collect::<Vec<_>>();
            ways = ways.iter().flat_map(each).collect();
        }
        found.extend(ways.iter().filter_map(|way| as_far_as_it_is_one(way.trim())));
    }
    found
}

/// Returns the command of that name, unless it has subcommands.
fn as_far_as_it_is_one(way: &str) -> Option<String> {
    let is_beginning = commands().keys().any(|command| command.starts_with(&format!("{way} ")));
    (!way.is_empty() && !is_beginning).then(|| way.to_owned())
}

fn headings(text: &str) -> Vec<String> {
    let names = |line: &str| line.split(", ").map(str::to_owned).collect::<Vec<_>>();
    text.lines().filter_map(|line| line.strip_prefix("## ")).flat_map(names).collect()
}

/// Returns the section of the pages about a command, found by the first word of the command, with the options that
/// several commands share.
pub fn section_of(command: &str) -> String {
    let first = command.split(' ').next().unwrap_or_default();
    let page = command_line_pages();
    let is_about = |heading: &str| {
        heading.starts_with("Options of every command that opens the store")
            || heading.split(", ").any(|name| name.split(' ').nth(1) == Some(first))
    };
    let sections = page.split("\n## ").filter(|section| is_about(section.lines().next().unwrap_or_default()));
    let found: Vec<&str> = sections.collect();
    assert!(!found.is_empty(), "no page about the command line has a heading for {command:?}");
    found.join("\n")
}
