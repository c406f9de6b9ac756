//! Lists as tables, JSON or CSV: one form for every command that prints one.

use clap::Args;
use serde_json::Value;

use super::{columns::Head, term};
use crate::csv;

/// Option of every list.
#[derive(Debug, Args)]
pub struct ListingArgs {
    /// How to print the list: table, json (as --json) or csv, which has every column in full
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json", "csv"], hide_possible_values = true)]
    output: String,
}

/// A column of a table: its head, and the text of a row's cell.
pub struct Column(Head, fn(&Value) -> String);

impl Column {
    /// Returns a column that is shown whole or not at all.
    pub const fn whole(title: &'static str, cell: fn(&Value) -> String) -> Self {
        Self(Head { title, is_elastic: false }, cell)
    }

    /// Returns a column whose long cells are cut.
    pub const fn elastic(title: &'static str, cell: fn(&Value) -> String) -> Self {
        Self(Head { title, is_elastic: true }, cell)
    }
}

/// What a list consists of.
pub struct List<'l> {
    /// Fields in CSV, as JSON pointers into a row.
    pub fields: &'l [&'l str],
    /// Columns of the table, the most important first.
    pub columns: &'l [Column],
}

impl ListingArgs {
    /// Prints a list: `whole` as JSON, or its `rows` as a table or as CSV. Returns whether it was a table.
    pub fn print(&self, as_json: bool, whole: &Value, rows: &[Value], list: &List<'_>) -> bool {
        match (as_json, self.output.as_str()) {
            (true, _) | (_, "json") => term::json(whole),
            (_, "csv") => {
                term::line(&csv::header(list.fields));
                rows.iter().for_each(|row| term::line(&csv::row(row, list.fields)));
            }
            _ => {
                list.print(rows);
                return true;
            }
        }
        false
    }

    /// Returns whether the list is printed as a table, unless `--json` says otherwise.
    pub fn is_table(&self) -> bool {
        self.output == "table"
    }
}

impl List<'_> {
    /// Prints the table.
    pub fn print(&self, rows: &[Value]) {
        let cells = |row: &Value| self.columns.iter().map(|Column(_, cell)| cell(row)).collect();
        let heads: Vec<Head> = self.columns.iter().map(|Column(head, _)| *head).collect();
        term::list(&heads, rows.iter().map(cells).collect());
    }
}
