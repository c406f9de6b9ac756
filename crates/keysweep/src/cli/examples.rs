//! Examples at the end of every help text and manual page.

use clap::{Command, builder::Styles};

/// The examples of each command, by the words that call it.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "keysweep scan redis://127.0.0.1:6379",
            "keysweep estimate redis://127.0.0.1:6379",
            "keysweep hold redis://127.0.0.1:6379 --below 8%",
        ],
    ),
    (
        "scan",
        &[
            "keysweep scan redis://127.0.0.1:6379",
            "keysweep scan rediss-cluster://10.0.0.7:6379 --cacert ca.pem --pace gentle",
            "keysweep scan redis-sentinel://10.0.0.5,10.0.0.6/mymaster --dry-run",
            "keysweep scan -l env=prod --wait",
        ],
    ),
    (
        "estimate",
        &[
            "keysweep estimate redis://127.0.0.1:6379",
            "keysweep estimate redis-cluster://10.0.0.7:6379 --method replica --output csv",
            "keysweep estimate --rdb dump.rdb",
        ],
    ),
    (
        "survey",
        &[
            "keysweep survey redis://10.0.0.5 redis://10.0.0.6 --below 5%",
            "keysweep survey --inventory fleet.yaml -l env=prod --output csv",
        ],
    ),
    (
        "hold",
        &[
            "keysweep hold redis://127.0.0.1:6379 --below 8%",
            "keysweep hold redis://127.0.0.1:6379 --level advise --timeout 10m",
        ],
    ),
    ("restore", &["keysweep restore redis://127.0.0.1:6379", "keysweep restore --all --inventory fleet.yaml"]),
    ("init", &["keysweep init", "keysweep init --url redis://127.0.0.1:6379 --password-stdin < password.txt"]),
    (
        "serve",
        &[
            "keysweep serve",
            "keysweep serve --listen 0.0.0.0:7080 --tls-cert cert.pem --tls-key key.pem",
            "keysweep serve --config /etc/keysweep/keysweep.toml",
        ],
    ),
    ("worker", &["keysweep worker --config /etc/keysweep/keysweep.toml --concurrency 8"]),
    ("admin project add", &["keysweep admin project add shop"]),
    ("admin project list", &["keysweep admin project list"]),
    ("admin project remove", &["keysweep admin project remove shop"]),
    (
        "admin user add",
        &[
            "keysweep admin user add ada --project shop --role admin --password-prompt",
            "keysweep admin user add robot --project shop --role operator",
        ],
    ),
    ("admin user list", &["keysweep admin user list --output csv"]),
    ("admin user grant", &["keysweep admin user grant ada --project search --role reader"]),
    ("admin user revoke", &["keysweep admin user revoke ada --project search"]),
    ("admin user passwd", &["keysweep admin user passwd ada", "keysweep admin user passwd robot --none"]),
    ("admin user disable", &["keysweep admin user disable ada"]),
    ("admin user enable", &["keysweep admin user enable ada"]),
    ("admin user remove", &["keysweep admin user remove ada"]),
    ("admin access-key add", &["keysweep admin --json access-key add --user robot > key.json"]),
    ("admin access-key list", &["keysweep admin access-key list"]),
    ("admin access-key disable", &["keysweep admin access-key disable KSEXAMPLE"]),
    ("admin access-key enable", &["keysweep admin access-key enable KSEXAMPLE"]),
    ("admin access-key remove", &["keysweep admin access-key remove KSEXAMPLE"]),
    (
        "admin instance add",
        &[
            "keysweep admin instance add cache redis://127.0.0.1:6379 --project shop",
            "keysweep admin instance add carts rediss://sweeper@10.0.0.5 --project shop \\\n      --password-file carts.secret --label env=prod",
        ],
    ),
    (
        "admin instance set",
        &[
            "keysweep admin instance set cache --project shop --pace gentle",
            "keysweep admin instance set cache --project shop \\\n      --hold-level hold --hold-below 8%",
            "keysweep admin instance set cache --project shop \\\n      --hold-level hold --hold-max-hz none",
        ],
    ),
    ("admin instance pause", &["keysweep admin instance pause cache --project shop"]),
    ("admin instance resume", &["keysweep admin instance resume cache --project shop"]),
    ("admin instance restore", &["keysweep admin instance restore cache --project shop"]),
    ("admin instance remove", &["keysweep admin instance remove cache --project shop"]),
    ("admin instance list", &["keysweep admin instance list --project shop -l env=prod"]),
    (
        "admin audit",
        &[
            "keysweep admin audit --project shop --since 7d",
            "keysweep admin audit --project shop --kind instance --output csv > audit.csv",
        ],
    ),
    ("admin backup", &["keysweep admin backup /var/backups/keysweep.db"]),
    ("admin copy", &["KEYSWEEP_COPY_TO=postgres://… keysweep admin copy"]),
    ("admin key rotate", &["keysweep admin key rotate"]),
    ("task create", &["keysweep task create cache", "keysweep task create cache --wait"]),
    (
        "task list",
        &[
            "keysweep task list --status failed --since 24h -l env=prod",
            "keysweep task list cache --limit 50 --output csv",
        ],
    ),
    ("task show", &["keysweep task show 0123456789abcdef0123456789abcdef"]),
    ("task watch", &["keysweep task watch 0123456789abcdef0123456789abcdef"]),
    ("task cancel", &["keysweep task cancel 0123456789abcdef0123456789abcdef"]),
    ("instance list", &["keysweep instance list -l env=prod", "keysweep instance list --output csv > fleet.csv"]),
    ("instance show", &["keysweep instance show cache"]),
    ("apply", &["keysweep apply -f fleet.yaml --dry-run", "keysweep apply -f fleet.yaml --prune --yes"]),
    ("autoscan list", &["keysweep autoscan list -l env=prod"]),
    ("autoscan get", &["keysweep autoscan get cache"]),
    (
        "autoscan set",
        &[
            "keysweep autoscan set cache --below 5%",
            "keysweep autoscan set cache --enable --first-scan-at 2027-01-01T02:00:00Z \\\n      --interval 24h --timeout 48h",
        ],
    ),
    ("openapi", &["keysweep openapi > openapi.json"]),
    ("demo", &["keysweep demo --once"]),
    ("completions", &["keysweep completions bash > /etc/bash_completion.d/keysweep"]),
    ("man", &["keysweep man --dir /usr/local/share/man/man1"]),
];

