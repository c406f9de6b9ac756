//! The pages on which an instance is added or changed, and on which its connection is tested before it is saved.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use keysweep_engine::Preset;

use super::{
    ConsoleState,
    edit_form::{EditForm, Scanning, connection, full_url},
    error::{ConsoleError, UNPROCESSABLE, rendered},
    format,
    shell::{Shell, Tab},
    state::PageContext,
    status::Trouble,
};
use crate::{
    instances::{InstanceChange, InstanceError, NewInstance, PollError},
    model::{Instance, PollCode, PollFailure, Role, Sampling},
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
    tested: Option<Tested>,
}

/// What the test of a connection has found.
enum Tested {
    /// What the server is, a sentence.
    Good(String),
    Bad(Trouble),
}

/// Names of the samplings, with what they mean.
const SAMPLINGS: [(Sampling, &str); 3] = [
    (Sampling::Off, "off"),
    (Sampling::Replica, "on a replica (reclaims nothing)"),
    (Sampling::Primary, "on a replica, else samples of the primary (reclaim the stale keys of the sample)"),
];

fn page(context: &PageContext, instance: Option<&Instance>, mut form: EditForm, tested: Option<Tested>) -> Response {
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
    rendered(&EditPage { shell, back, action, is_new: instance.is_none(), form, paces, samplings, tested })
}

impl ConsoleState {
    /// Connects to the server of an instance that need not be saved, and shows the form again with what was found.
    async fn test_typed(
        &self,
        context: &PageContext,
        saved: Option<&Instance>,
        form: EditForm,
        typed: Result<Instance, InstanceError>,
    ) -> Result<Response, ConsoleError> {
        let instance = match typed {
            Ok(instance) => instance,
            Err(fault) => return again(context, saved, form, [fault]),
        };
        let tested = match self.instances.try_connection(&instance).await {
            Ok(stats) => {
                let (engine, version, mode) = (&stats.engine, &stats.engine_version, stats.mode());
                Tested::Good(format!(
                    "The server answers: {engine} {version}, {mode}, {} keys.",
                    format::count(stats.keys)
                ))
            }
            Err(PollError::Server(failure)) => Tested::Bad(Trouble::new(&PollFailure::from(&failure))),
            Err(error @ PollError::Busy(_)) => Tested::Bad(Trouble::busy(error.to_string())),
            Err(PollError::Instance(fault @ InstanceError::Unreadable { .. })) => {
                Tested::Bad(Trouble::new(&PollFailure::new(PollCode::Settings, fault.to_string())))
            }
            Err(PollError::Instance(fault)) => return again(context, saved, form, [fault]),
        };
        Ok(page(context, saved, form, Some(tested)))
    }
}

/// Shows a form again, with an error beside each invalid field.
fn again(
    context: &PageContext,
    saved: Option<&Instance>,
    form: EditForm,
    faults: impl IntoIterator<Item = InstanceError>,
) -> Result<Response, ConsoleError> {
    Ok((UNPROCESSABLE, page(context, saved, form.with_faults(faults)?, None)).into_response())
}

pub(super) async fn blank(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Admin).await?;
    Ok(page(&context, None, EditForm::default(), None))
}

pub(super) async fn add(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Admin).await?;
    let (form, url, connection) = (&context.form, full_url(&context.form), connection(&context.form));
    let typed = EditForm::typed(form, false);
    if form.is_ticked("test") {
        let instance = state.instances.unregistered(url.expose(), &connection);
        return state.test_typed(&context, None, typed, instance).await;
    }
    let window = form.given("window");
    let (scanning, mut faults) = Scanning::typed(form);
    faults.extend(state.instances.faults(
        form.verbatim("name"),
        Some((url.expose(), &connection)),
        form.text("window"),
    ));
    if !faults.is_empty() {
        return again(&context, None, typed, faults);
    }
    let new = NewInstance {
        name: form.verbatim("name"),
        url: url.expose(),
        connection: Some(&connection),
        pace: scanning.pace.unwrap_or_default(),
        labels: Some(&scanning.labels),
        sampling: scanning.sampling.unwrap_or_default(),
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
        Err(error) => again(&context, None, typed, [error]),
    }
}

pub(super) async fn filled(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Admin).await?;
    Ok(page(&context, Some(&instance), EditForm::saved(&instance), None))
}

pub(super) async fn change(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let (context, instance) = state.authorize_instance(request, Role::Admin).await?;
    let form = &context.form;
    let typed = EditForm::typed(form, instance.password.is_some());
    let gives_secret = ["password", "sentinel_password", "key"].iter().any(|name| !form.verbatim(name).is_empty());
    // A changed connection needs its secrets again: the stored ones must not be sent to another server.
    let reconnects = gives_secret || form.text("url").contains('@') || !typed.connects_as(&EditForm::saved(&instance));
    let (url, connection) = (full_url(form), connection(form));
    if form.is_ticked("test") {
        let tested = match reconnects {
            true => state.instances.unregistered(url.expose(), &connection),
            false => Ok(instance.clone()),
        };
        return state.test_typed(&context, Some(&instance), typed, tested).await;
    }
    let (scanning, mut faults) = Scanning::typed(form);
    let changed = reconnects.then_some((url.expose(), &connection));
    faults.extend(state.instances.faults(form.verbatim("name"), changed, &typed.window));
    if !faults.is_empty() {
        return again(&context, Some(&instance), typed, faults);
    }
    let change = InstanceChange {
        name: Some(form.verbatim("name").to_owned()),
        url: reconnects.then(|| url.expose().to_owned()),
        connection: reconnects.then_some(connection),
        pace: scanning.pace,
        manage_lazyfree: Some(typed.manage_lazyfree),
        window: Some(typed.window.clone()),
        window_binds_manual: Some(typed.window_binds_manual),
        labels: Some(scanning.labels),
        sampling: scanning.sampling,
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
        Err(error) => again(&context, Some(&instance), typed, [error]),
    }
}
