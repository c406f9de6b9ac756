//! Fields of a service's answers as people read them.

use indicatif::HumanCount;
use jiff::Timestamp;
use serde_json::Value;

/// A text; a dash where there is none.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".into(), str::to_owned)
}

/// A time, to the second.
pub fn time(value: &Value) -> String {
    let time = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    time.map_or_else(|| "-".into(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A count, with its thousands told apart.
pub fn count(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".into(), |count| HumanCount(count).to_string())
}

/// Yes or no.
pub fn yes(value: &Value) -> String {
    if value.as_bool() == Some(true) { "yes".into() } else { "no".into() }
}
