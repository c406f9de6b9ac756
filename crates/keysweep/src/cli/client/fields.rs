//! Fields of a JSON object, formatted for the terminal.

use indicatif::HumanCount;
use jiff::Timestamp;
use serde_json::Value;

use crate::units::size;

/// Formats a string field; a dash if it is absent.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".into(), str::to_owned)
}

/// Formats a timestamp to the second; a dash if it is absent.
pub fn time(value: &Value) -> String {
    let time = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    time.map_or_else(|| "-".into(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Formats a count with thousands separators; a dash if it is absent.
pub fn count(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".into(), |count| HumanCount(count).to_string())
}

/// Formats a share, 0–1, in percent; a dash if it is absent.
pub fn share(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0))
}

/// Formats a size in bytes; a dash if it is absent.
pub fn memory(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".into(), size)
}

/// Formats a number without decimals; a dash if it is absent.
pub fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |number| format!("{number:.0}"))
}

/// Returns the name of a server's engine as its makers write it.
pub fn engine(name: &str) -> &str {
    match name {
        "redis" => "Redis",
        "valkey" => "Valkey",
        other => other,
    }
}

/// Formats a flag as yes or no.
pub fn yes(value: &Value) -> String {
    if value.as_bool() == Some(true) { "yes".into() } else { "no".into() }
}
