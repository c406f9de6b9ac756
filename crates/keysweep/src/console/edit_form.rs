//! The form of an instance as it is typed and shown again: its values, and an error beside each invalid field.

use keysweep_engine::Preset;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{error::ConsoleError, fields::Fields, format};
use crate::{
    instances::{Connection, InstanceError},
    model::{Instance, InvalidField, Labels, Sampling, Stored, UnknownName},
    secrets::Secret,
};

/// The form as shown: with typed or with saved values. Secrets are never shown.
#[derive(Default)]
pub(super) struct EditForm {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) username: String,
    pub(super) has_password: bool,
    pub(super) pace: String,
    pub(super) window: String,
    pub(super) window_binds_manual: bool,
    pub(super) manage_lazyfree: bool,
    /// As `env=prod team=web`.
    pub(super) labels: String,
    pub(super) sampling: String,
    pub(super) sentinel_username: String,
    pub(super) ca: String,
    pub(super) certificate: String,
    pub(super) server_name: String,
    pub(super) address_map: String,
    /// Empty: as the address has it.
    pub(super) sentinel_tls: String,
    pub(super) name_error: String,
    pub(super) url_error: String,
    pub(super) pace_error: String,
    pub(super) window_error: String,
    pub(super) labels_error: String,
    pub(super) sampling_error: String,
    pub(super) connection_error: String,
}

/// Writes labels as they are typed.
fn spaced(labels: &Labels) -> String {
    labels.iter().map(|label| label.to_string()).collect::<Vec<_>>().join(" ")
}

/// Converts the line ends of browsers to those that are stored.
fn unix_lines(text: &str) -> String {
    text.replace("\r\n", "\n").trim().to_owned()
}

impl EditForm {
    /// Returns the form of a saved instance.
    pub(super) fn saved(instance: &Instance) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Self {
            name: instance.name.clone(),
            url: instance.url.to_string(),
            username: text(&instance.username),
            has_password: instance.password.is_some(),
            pace: instance.pace.to_string(),
            window: instance.window.as_ref().map(Stored::to_string).unwrap_or_default(),
            window_binds_manual: instance.window_binds_manual,
            manage_lazyfree: instance.manage_lazyfree,
            labels: instance.labels.value().map_or_else(|_| String::new(), spaced),
            sampling: instance.sampling.to_string(),
            sentinel_username: text(&instance.sentinel_username),
            ca: unix_lines(&text(&instance.ca_pem)),
            certificate: unix_lines(&text(&instance.cert_pem)),
            server_name: text(&instance.server_name),
            address_map: instance.address_map.as_ref().map(Stored::to_string).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Returns the form as typed. An address that contains a password is not shown again.
    pub(super) fn typed(form: &Fields, has_password: bool) -> Self {
        let text = |name: &str| form.text(name).to_owned();
        let url = text("url");
        Self {
            name: form.verbatim("name").to_owned(),
            url: if url.contains('@') { String::new() } else { url },
            username: text("username"),
            has_password,
            pace: text("pace"),
            window: text("window"),
            window_binds_manual: form.is_ticked("window_binds_manual"),
            manage_lazyfree: form.is_ticked("manage_lazyfree"),
            labels: text("labels"),
            sampling: text("sampling"),
            sentinel_username: text("sentinel_username"),
            ca: unix_lines(form.text("ca")),
            certificate: unix_lines(form.text("certificate")),
            server_name: text("server_name"),
            address_map: text("address_map"),
            sentinel_tls: text("sentinel_tls"),
            ..Self::default()
        }
    }

    /// Returns whether both forms have the same connection.
    pub(super) fn connects_as(&self, other: &Self) -> bool {
        let parts = |form: &Self| {
            [
                &form.url,
                &form.username,
                &form.sentinel_username,
                &form.ca,
                &form.certificate,
                &form.server_name,
                &form.address_map,
                &form.sentinel_tls,
            ]
            .map(String::clone)
        };
        parts(self) == parts(other)
    }

    /// Adds errors beside their fields. Fails if one does not belong to a field.
    pub(super) fn with_faults(self, faults: impl IntoIterator<Item = InstanceError>) -> Result<Self, ConsoleError> {
        faults.into_iter().try_fold(self, Self::with_fault)
    }

    fn with_fault(mut self, error: InstanceError) -> Result<Self, ConsoleError> {
        let text = format::sentence(&error.to_string());
        match &error {
            InstanceError::Invalid(InvalidField { field, .. }) => match *field {
                "instance name" => self.name_error = text,
                "maintenance window" => self.window_error = text,
                "pace" => self.pace_error = text,
                "label" => self.labels_error = text,
                "sampling" => self.sampling_error = text,
                _ => self.url_error = text,
            },
            InstanceError::Taken { .. } => self.name_error = text,
            InstanceError::Url(_) | InstanceError::Held(_) => self.url_error = text,
            InstanceError::Connection(_) => self.connection_error = text,
            _ => return Err(error.into()),
        }
        Ok(self)
    }

    /// Returns the name of the first field with an error, which takes the focus; empty: none has one.
    pub(super) fn first_fault(&self) -> &'static str {
        let fields = [
            ("name", &self.name_error),
            ("labels", &self.labels_error),
            ("url", &self.url_error),
            ("connection", &self.connection_error),
            ("pace", &self.pace_error),
            ("window", &self.window_error),
            ("sampling", &self.sampling_error),
        ];
        fields.into_iter().find(|(_, error)| !error.is_empty()).map_or("", |(field, _)| field)
    }
}

