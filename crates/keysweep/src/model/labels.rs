//! Labels of instances, by which operators group and select them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::InvalidField;

/// Most labels of one instance.
pub const MAX_LABELS: usize = 32;
/// Longest name and longest value of a label, in characters.
pub const MAX_LABEL_LENGTH: usize = 63;

const NAME_REMEDY: &str =
    "a label's name has 1 to 63 letters, digits, '-', '_', '.' and '/', with a letter or a digit at both ends";
const VALUE_REMEDY: &str =
    "a label's value has at most 63 letters, digits, '-', '_' and '.', with a letter or a digit at both ends";
const PAIR_REMEDY: &str = "write NAME=VALUE, for example env=prod";

/// One label: a name and a value, written as `env=prod`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Name, unique on an instance.
    pub name: String,
    /// Value; may be empty.
    pub value: String,
}

impl FromStr for Label {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let pair = text.split_once('=').ok_or_else(|| InvalidField::new("label", text, PAIR_REMEDY))?;
        let (name, value) = (pair.0.trim(), pair.1.trim());
        if name.is_empty() || !is_part(name, true) {
            return Err(InvalidField::new("label", text, NAME_REMEDY));
        }
        match is_part(value, false) {
            true => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            false => Err(InvalidField::new("label", text, VALUE_REMEDY)),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// Returns whether a text can be a value, or a name.
fn is_part(text: &str, is_name: bool) -> bool {
    let is_inner = |character: char| {
        character.is_ascii_alphanumeric() || "-_.".contains(character) || (is_name && character == '/')
    };
    let has_ends = |end: Option<char>| end.is_none_or(|character| character.is_ascii_alphanumeric());
    text.len() <= MAX_LABEL_LENGTH
        && text.chars().all(is_inner)
        && has_ends(text.chars().next())
        && has_ends(text.chars().next_back())
}

/// The labels of an instance, by name. Stored and shown as a JSON object of strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Returns the labels of an object from names to values, or which one is invalid.
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, InvalidField> {
        labels
            .into_iter()
            .map(|(name, value)| format!("{name}={value}").parse())
            .collect::<Result<Vec<_>, _>>()?
            .try_into()
    }

    /// Reads labels as people type them: `env=prod`, separated by commas or spaces.
    pub fn typed(text: &str) -> Result<Self, InvalidField> {
        let labels = text.split([',', ' ', '\n', '\r']).filter(|label| !label.is_empty());
        labels.map(str::parse).collect::<Result<Vec<_>, _>>()?.try_into()
    }

    /// Returns these labels with the given ones added, or with their new values, and without those of the removed names.
    ///
    /// # Errors
    /// A removed name is no label of these, or is among the given ones; a name is given twice; or there would be too many.
    pub fn with(&self, given: &[Label], removed: &[String]) -> Result<Self, InvalidField> {
        let Self(given) = given.to_vec().try_into()?;
        let mut labels = self.0.clone();
        for name in removed {
            if given.contains_key(name) {
                return Err(InvalidField::new("label", name, "add or change it, or remove it, but not both"));
            }
            if labels.remove(name).is_none() {
                return Err(InvalidField::new("label", name, "give the name of a label that the instance has"));
            }
        }
        labels.extend(given);
        labels.into_iter().map(|(name, value)| Label { name, value }).collect::<Vec<_>>().try_into()
    }

    /// Returns whether an instance with these labels has all of the wanted ones.
    pub fn have(&self, wanted: &[Label]) -> bool {
        wanted.iter().all(|label| self.0.get(&label.name) == Some(&label.value))
    }

    /// Returns the labels as an object from names to values.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Returns each label, by name.
    pub fn iter(&self) -> impl Iterator<Item = Label> {
        self.0.iter().map(|(name, value)| Label { name: name.clone(), value: value.clone() })
    }
}

impl TryFrom<Vec<Label>> for Labels {
    type Error = InvalidField;

