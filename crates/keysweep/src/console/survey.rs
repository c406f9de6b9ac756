//! The survey: the primaries of a project with their stale share and what to do about each.

use askama::Template;
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Redirect, Response},
};
use jiff::Timestamp;
use keysweep_engine::stale::Code;

use super::{
    ConsoleState,
    error::{ConsoleError, UNPROCESSABLE, rendered},
    estimate::share_text,
    format::{self, RelativeTime},
    selection::Choice,
    shell::{Shell, Tab},
    state::PageContext,
    status::Badge,
};
use crate::{
    instances::{SurveyError, SurveyRequest},
    model::{Labels, Role, Survey, SurveyOrder, SurveyRow, SurveyStatus},
    units,
};

#[derive(Template)]
#[template(path = "console/survey.html")]
struct SurveyPage {
    shell: Shell,
    path: String,
    survey: Option<SurveyView>,
    orders: Vec<Choice>,
    labels: String,
    below: String,
    labels_error: String,
    below_error: String,
}

struct SurveyView {
    created: RelativeTime,
    by: String,
    is_running: bool,
    /// Why there are no more rows, a sentence.
    interruption: Option<String>,
    instances: String,
    surveyed: String,
    percent: u64,
    below: String,
    labels: String,
    rows: Vec<RowView>,
}

struct RowView {
    href: Option<String>,
    name: String,
    address: String,
    keys: String,
    with_ttl: String,
    share: String,
    bytes: String,
    rate: String,
    effort: String,
    hz: String,
    predicted: String,
    badge: Badge,
    /// Why, a sentence.
    reason: String,
    /// A command, or a change of rights.
    remedy: Option<String>,
    /// What the row lacks, and why, sentences.
    notes: Vec<String>,
}

impl RowView {
    fn new(context: &PageContext, row: SurveyRow) -> Self {
        let known = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        Self {
            href: row.instance_id.as_ref().map(|id| context.path(&format!("instances/{id}"))),
            address: row.address.clone().unwrap_or_default(),
            keys: known(row.keys.map(format::count)),
            with_ttl: known(row.keys_with_ttl.map(format::count)),
            share: share_text(row.share, row.share_low, row.share_high, row.approximate),
            bytes: bytes_text(row.bytes, row.bytes_low, row.bytes_high),
            rate: known(row.expiry_rate.map(|rate| format!("{rate:.0}"))),
            effort: known(row.effort.map(|effort| effort.to_string())),
            hz: known(row.hz.map(|hz| hz.to_string())),
            predicted: known(row.predicted_share.map(format::percent)),
            badge: badge(row.verdict.code),
            reason: format::sentence(&row.verdict.reason),
            remedy: row.verdict.remedy,
            notes: row.notes.iter().map(|note| format::sentence(note)).collect(),
            name: row.name,
        }
    }
}

/// Formats bytes with half of their interval.
fn bytes_text(bytes: Option<u64>, low: Option<u64>, high: Option<u64>) -> String {
    match (bytes, low, high) {
        (None, ..) => "–".to_owned(),
        (Some(bytes), Some(low), Some(high)) if high > low => {
            format!("{} ±{}", units::size(bytes), units::size((high - low) / 2))
        }
        (Some(bytes), ..) => units::size(bytes),
    }
}

fn badge(code: Code) -> Badge {
    let (word, class) = match code {
        Code::Unsupported => ("unsupported", "bad"),
        Code::Unknown => ("unknown", "plain"),
        Code::Pointless => ("nothing to do", "good"),
        Code::ScanOnce => ("scan once", "busy"),
        Code::ScanEvery => ("scan regularly", "busy"),
        Code::SetEffort => ("change the settings", "busy"),
        Code::CannotHold => ("cannot be held", "bad"),
    };
    Badge { word, class }
}

