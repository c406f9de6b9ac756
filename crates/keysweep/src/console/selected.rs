//! Actions on the instances that are selected in the list: each instance is handled and audited as on its own page, and one that
//! cannot be handled is named with the reason.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Redirect, Response},
};
use jiff::Timestamp;

use super::{
    ConsoleState,
    auto_scan::{AutoScanForm, Unsaved},
    error::{CONFLICT, ConsoleError, UNPROCESSABLE, rendered},
    fields::Fields,
    instances::PAGE,
    selection::Selection,
    shell::{Notice, Shell, Tab},
    state::PageContext,
};
use crate::{
    instances::InstanceChange,
    model::{AutoScan, Instance, Role},
};

#[derive(Template)]
#[template(path = "console/schedule.html")]
struct SchedulePage {
    shell: Shell,
    /// Path of the list.
    back: String,
    action: String,
    /// Ids and names of the instances.
    instances: Vec<(String, String)>,
    /// Query of the list, to which the page returns.
    view: String,
    form: AutoScanForm,
}

/// What is done with each selected instance.
enum Action {
    Scan,
    Pause,
    Resume,
    Schedule(Box<AutoScanForm>),
}

impl Action {
    /// Returns the word of the notice after success.
    fn done(&self) -> &'static str {
        match self {
            Self::Scan => "scan-selected",
            Self::Pause => "pause-selected",
            Self::Resume => "resume-selected",
            Self::Schedule(_) => "schedule-selected",
        }
    }

    /// Returns what has happened to the instances that were handled.
    fn past(&self) -> &'static str {
        match self {
            Self::Scan => "have a scan",
            Self::Pause => "are paused",
            Self::Resume => "accept scans again",
            Self::Schedule(_) => "have the auto-scan",
        }
    }
}

/// An instance that was selected: its id, and what it is if the project has it.
struct Selected {
    id: String,
    instance: Option<Instance>,
}

impl Selected {
    fn name(&self) -> String {
        self.instance.as_ref().map_or_else(|| self.id.clone(), |instance| instance.name.clone())
    }
}

/// Returns the ids that the form selects, each once.
fn ids(form: &Fields) -> Vec<&str> {
    let mut ids = Vec::new();
    for id in form.all("instance") {
        if !ids.contains(&id) && ids.len() <= PAGE {
            ids.push(id);
        }
    }
    ids
}

/// Returns why an instance was not handled.
fn reason(error: ConsoleError) -> String {
    match error {
        ConsoleError::Conflict(cause) => cause,
        ConsoleError::NotFound(what) => format!("the {what} no longer exists"),
        _ => "internal error; the log of the service has the details".to_owned(),
    }
}

/// Returns what is wrong with a selection; `None`: nothing.
fn fault(ids: &[&str]) -> Option<String> {
    match ids.len() {
        0 => Some("Nothing was done: select instances first, with the boxes beside their names.".to_owned()),
        count if count > PAGE => Some(format!("Nothing was done: select at most {PAGE} instances at a time.")),
        _ => None,
    }
}

impl ConsoleState {
    /// Returns the selected instances, in the order of the selection.
    async fn selected(&self, context: &PageContext, ids: &[&str]) -> Result<Vec<Selected>, ConsoleError> {
        let known = self.instances.list(&context.project.id).await?;
        let find = |id: &str| known.iter().find(|instance| instance.id == id).cloned();
        Ok(ids.iter().map(|id| Selected { id: (*id).to_owned(), instance: find(id) }).collect())
    }

    /// Shows the list with what is wrong with the selection.
    async fn refuse(&self, context: &PageContext, fault: String) -> Result<Response, ConsoleError> {
        let page = self.list_page(context, &view(context), Some(Notice::bad(fault))).await?;
        Ok((UNPROCESSABLE, page).into_response())
    }

