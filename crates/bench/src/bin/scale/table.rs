//! The tables that a run prints, in Markdown as in docs/scaling.md.

use std::fmt;

/// The heading of a table.
pub struct Table<'a>(pub &'a [&'a str]);

impl Table<'_> {
    /// Prints the heading.
    pub fn begin(&self) {
        let Self(cells) = self;
        println!("\n| {} |\n|---|{}", cells.join(" | "), "--:|".repeat(cells.len().saturating_sub(1)));
    }
}

/// Prints one row.
pub fn row(cells: &[&dyn fmt::Display]) {
    let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
    println!("| {} |", cells.join(" | "));
}
