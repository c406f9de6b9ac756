//! Lists as tables, JSON or CSV: one form for every command that prints one.

use clap::Args;
use serde_json::Value;

use super::term;
use crate::csv::line;

/// Option of every list.
#[derive(Debug, Args)]
pub struct ListingArgs {
    /// How to print the list: table, json (as --json) or csv, which has the whole of what a table cuts
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

/// Formats a value of a response for CSV: empty if it is unknown.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name}={}", cell(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// Cuts a text for a table that must not grow with it.
pub fn shortened(text: &str, characters: usize) -> String {
    match text.chars().count() > characters {
        true => text.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_one_field_of_csv() {
        assert_eq!(cell(&json!({ "env": "prod", "team": "web" })), "env=prod,team=web");
        assert_eq!(
            (cell(&Value::Null), cell(&json!(7)), cell(&json!(true))),
            (String::new(), "7".into(), "true".into())
        );
    }

    #[test]
    fn a_long_text_is_cut_with_a_mark() {
        assert_eq!((shortened("redis://h", 9), shortened("redis://host", 9)), ("redis://h".into(), "redis://…".into()));
    }
}