    /// Does the same with each selected instance, and returns to the list.
    async fn handle(&self, context: &PageContext, action: &Action) -> Result<Response, ConsoleError> {
        let ids = ids(&context.form);
        if let Some(fault) = fault(&ids) {
            return self.refuse(context, fault).await;
        }
        let selected = self.selected(context, &ids).await?;
        let mut failed = Vec::new();
        for one in &selected {
            let handled = match &one.instance {
                Some(instance) => self.handle_one(context, action, instance).await,
                None => Err(ConsoleError::NotFound("instance")),
            };
            if let Err(error) = handled {
                failed.push(format!("{}: {}", one.name(), reason(error)));
            }
        }
        if failed.is_empty() {
            let list = Selection::new(context.path("instances"), &view(context));
            let address = list.href(&list.labels, view(context).text("page").parse().unwrap_or(0));
            return Ok(Redirect::to(&format!("{address}&done={}", action.done())).into_response());
        }
        let (all, done) = (selected.len(), selected.len() - failed.len());
        let text = format!("{done} of {all} instances {}. These were left out:", action.past());
        let notice = Notice { items: failed, ..Notice::bad(text) };
        let page = self.list_page(context, &view(context), Some(notice)).await?;
        Ok((CONFLICT, page).into_response())
    }

    async fn handle_one(
        &self,
        context: &PageContext,
        action: &Action,
        instance: &Instance,
    ) -> Result<(), ConsoleError> {
        let set_paused = |paused| InstanceChange { paused: Some(paused), ..InstanceChange::default() };
        match action {
            Action::Scan => {
                self.tasks.submit(instance, context.authorized.caller.name.clone()).await?;
            }
            Action::Pause | Action::Resume => {
                let change = set_paused(matches!(action, Action::Pause));
                self.instances.change(instance, change, context.user()).await?;
            }
            Action::Schedule(form) => {
                let now = Timestamp::now();
                let saved = self.instances.set_auto_scan(instance, context.user(), |before| {
                    form.update(&before, now).check(before, now).map_err(Unsaved::Faults)
                });
                saved.await.map_err(|unsaved| match unsaved {
                    Unsaved::Failed(error) => error.into(),
                    Unsaved::Faults(_) => ConsoleError::Conflict("its settings do not allow these".into()),
                })?;
            }
        }
        Ok(())
    }
}

/// Returns the query of the list that the form was on.
fn view(context: &PageContext) -> Fields {
    Fields::parse(context.form.text("view").as_bytes())
}

pub(super) async fn scan(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Operator).await?;
    state.handle(&context, &Action::Scan).await
}

pub(super) async fn pause(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Admin).await?;
    state.handle(&context, &Action::Pause).await
}

pub(super) async fn resume(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Admin).await?;
    state.handle(&context, &Action::Resume).await
}

/// Shows the form of an auto-scan for the selected instances, and saves it for each of them once it is filled in.
pub(super) async fn schedule(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Operator).await?;
    let (now, unset) = (Timestamp::now(), AutoScan::unset(""));
    let is_filled = context.form.is_ticked("save");
    let mut form = AutoScanForm { enabled: true, ..AutoScanForm::saved(&unset, now) };
    if is_filled {
        form = AutoScanForm::typed(&context.form);
        match form.update(&unset, now).check(unset, now) {
            Ok(_) => return state.handle(&context, &Action::Schedule(Box::new(form))).await,
            Err(faults) => form = form.with_faults(&faults),
        }
    }
    let ids = ids(&context.form);
    if let Some(fault) = fault(&ids) {
        return state.refuse(&context, fault).await;
    }
    let selected = state.selected(&context, &ids).await?;
    let title = match selected.as_slice() {
        [one] => format!("Schedule {}", one.name()),
        all => format!("Schedule {} instances", all.len()),
    };
    let action = context.path("schedule");
    let mut shell = context.shell(title, Tab::Instances, action.clone());
    if is_filled {
        shell = shell.with_notice(Some(Notice::bad("Nothing is saved: see the errors beside the fields.")));
    }
    let view = context.form.text("view").to_owned();
    let page = rendered(&SchedulePage {
        shell,
        back: format!("{}?{view}", context.path("instances")),
        action,
        instances: selected.iter().map(|one| (one.id.clone(), one.name())).collect(),
        view,
        form,
    });
    Ok(if is_filled { (UNPROCESSABLE, page).into_response() } else { page })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_selected_once_and_the_number_is_bounded() {
        assert_eq!(ids(&Fields::parse(b"instance=a&instance=b&instance=a&view=x")), ["a", "b"]);
        let many: String = (0..2 * PAGE).map(|number| format!("instance={number}&")).collect();
        assert_eq!(ids(&Fields::parse(many.as_bytes())).len(), PAGE + 1, "one too many is enough to refuse them");
    }
}
