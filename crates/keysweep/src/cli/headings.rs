//! Headings of the options in help texts: options that many commands have follow those of the command itself.

use clap::{Arg, Command};

/// Options of the connection to a server, of every command that has the last of them.
const CONNECTION: [&str; 12] = [
    "socket",
    "user",
    "password-file",
    "password-stdin",
    "cacert",
    "cert",
    "key",
    "sni",
    "sentinel-user",
    "sentinel-password-file",
    "sentinel-tls",
    "address-map",
];
/// Options of a service that is called, of every command that has the last of them.
const SERVICE: [&str; 4] = ["project", "credentials", "ca-file", "endpoint"];
/// Options of an installation, of every command that has the last of them.
const SETTINGS: [&str; 5] = ["config", "key-file", "allowed-targets", "new-database", "database"];
/// Options of what is printed.
const OUTPUT: [&str; 5] = ["json", "output", "color", "quiet", "verbose"];

/// Groups the options of a command and of all commands below it under headings.
pub fn group(command: Command) -> Command {
    let has = |name: &str| command.get_arguments().any(|arg| arg.get_long() == Some(name));
    let groups = [("Connection", &CONNECTION[..]), ("Service", &SERVICE[..]), ("Settings", &SETTINGS[..])];
    let mut groups: Vec<_> =
        groups.into_iter().filter(|(_, names)| names.last().is_some_and(|last| has(last))).collect();
    groups.push(("Output", &OUTPUT[..]));
    let heading = |arg: &Arg| {
        let name = arg.get_long()?;
        groups.iter().find(|(_, names)| names.contains(&name)).map(|(heading, _)| *heading)
    };
    let command = command.mut_args(|arg| match heading(&arg) {
        Some(heading) => arg.help_heading(heading),
        None => arg,
    });
    command.mut_subcommands(group)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::{Cli, tests::each};

    fn built() -> Command {
        let mut command = Cli::with_help();
        command.build();
        command
    }

    #[test]
    fn the_options_of_a_command_come_first_and_those_of_many_commands_under_their_headings() {
        let mut seen = BTreeSet::new();
        each(&built(), "", &mut |command, path| {
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let (name, heading) = (arg.get_long().unwrap_or_default(), arg.get_help_heading());
                seen.extend(heading.map(str::to_owned));
                let expected = match name {
                    "database" | "new-database" => Some("Settings"),
                    "sentinel-tls" | "cacert" => Some("Connection"),
                    "endpoint" | "ca-file" => Some("Service"),
                    "json" | "output" | "quiet" => Some("Output"),
                    "below" | "pace" | "interval" | "dry-run" | "data-dir" | "listen" | "role" => None,
                    _ => continue,
                };
                assert_eq!(heading, expected, "keysweep {path} --{name}");
            }
        });
        assert_eq!(seen.iter().collect::<Vec<_>>(), ["Connection", "Output", "Service", "Settings"]);
    }

    #[test]
    fn every_help_text_is_compact_and_begins_with_a_short_usage() {
        each(&built(), "", &mut |command, path| {
            let help = command.clone().render_long_help().to_string();
            assert!(!help.contains("see a summary"), "an option of keysweep {path} has a long help: {help}");
            let usage = help.lines().find(|line| line.starts_with("Usage: ")).expect("a usage");
            assert!(usage.chars().count() <= 100, "{usage}");
        });
    }
}