/// Returns the URL with user and password, as the core expects it. Those in the typed address take precedence.
pub(super) fn full_url(form: &Fields) -> Secret {
    let (url, username, password) = (form.text("url"), form.text("username"), form.verbatim("password"));
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned().into() };
    let url = match rest.rsplit_once('@') {
        None if !username.is_empty() || !password.is_empty() => {
            format!("{scheme}://{}:{}@{rest}", encode(username), encode(password))
        }
        // The address names a user without a password.
        Some((user, rest)) if !user.contains(':') && !password.is_empty() => {
            format!("{scheme}://{user}:{}@{rest}", encode(password))
        }
        _ => url.to_owned(),
    };
    url.into()
}

/// Returns the connection settings of the form.
pub(super) fn connection(form: &Fields) -> Connection {
    let pem = |name: &str| form.given(name).map(|text| unix_lines(&text) + "\n");
    let sentinel_password = Some(form.verbatim("sentinel_password")).filter(|text| !text.is_empty());
    Connection {
        sentinel_username: form.given("sentinel_username"),
        sentinel_password: sentinel_password.map(|text| text.to_owned().into()),
        ca: pem("ca"),
        certificate: pem("certificate"),
        key: pem("key").map(Into::into),
        server_name: form.given("server_name"),
        address_map: form.given("address_map"),
        sentinel_tls: form.given("sentinel_tls"),
    }
}

/// Returns the chosen pace; `None` if the form has none.
fn pace(form: &Fields) -> Result<Option<Preset>, InstanceError> {
    let invalid =
        |value: String| InvalidField { field: "pace", value, remedy: "use gentle, normal, fast or max" }.into();
    form.given("pace").map(|name| name.parse().map_err(|_: String| invalid(name))).transpose()
}

/// Returns the chosen sampling; `None` if the form has none.
fn sampling(form: &Fields) -> Result<Option<Sampling>, InstanceError> {
    let invalid =
        |value: String| InvalidField { field: "sampling", value, remedy: "use off, replica or primary" }.into();
    form.given("sampling").map(|name| name.parse().map_err(|_: UnknownName| invalid(name))).transpose()
}

/// What the form says about scans and estimates.
pub(super) struct Scanning {
    /// `None`: the form has none, or an invalid one.
    pub(super) pace: Option<Preset>,
    pub(super) sampling: Option<Sampling>,
    pub(super) labels: Labels,
}

impl Scanning {
    /// Returns what the form says, and what is wrong with it.
    pub(super) fn typed(form: &Fields) -> (Self, Vec<InstanceError>) {
        let (pace, sampling) = (pace(form), sampling(form));
        let labels = Labels::typed(form.text("labels")).map_err(InstanceError::from);
        let mut faults = Vec::new();
        let scanning = Self {
            pace: kept(pace, &mut faults).flatten(),
            sampling: kept(sampling, &mut faults).flatten(),
            labels: kept(labels, &mut faults).unwrap_or_default(),
        };
        (scanning, faults)
    }
}

/// Returns a value, or adds its error to the others.
fn kept<T>(value: Result<T, InstanceError>, faults: &mut Vec<InstanceError>) -> Option<T> {
    value.map_err(|fault| faults.push(fault)).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("url=redis://h:1", "redis://h:1")]
    #[case("url=redis://h:1&password=a@b", "redis://:a%40b@h:1")]
    #[case("url=redis://h:1&username=u&password=p%2F", "redis://u:p%2F@h:1")]
    #[case("url=redis://x:y@h:1&password=other", "redis://x:y@h:1")]
    #[case("url=redis://u@h:1&username=other&password=p%2F", "redis://u:p%2F@h:1")]
    #[case("url=redis://u@h:1", "redis://u@h:1")]
    #[case("url=h:1&password=p", "h:1")]
    fn user_and_password_are_added_to_the_address(#[case] form: &str, #[case] url: &str) {
        assert_eq!(full_url(&Fields::parse(form.as_bytes())).expose(), url);
    }

    #[test]
    fn typed_values_are_shown_again_without_secrets() {
        let form = Fields::parse(b"name=cache&url=redis://u:hunter2@h:1&password=hunter2&key=hunter2&window=x");
        let form = EditForm::typed(&form, false);
        assert_eq!((form.name.as_str(), form.window.as_str(), form.url.as_str()), ("cache", "x", ""));
    }

    #[test]
    fn every_fault_is_shown_beside_its_field_and_the_first_takes_the_focus() {
        let fields = Fields::parse(b"pace=brisk&labels=env&sampling=some");
        let (_, faults) = Scanning::typed(&fields);
        let form = EditForm::typed(&fields, false).with_faults(faults).expect("each has a field");
        let errors = [&form.pace_error, &form.labels_error, &form.sampling_error];
        assert!(errors.iter().all(|error| !error.is_empty()), "{errors:?}");
        assert_eq!(form.first_fault(), "labels");
        let form = form.with_faults([InstanceError::Url("no scheme".into())]).expect("it has a field");
        assert_eq!((form.url_error.as_str(), form.first_fault()), ("No scheme.", "labels"));
    }
}
