//! The form of ids and names, and the error of a field that has another form.

/// Returns whether the text is an id: 32 hexadecimal digits, or a UUID in its usual form.
pub fn is_id(text: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.len() {
        32 => is_hex(text),
        36 => text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(is_hex),
        _ => false,
    }
}

/// Returns whether the text can name a project, a user or an instance: 1 to 64 characters, no control characters, no
/// space at either end.
pub fn is_name(text: &str) -> bool {
    let length = text.chars().count();
    (1..=64).contains(&length) && text.trim() == text && !text.chars().any(char::is_control)
}

/// A field with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field} {value:?}: {remedy}")]
pub struct InvalidField {
    /// Name of the field.
    pub field: &'static str,
    /// Its value, shortened to 80 characters.
    pub value: String,
    /// What to write instead.
    pub remedy: &'static str,
}

impl InvalidField {
    pub(super) fn new(field: &'static str, value: &str, remedy: &'static str) -> Self {
        Self { field, value: value.chars().take(80).collect(), remedy }
    }
}

/// Checks the form of an id that an operator chose. Capital digits are refused: ids are compared as texts, and clients write the
/// same id in one way or the other.
pub fn check_id(field: &'static str, text: &str) -> Result<(), InvalidField> {
    let remedy = "use 32 hexadecimal digits or a UUID (8-4-4-4-12) in small letters, or leave it out";
    let is_small = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    (is_id(text) && is_small).then_some(()).ok_or_else(|| InvalidField::new(field, text, remedy))
}

/// Returns the same id in its other form: with dashes if it has none, and without if it has.
pub fn other_form(id: &str) -> String {
    let mut digits: String = id.chars().filter(|character| *character != '-').collect();
    if digits.len() == id.len() && id.len() == 32 {
        for position in [20, 16, 12, 8] {
            digits.insert(position, '-');
        }
    }
    digits
}

/// Checks the form of the name of a project, a user or an instance.
pub fn check_name(field: &'static str, text: &str) -> Result<(), InvalidField> {
    let remedy = "use 1 to 64 characters, without control characters and without spaces at either end";
    is_name(text).then_some(()).ok_or_else(|| InvalidField::new(field, text, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_and_uuids_are_ids() {
        for id in ["0123456789abcdef0123456789ABCDEF", "6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12"] {
            assert!(is_id(id), "{id}");
        }
        for other in [
            "",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdeg",
            "6c9f1a3e5d0b-4f27-9a64-0d5c3e9b7a12-",
            "6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a1g",
            "６ｃ9f1a3e5d0b4f279a640d5c3e9b7a1",
            "{project_id}",
            "0123456789ABCDEF0123456789abcdef",
            "6C9F1A3E-5d0b-4f27-9a64-0d5c3e9b7a12",
        ] {
            let error = check_id("project id", other).expect_err(other).to_string();
            assert!(error.contains("project id") && error.contains(&format!("{other:?}")), "{error}");
            assert!(error.contains("32 hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn an_id_has_a_form_with_dashes_and_one_without() {
        let forms = ["6c9f1a3e5d0b4f279a640d5c3e9b7a12", "6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12"];
        assert_eq!((other_form(forms[0]), other_form(forms[1])), (forms[1].into(), forms[0].into()));
        assert!(is_id(&other_form(forms[0])) && is_id(&other_form(forms[1])));
    }

    #[test]
    fn names_have_1_to_64_characters_without_spaces_at_the_ends() {
        assert!(is_name("session cache") && is_name(&"ü".repeat(64)));
        for other in ["", " x", "x ", "a\nb", &"x".repeat(65)] {
            assert!(!is_name(other), "{other:?}");
        }
    }
}
