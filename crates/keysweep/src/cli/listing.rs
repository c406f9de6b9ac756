//! Lists as tables, JSON or CSV.

use clap::Args;
use serde_json::Value;

use super::term;

/// Option of every list.
#[derive(Debug, Args)]
pub struct ListingArgs {
    /// How to print the list: table, json (as --json) or csv
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json", "csv"])]
    output: String,
}

impl ListingArgs {
    /// Prints a list: `whole` as JSON, `table` with its header, or the `fields` of `rows` as CSV.
    pub fn print(&self, as_json: bool, whole: &Value, rows: &[Value], fields: &[&str], table: impl FnOnce(&[Value])) {
        match (as_json, self.output.as_str()) {
            (true, _) | (_, "json") => term::json(whole),
            (_, "csv") => {
                term::line(&line(fields.iter().map(|field| field.trim_start_matches('/').replace('/', "_"))));
                for row in rows {
                    term::line(&line(fields.iter().map(|field| cell(row.pointer(field).unwrap_or(&Value::Null)))));
                }
            }
            _ => table(rows),
        }
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

/// Returns a line of CSV.
pub fn line(fields: impl IntoIterator<Item = String>) -> String {
    fields.into_iter().map(|field| quoted(&field)).collect::<Vec<_>>().join(",")
}

/// Quotes a field of CSV where it has to be (RFC 4180). A spreadsheet runs a field that begins as a formula does.
fn quoted(field: &str) -> String {
    let field = match field.starts_with(['=', '+', '-', '@']) {
        true => format!("'{field}"),
        false => field.to_owned(),
    };
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
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
    fn a_field_of_csv_is_quoted_and_runs_no_formula() {
        let fields = ["a", "b,c", "say \"so\"", "=1+1", ""].map(str::to_owned);
        assert_eq!(line(fields), "a,\"b,c\",\"say \"\"so\"\"\",'=1+1,");
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