    fn try_from(labels: Vec<Label>) -> Result<Self, InvalidField> {
        let mut map = BTreeMap::new();
        for label in labels {
            if map.len() == MAX_LABELS {
                return Err(InvalidField::new("label", &label.to_string(), "an instance has at most 32 labels"));
            }
            let text = label.to_string();
            if map.insert(label.name, label.value).is_some() {
                return Err(InvalidField::new("label", &text, "give each name once"));
            }
        }
        Ok(Self(map))
    }
}

/// Reads the stored form.
impl FromStr for Labels {
    type Err = String;

    fn from_str(json: &str) -> Result<Self, String> {
        let map = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Self::new(map).map_err(|error| error.to_string())
    }
}

/// Writes the stored form.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map = self.0.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        write!(f, "{}", serde_json::Value::Object(map.collect()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn labels(text: &str) -> Labels {
        Labels::typed(text).expect("labels")
    }

    #[test]
    fn labels_come_back_as_they_were_stored() {
        let both = labels("env=prod, team.example/owner=web");
        assert_eq!(both.to_string(), r#"{"env":"prod","team.example/owner":"web"}"#);
        assert_eq!(both.to_string().parse::<Labels>(), Ok(both));
        assert_eq!(Labels::default().to_string(), "{}");
        assert_eq!(labels("canary=").as_map()["canary"], "");
    }

    #[test]
    fn an_instance_is_selected_by_all_wanted_labels() {
        let both = labels("env=prod team=web");
        let wanted = |text: &str| labels(text).iter().collect::<Vec<_>>();
        assert!(both.have(&[]) && both.have(&wanted("env=prod")) && both.have(&wanted("env=prod,team=web")));
        assert!(!both.have(&wanted("env=test")) && !both.have(&wanted("env=prod,zone=a")));
    }

    #[test]
    fn labels_are_added_replaced_and_removed_by_name() {
        let given = |text: &str| labels(text).iter().collect::<Vec<_>>();
        let before = labels("env=test,team=web,tier=1");
        let after = before.with(&given("env=prod,zone=a"), &["tier".to_owned()]).expect("labels");
        assert_eq!(after, labels("env=prod,team=web,zone=a"));
        for (add, remove, remedy) in [("", "tiers", "that the instance has"), ("tier=2", "tier", "not both")] {
            let error = before.with(&given(add), &[remove.to_owned()]).expect_err(remedy).to_string();
            assert!(error.starts_with(&format!("invalid label {remove:?}")) && error.contains(remedy), "{error}");
        }
        let twice = [given("env=a"), given("env=b")].concat();
        assert!(before.with(&twice, &[]).expect_err("twice").to_string().contains("each name once"));
        let many = (0..MAX_LABELS).map(|number| format!("n{number}=x")).collect::<Vec<_>>().join(",");
        let error = before.with(&given(&many), &[]).expect_err("too many").to_string();
        assert!(error.contains("at most 32"), "{error}");
    }

    #[rstest]
    #[case::no_value("env", "NAME=VALUE")]
    #[case::no_name("=prod", "name has 1 to 63")]
    #[case::a_dash_at_an_end("-env=prod", "name has 1 to 63")]
    #[case::a_long_name(&format!("{}=x", "n".repeat(64)), "name has 1 to 63")]
    #[case::a_long_value(&format!("env={}", "v".repeat(64)), "value has at most 63")]
    #[case::a_character_of_markup("env=<b>", "value has at most 63")]
    #[case::another_script("env=größe", "value has at most 63")]
    fn an_invalid_label_is_named_with_its_remedy(#[case] label: &str, #[case] remedy: &str) {
        let error = label.parse::<Label>().expect_err(label).to_string();
        assert!(error.starts_with("invalid label \"") && error.contains(remedy), "{error}");
    }

    #[test]
    fn labels_are_few_and_have_different_names() {
        let many = |count: usize| (0..count).map(|number| format!("n{number}=x")).collect::<Vec<_>>().join(",");
        assert_eq!(labels(&many(MAX_LABELS)).as_map().len(), MAX_LABELS);
        let error = Labels::typed(&many(MAX_LABELS + 1)).expect_err("too many").to_string();
        assert!(error.contains("at most 32"), "{error}");
        assert!(Labels::typed("env=a,env=b").expect_err("twice").to_string().contains("each name once"));
    }
}
