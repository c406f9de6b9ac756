//! Texts in the database that stand for a value, kept apart from the value so that one that cannot be read is never
//! replaced by a default and never makes the row around it unreadable.

use std::{fmt, str::FromStr};

use keysweep_engine::Preset;

use super::{Labels, Window};

/// A stored text with the value read from it, or with the reason why this version cannot read it.
///
/// Two are equal when their texts are.
#[derive(Debug, Clone)]
pub struct Stored<T> {
    text: String,
    value: Result<T, String>,
}

impl<T> Stored<T> {
    /// Returns the text as it is stored.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the value, or why the text cannot be read.
    pub fn value(&self) -> Result<&T, &str> {
        self.value.as_ref().map_err(String::as_str)
    }
}

impl<T> Stored<T>
where
    T: FromStr<Err: fmt::Display>,
{
    /// Reads a stored text.
    pub fn read(text: impl Into<String>) -> Self {
        let text = text.into();
        let value = text.parse().map_err(|error: T::Err| error.to_string());
        Self { text, value }
    }
}

impl From<Preset> for Stored<Preset> {
    fn from(pace: Preset) -> Self {
        Self { text: pace.to_string(), value: Ok(pace) }
    }
}

impl From<Labels> for Stored<Labels> {
    fn from(labels: Labels) -> Self {
        Self { text: labels.to_string(), value: Ok(labels) }
    }
}

impl From<Window> for Stored<Window> {
    fn from(window: Window) -> Self {
        Self { text: window.to_string(), value: Ok(window) }
    }
}

impl<T> PartialEq for Stored<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<T> Eq for Stored<T> {}

/// Writes the text as it is stored, readable or not.
impl<T> fmt::Display for Stored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readable_text_has_its_value() {
        let pace: Stored<Preset> = Stored::read("gentle");
        assert_eq!((pace.text(), pace.value()), ("gentle", Ok(&Preset::Gentle)));
        assert_eq!(pace, Preset::Gentle.into());
    }

    #[test]
    fn an_unreadable_text_is_kept_with_the_reason() {
        let pace: Stored<Preset> = Stored::read("gentel");
        assert_eq!((pace.text(), pace.to_string().as_str()), ("gentel", "gentel"));
        let cause = pace.value().expect_err("unreadable");
        assert!(cause.contains("\"gentel\"") && cause.contains("gentle"), "{cause}");
    }
}
