//! The rows of the tables that a run prints.

use std::fmt;

/// Prints one row, Markdown.
pub fn row(cells: &[&dyn fmt::Display]) {
    let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
    println!("| {} |", cells.join(" | "));
}