impl SurveyView {
    fn new(context: &PageContext, mut survey: Survey, order: SurveyOrder, now: Timestamp) -> Self {
        order.sort(&mut survey.rows);
        Self {
            created: RelativeTime::new(survey.created_at, now),
            by: survey.triggered_by.unwrap_or_default(),
            is_running: survey.status == SurveyStatus::Running,
            interruption: survey.status.reason().map(format::sentence),
            instances: format::count(survey.instances),
            surveyed: format::count(survey.surveyed),
            percent: survey.surveyed * 100 / survey.instances.max(1),
            below: format::percent(survey.target),
            labels: survey.labels.iter().map(|label| label.to_string()).collect::<Vec<_>>().join(", "),
            rows: survey.rows.into_iter().map(|row| RowView::new(context, row)).collect(),
        }
    }
}

/// What was typed into the form, with the errors beside its fields.
#[derive(Default)]
struct Form {
    labels: String,
    below: String,
    labels_error: String,
    below_error: String,
}

impl ConsoleState {
    async fn survey_page(&self, context: &PageContext, form: Form) -> Result<Response, ConsoleError> {
        let now = Timestamp::now();
        let order: SurveyOrder = context.query.text("sort").parse().unwrap_or_default();
        let path = context.path("survey");
        let survey = self.instances.latest_survey(&context.project.id).await?;
        let survey = survey.map(|survey| SurveyView::new(context, survey, order, now));
        let is_running = survey.as_ref().is_some_and(|survey| survey.is_running);
        let link = |(order_of, text): (SurveyOrder, &str)| Choice {
            text: text.to_owned(),
            href: format!("{path}?sort={order_of}"),
            is_current: order_of == order,
        };
        let orders =
            [(SurveyOrder::Bytes, "stale bytes"), (SurveyOrder::Share, "stale share"), (SurveyOrder::Name, "name")];
        let shell = context.shell("Survey", Tab::Survey, format!("{path}?sort={order}"));
        Ok(rendered(&SurveyPage {
            shell: if is_running { shell.live(true) } else { shell },
            survey,
            orders: orders.map(link).into(),
            path,
            labels: form.labels,
            below: form.below,
            labels_error: form.labels_error,
            below_error: form.below_error,
        }))
    }
}

pub(super) async fn show(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Reader).await?;
    state.survey_page(&context, Form { below: "10".into(), ..Form::default() }).await
}

pub(super) async fn create(State(state): State<ConsoleState>, request: Request) -> Result<Response, ConsoleError> {
    let context = state.authorize(request, Role::Operator).await?;
    let text = |name: &str| context.form.text(name).to_owned();
    let mut form = Form { labels: text("labels"), below: text("below"), ..Form::default() };
    let labels = Labels::typed(&form.labels);
    if let Err(error) = &labels {
        form.labels_error = format::sentence(&error.to_string());
    }
    let target = units::percent(&form.below).filter(|share| *share > 0.0 && *share < 1.0);
    if target.is_none() {
        form.below_error = "Give a number above 0 and below 100.".to_owned();
    }
    if let (Ok(labels), Some(target)) = (labels, target) {
        let no_reclaim = context.form.is_ticked("no_reclaim");
        let request = SurveyRequest { target, labels, no_reclaim };
        match state.instances.start_survey(&context.project.id, request, context.user()).await {
            Ok(_) => return Ok(Redirect::to(&format!("{}?done=survey", context.path("survey"))).into_response()),
            Err(error @ (SurveyError::Nothing | SurveyError::TooMany(_))) => {
                form.labels_error = format::sentence(&error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((UNPROCESSABLE, state.survey_page(&context, form).await?).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_their_interval() {
        let mebibytes = |number: u64| Some(number << 20);
        assert_eq!(bytes_text(mebibytes(20), mebibytes(16), mebibytes(24)), "20.0 MiB ±4.0 MiB");
        assert_eq!(bytes_text(mebibytes(20), mebibytes(20), mebibytes(20)), "20.0 MiB", "counted exactly");
        assert_eq!(
            (bytes_text(mebibytes(20), None, None), bytes_text(None, None, None)),
            ("20.0 MiB".into(), "–".into())
        );
    }
}
