//! `keysweep completions` and `keysweep man`: completion scripts and manual pages, generated from the command line so that
//! they cannot be out of date.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use super::term;

/// Arguments of `keysweep completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell: bash, elvish, fish, powershell or zsh
    shell: Shell,
}

/// Arguments of `keysweep man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write one page per command to this folder, instead of one page to standard output
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Prints a completion script.
pub fn completions(args: &CompletionsArgs, mut command: Command) {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    term::document(&script);
}

/// Prints the page of `keysweep`, or writes the pages of all commands to a folder.
///
/// # Errors
/// A page cannot be written.
pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    let Some(folder) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        term::document(&page);
        return Ok(());
    };
    let context = || format!("--dir {}", folder.display());
    fs::create_dir_all(folder).with_context(context)?;
    clap_mangen::generate_to(command, folder).with_context(context)
}
