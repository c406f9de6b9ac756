//! Names and IDs that do not exist: every command refuses them as invalid input, exit code 2.

use std::{collections::BTreeSet, fs};

use clap::{Command, CommandFactory};
use keysweep::cli::Cli;

use super::client::{Remote, nowhere};
use crate::common::stderr;

/// Commands of a service, with a part of the error.
const OF_A_SERVICE: [(&str, &str); 21] = [
    ("task create nosuch", "no instance \"nosuch\" in this project"),
    ("task create nosuch --wait", "no instance \"nosuch\" in this project"),
    ("task create {absent}", "does not exist"),
    ("task list nosuch", "no instance \"nosuch\" in this project"),
    ("task list {absent}", "does not exist"),
    ("task show {absent}", "there is no such task"),
    ("task show nosuch", "invalid task ID \"nosuch\""),
    ("task watch {absent}", "there is no such task"),
    ("task cancel {absent}", "there is no such task"),
    ("instance show nosuch", "no instance \"nosuch\" in this project"),
    ("instance show {absent}", "there is no such instance"),
    ("instance list --project nosuch", "unknown --project \"nosuch\""),
    ("autoscan list --project nosuch", "unknown --project \"nosuch\""),
    ("autoscan get nosuch", "no instance \"nosuch\" in this project"),
    ("autoscan get {absent}", "there is no such instance"),
    ("autoscan set nosuch --disable", "no instance \"nosuch\" in this project"),
    ("autoscan set {absent} --disable", "does not exist"),
    ("autoscan set {absent} --below 5%", "there is no such instance"),
    ("scan --all --project nosuch", "unknown --project \"nosuch\""),
    ("apply --file {inventory} --project nosuch --dry-run", "unknown --project \"nosuch\""),
    ("apply --file {inventory}.absent --dry-run", "No such file"),
];

/// Commands of the store; each names what it does not know.
const OF_THE_STORE: [&str; 29] = [
    "admin project remove nosuch",
    "admin user add ada --project nosuch --role reader",
    "admin user grant nosuch --project test --role reader",
    "admin user grant robot --project nosuch --role reader",
    "admin user revoke nosuch --project test",
    "admin user revoke robot --project nosuch",
    "admin user passwd nosuch --none",
    "admin user disable nosuch",
    "admin user enable nosuch",
    "admin user remove nosuch",
    "admin access-key add --user nosuch",
    "admin access-key disable nosuch",
    "admin access-key enable nosuch",
    "admin access-key remove nosuch",
    "admin instance add carts redis://127.0.0.1:1 --project nosuch",
    "admin instance set nosuch --project test --pace fast",
    "admin instance set cache --project nosuch --pace fast",
    "admin instance pause nosuch --project test",
    "admin instance pause cache --project nosuch",
    "admin instance resume nosuch --project test",
    "admin instance resume cache --project nosuch",
    "admin instance restore nosuch --project test",
    "admin instance restore cache --project nosuch",
    "admin instance remove nosuch --project test",
    "admin instance remove cache --project nosuch",
    "admin instance list --project nosuch",
    "admin instance set cache --project test --pace nosuch",
    "admin instance set cache --project test --sampling nosuch",
    "admin audit --project nosuch",
];

/// Commands that take no name of something that has to exist.
const WITHOUT_A_NAME: [&str; 7] = [
    "admin project add",
    "admin project list",
    "admin user list",
    "admin access-key list",
    "admin backup",
    "admin copy",
    "admin key rotate",
];

#[test]
fn a_name_that_does_not_exist_is_invalid_input_of_every_command() {
    let remote = Remote::start_with(&nowhere(), "admin", &[]);
    let inventory = remote.installation.folder().join("fleet.yaml");
    fs::write(&inventory, "instances: []\n").expect("written");
    let (absent, inventory) = ("0".repeat(32), inventory.display().to_string());
    for (line, words) in OF_A_SERVICE {
        let line = line.replace("{absent}", &absent).replace("{inventory}", &inventory);
        let output = remote.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{line}: {}", stderr(&output));
    }
    for line in OF_THE_STORE {
        let output = remote.installation.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains("nosuch"), "{line}: {}", stderr(&output));
    }
    assert!(stderr(&remote.installation.run(&["admin", "user", "remove", "nosuch"])).contains("admin user list"));
}

#[test]
fn every_command_that_takes_a_name_is_among_those_lines() {
    let lines = OF_A_SERVICE.iter().map(|(line, _)| *line).chain(OF_THE_STORE).chain(WITHOUT_A_NAME);
    let lines: Vec<String> = lines.map(|line| format!("{line} ")).collect();
    let mut cli = Cli::command();
    cli.build();
    let mut left = BTreeSet::new();
    for name in ["admin", "apply", "autoscan", "instance", "task"] {
        leaves(cli.find_subcommand(name).expect("a command"), name, &mut left);
    }
    assert!(left.len() > 25, "the search found hardly anything: {left:?}");
    left.retain(|path| !lines.iter().any(|line| line.starts_with(&format!("{path} "))));
    assert_eq!(left, BTreeSet::new(), "no line has a name that these do not know");
}

fn leaves(command: &Command, path: &str, found: &mut BTreeSet<String>) {
    let below: Vec<&Command> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
    for command in &below {
        leaves(command, &format!("{path} {}", command.get_name()), found);
    }
    if below.is_empty() {
        found.insert(path.to_owned());
    }
}
