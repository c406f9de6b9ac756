//! Lines of CSV (RFC 4180), as spreadsheets read them.

/// Returns a line of CSV, without its end.
pub fn line(fields: impl IntoIterator<Item = String>) -> String {
    fields.into_iter().map(|field| quoted(&field)).collect::<Vec<_>>().join(",")
}

/// Quotes a field where it has to be. A spreadsheet runs a field that begins as a formula does.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_csv_is_quoted_and_runs_no_formula() {
        let fields = ["a", "b,c", "say \"so\"", "=1+1", ""].map(str::to_owned);
        assert_eq!(line(fields), "a,\"b,c\",\"say \"\"so\"\"\",'=1+1,");
    }
}
