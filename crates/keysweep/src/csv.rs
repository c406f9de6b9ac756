//! CSV for people and their spreadsheets (RFC 4180), for lists on the command line and exports of the API.

use serde_json::Value;

/// Returns a line of CSV, without its line break.
pub fn line(fields: impl IntoIterator<Item = String>) -> String {
    fields.into_iter().map(|field| quoted(&field)).collect::<Vec<_>>().join(",")
}

/// Returns the header of JSON pointers: `/stats/keys` is `stats_keys`.
pub fn header(pointers: &[&str]) -> String {
    line(pointers.iter().map(|pointer| pointer.trim_start_matches('/').replace('/', "_")))
}

/// Returns the line of an object: its fields at these JSON pointers.
pub fn row(object: &Value, pointers: &[&str]) -> String {
    line(pointers.iter().map(|pointer| cell(object.pointer(pointer).unwrap_or(&Value::Null))))
}

/// Formats a value: empty if it is unknown, `a=1,b=2` for an object, `a;b` for a list.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(";"),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name}={}", cell(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// Quotes a field where it has to be. A spreadsheet runs a field that begins as a formula does.
fn quoted(field: &str) -> String {
    let field = match field.starts_with(['=', '+', '-', '@', '\t']) && field.parse::<f64>().is_err() {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_quoted_and_runs_no_formula() {
        let fields = ["a", "b,c", "say \"so\"", "=1+1", "-5", "-x", ""].map(str::to_owned);
        assert_eq!(line(fields), "a,\"b,c\",\"say \"\"so\"\"\",'=1+1,-5,'-x,");
    }

    #[test]
    fn a_row_has_the_fields_of_an_object_and_nothing_for_those_that_are_unknown() {
        let object = json!({
            "name": "cache", "labels": { "env": "prod", "team": "web" }, "stats": { "keys": 7 }, "paused": true,
            "roles": [{ "role": "admin", "project": "shop" }, { "role": "reader", "project": "search" }], "window": null,
        });
        let pointers = ["/name", "/labels", "/stats/keys", "/paused", "/roles", "/window", "/absent"];
        assert_eq!(header(&pointers), "name,labels,stats_keys,paused,roles,window,absent");
        let expected = "cache,\"env=prod,team=web\",7,true,\"project=shop,role=admin;project=search,role=reader\",,";
        assert_eq!(row(&object, &pointers), expected);
    }
}