/// Adds its examples to the help of a command and of all commands below it. Groups of commands show the first example of each.
pub fn add(command: Command) -> Command {
    added(command, "")
}

fn added(command: Command, path: &str) -> Command {
    let command = command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        added(below, path.trim())
    });
    let own = EXAMPLES.iter().find(|(name, _)| *name == path).map(|(_, examples)| examples.to_vec());
    let group = format!("{path} ");
    let of_group = || EXAMPLES.iter().filter(|(name, _)| name.starts_with(&group)).map(|(_, examples)| examples[0]);
    let examples: Vec<&str> = own.unwrap_or_else(|| of_group().collect());
    if examples.is_empty() {
        return command;
    }
    let head = *Styles::styled().get_header();
    let text = format!("{head}Examples:{head:#}\n  {}", examples.join("\n  "));
    let text = match command.get_after_help() {
        Some(before) => format!("{}\n\n{text}", before.ansi()),
        None => text,
    };
    command.after_help(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::{Cli, tests::each};

    #[test]
    fn every_help_text_has_examples_and_every_one_is_of_a_command() {
        let command = add(Cli::command());
        let mut paths = Vec::new();
        each(&command, "", &mut |command, path| {
            paths.push(path.to_owned());
            let help = command.clone().render_help().to_string();
            assert!(help.contains("\nExamples:\n  "), "keysweep {path} --help has no examples: {help}");
            let (_, lines) = help.split_once("\nExamples:\n").expect("examples");
            assert!(lines.lines().all(|line| line.chars().count() <= 80), "keysweep {path}: too long: {lines}");
        });
        for (name, _) in EXAMPLES {
            assert!(paths.iter().any(|path| path == name), "there is no `keysweep {name}`");
        }
    }

    #[test]
    fn every_example_is_a_command_line_that_is_accepted() {
        for (name, examples) in EXAMPLES {
            for example in *examples {
                // Redirections and variables are the shell's.
                let words = example
                    .split_whitespace()
                    .filter(|word| *word != "\\")
                    .skip_while(|word| word.contains('='))
                    .take_while(|word| !["<", ">"].contains(word));
                let words: Vec<&str> = words.collect();
                let line = words[1..].join(" ");
                let is_of_it = name.split(' ').all(|word| words.contains(&word) || word.is_empty());
                assert!(words[0] == "keysweep" && is_of_it, "{example:?} is not of `keysweep {name}`");
                // The target of a copy comes from a variable.
                if *name != "admin copy" {
                    let parsed = Cli::command().try_get_matches_from(&words);
                    assert!(parsed.is_ok(), "keysweep {line}: {}", parsed.expect_err("it is refused"));
                }
            }
        }
    }

    #[test]
    fn what_a_help_text_said_before_stays() {
        let command = added(Command::new("scan").after_help("First this."), "scan");
        let text = command.get_after_help().expect("a text").to_string();
        assert!(text.starts_with("First this.\n\nExamples:\n  keysweep scan redis://"), "{text}");
    }
}
