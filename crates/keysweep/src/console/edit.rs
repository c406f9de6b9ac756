//! The form to add an instance or to change one.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use keysweep_engine::Preset;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    ConsoleState,
    error::{ConsoleError, UNPROCESSABLE, rendered},
    fields::Fields,
    format,
    shell::{Shell, Tab},
    state::PageContext,
};
use crate::{
    instances::{Connection, InstanceChange, InstanceError, NewInstance},
    model::{Instance, InvalidField, Labels, Role, Sampling, Stored, UnknownName},
    secrets::Secret,
};

#[derive(Template)]
#[template(path = "console/edit.html")]
struct EditPage {
    shell: Shell,
    /// Path of the page to return to.
    back: String,
    action: String,
    is_new: bool,
    form: EditForm,
    paces: [&'static str; 4],
    samplings: [(&'static str, &'static str); 3],
}

/// Names of the samplings, with what they mean.
const SAMPLINGS: [(Sampling, &str); 3] = [
    (Sampling::Off, "off"),
    (Sampling::Replica, "on a replica (reclaims nothing)"),
    (Sampling::Primary, "on a replica, else samples of the primary (reclaim the stale keys of the sample)"),
];

/// The form as shown: with typed or with saved values. Secrets are never shown.
#[derive(Default)]
struct EditForm {
    name: String,
    url: String,
    username: String,
    has_password: bool,
    pace: String,
    window: String,
    window_binds_manual: bool,
    manage_lazyfree: bool,
    /// As `env=prod team=web`.
    labels: String,
    sampling: String,
    sentinel_username: String,
    ca: String,
    certificate: String,
    server_name: String,
    address_map: String,
    /// Empty: as the address has it.
    sentinel_tls: String,
    name_error: String,
    url_error: String,
    pace_error: String,
    window_error: String,
    labels_error: String,
    sampling_error: String,
    connection_error: String,
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
    fn saved(instance: &Instance) -> Self {
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
    fn typed(form: &Fields, has_password: bool) -> Self {
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
    fn connects_as(&self, other: &Self) -> bool {
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

    /// Adds an error beside its field. Fails if the error does not belong to a field.
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
            InstanceError::Url(_) => self.url_error = text,
            InstanceError::Connection(_) => self.connection_error = text,
            _ => return Err(error.into()),
        }
        Ok(self)
    }
}

/// Returns the URL with user and password, as the core expects it. Those in the typed address take precedence.
fn full_url(form: &Fields) -> Secret {
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

fn connection(form: &Fields) -> Connection {
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

/// Returns what the form says about scans and estimates: pace, sampling and labels.
fn scanning(form: &Fields) -> Result<(Option<Preset>, Option<Sampling>, Labels), InstanceError> {
    Ok((pace(form)?, sampling(form)?, Labels::typed(form.text("labels"))?))
}

fn page(context: &PageContext, instance: Option<&Instance>, mut form: EditForm) -> Response {
    // The list cannot show an unknown pace. Preselecting the saved one keeps a second save from changing it.
    if form.pace.parse::<Preset>().is_err() {
        form.pace = instance.map_or_else(|| Preset::default().to_string(), |instance| instance.pace.to_string());
    }
    if form.sampling.parse::<Sampling>().is_err() {
        form.sampling = instance.map_or_else(Sampling::default, |instance| instance.sampling).to_string();
    }
    let (title, back, action) = match instance {
        Some(instance) => {
            let path = context.instance_path(instance);
            (format!("Edit {}", instance.name), path.clone(), format!("{path}/edit"))
        }
        None => ("Add an instance".to_owned(), context.path("instances"), context.path("add")),
    };
    let shell = context.shell(title, Tab::Instances, action.clone());
    let paces = Preset::ALL.map(Preset::as_str);
    let samplings = SAMPLINGS.map(|(sampling, text)| (sampling.as_str(), text));
    rendered(&EditPage { shell, back, action, is_new: instance.is_none(), form, paces, samplings })
}

pub(super) async fn blank(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Admin).await?;
    Ok(page(&context, None, EditForm::default()))
}

pub(super) async fn add(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Admin).await?;
    let (form, url, connection) = (&context.form, full_url(&context.form), connection(&context.form));
    let window = form.given("window");
    let again = |error| {
        let form = EditForm::typed(form, false).with_fault(error)?;
        Ok((UNPROCESSABLE, page(&context, None, form)).into_response())
    };
    let (pace, sampling, labels) = match scanning(form) {
        Ok(scanning) => scanning,
        Err(error) => return again(error),
    };
    let new = NewInstance {
        name: form.verbatim("name"),
        url: url.expose(),
        connection: Some(&connection),
        pace: pace.unwrap_or_default(),
        labels: Some(&labels),
        sampling: sampling.unwrap_or_default(),
        manage_lazyfree: form.is_ticked("manage_lazyfree"),
        window: window.as_deref(),
        window_binds_manual: form.is_ticked("window_binds_manual"),
        by: context.user(),
        ..NewInstance::default()
    };
    match state.instances.add(&context.project.id, new).await {
        Ok(added) => {
            state
                .poll_and_show(&context, &added, "add", "The instance is added, but its server could not be polled: ")
                .await
        }
        Err(error) => again(error),
    }
}

pub(super) async fn filled(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Admin).await?;
    Ok(page(&context, Some(&instance), EditForm::saved(&instance)))
}

pub(super) async fn change(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Admin).await?;
    let form = &context.form;
    let typed = EditForm::typed(form, instance.password.is_some());
    let gives_secret = ["password", "sentinel_password", "key"].iter().any(|name| !form.verbatim(name).is_empty());
    // A changed connection needs its secrets again: the stored ones must not be sent to another server.
    let reconnects = gives_secret || form.text("url").contains('@') || !typed.connects_as(&EditForm::saved(&instance));
    let again = |typed: EditForm, error| {
        Ok((UNPROCESSABLE, page(&context, Some(&instance), typed.with_fault(error)?)).into_response())
    };
    let (pace, sampling, labels) = match scanning(form) {
        Ok(scanning) => scanning,
        Err(error) => return again(typed, error),
    };
    let change = InstanceChange {
        name: Some(form.verbatim("name").to_owned()),
        url: reconnects.then(|| full_url(form).expose().to_owned()),
        connection: reconnects.then(|| connection(form)),
        pace,
        manage_lazyfree: Some(typed.manage_lazyfree),
        window: Some(typed.window.clone()),
        window_binds_manual: Some(typed.window_binds_manual),
        labels: Some(labels),
        sampling,
        paused: None,
    };
    match state.instances.change(&instance, change, context.user()).await {
        Ok(changed) => {
            state
                .poll_and_show(
                    &context,
                    &changed,
                    "save",
                    "The changes are saved, but the server could not be polled: ",
                )
                .await
        }
        Err(error) => again(typed, error),
    }
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
}
