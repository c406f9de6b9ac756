//! Request bodies, and errors for bodies that are not as documented.

use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Parses a body. Errors of the parser are passed on only if they name fields: others repeat values, and a value may be a
/// password.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if body.trim_ascii().is_empty() {
        return Err(ApiError::Invalid("the body is empty; send a JSON object".into()));
    }
    serde_json::from_slice(body).map_err(|error| {
        let message = error.to_string();
        let names_a_field = message.starts_with("unknown field `") || message.starts_with("missing field `");
        ApiError::Invalid(match error.classify() {
            serde_json::error::Category::Data if names_a_field => message,
            serde_json::error::Category::Data => {
                format!("a value in line {}, column {} is not of the documented type", error.line(), error.column())
            }
            _ => format!("the body is not JSON, as of line {}, column {}", error.line(), error.column()),
        })
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[allow(dead_code, reason = "only its parsing is tested")]
        name: String,
    }

    #[test]
    fn an_error_names_the_field_and_never_repeats_a_value() {
        for (body, word) in [
            ("", "empty"),
            ("{", "not JSON"),
            ("{}", "missing field `name`"),
            (r#"{"name":"a","nam":1}"#, "unknown field `nam`"),
            (r#"{"name":12345}"#, "column 13"),
            ("[12345, 2]", "documented type"),
        ] {
            let ApiError::Invalid(text) = read::<Example>(body.as_bytes()).expect_err(body) else { panic!("{body}") };
            assert!(text.contains(word) && !text.contains("12345"), "{body}: {text}");
        }
    }
}
