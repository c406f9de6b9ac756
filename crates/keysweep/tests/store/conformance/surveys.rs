//! Surveys and their rows.

use std::time::Duration;

use keysweep::model::{Labels, Project, Survey, SurveyRow, SurveyStatus};
use keysweep_engine::stale::Code;

use crate::conformance::fresh::{Fresh, assert_missing, at, id, time};

on_every_engine!(
    a_survey_collects_rows_until_it_is_done,
    one_survey_of_a_project_runs_at_a_time,
    a_survey_without_a_renewal_for_long_is_interrupted,
    the_newest_ten_surveys_are_kept,
);

const LEASE: Duration = Duration::from_secs(600);

fn survey(project: &Project, name: &str) -> Survey {
    Survey {
        id: id(name),
        project_id: project.id.clone(),
        triggered_by: Some("ada".into()),
        created_at: time(0),
        finished_at: None,
        status: SurveyStatus::Running,
        target: 0.125,
        labels: Labels::typed("env=prod").expect("labels"),
        instances: 2,
        surveyed: 0,
        rows: Vec::new(),
    }
}

fn row(name: &str) -> SurveyRow {
    let row = SurveyRow::unknown(name.into(), Code::Unknown, "refused".into());
    SurveyRow { instance_id: Some(id(name)), keys: Some(7), share: Some(0.25), ..row }
}

async fn a_survey_collects_rows_until_it_is_done(store: Fresh) {
    let project = store.project("shop").await;
    let new = survey(&project, "one");
    assert_eq!(store.with_clock(at(0)).add_survey(&new, LEASE).await.expect("added"), None);
    let now = store.with_clock(at(10));
    assert_eq!(now.survey(&project.id, &new.id).await.expect("read"), Some(new.clone()));
    now.add_survey_rows(&new.id, &id("a"), &[row("a"), row("a")], LEASE).await.expect("kept");
    now.add_survey_rows(&new.id, &id("b"), &[row("b")], LEASE).await.expect("kept");
    now.finish_survey(&new.id).await.expect("done");
    let mut shown = now.survey(&project.id, &new.id).await.expect("read").expect("a survey");
    shown.rows.sort_by(|one, other| one.name.cmp(&other.name));
    let expected = Survey {
        finished_at: Some(time(10)),
        status: SurveyStatus::Done,
        surveyed: 2,
        rows: vec![row("a"), row("a"), row("b")],
        ..new.clone()
    };
    assert_eq!(shown, expected);
    assert_eq!(now.latest_survey(&project.id).await.expect("read").map(|latest| latest.id), Some(new.id.clone()));
    assert_missing(now.add_survey_rows(&new.id, &id("c"), &[], LEASE).await, "survey");
    assert_missing(now.finish_survey(&new.id).await, "survey");
    let other = store.project("other").await;
    assert_eq!(now.survey(&other.id, &new.id).await.expect("read"), None, "of another project");
    assert_eq!(now.latest_survey(&other.id).await.expect("read"), None);
    let nowhere = Survey { project_id: id("nowhere"), id: id("x"), ..new };
    assert_missing(now.add_survey(&nowhere, LEASE).await, "project");
}

async fn one_survey_of_a_project_runs_at_a_time(store: Fresh) {
    let (shop, other) = (store.project("shop").await, store.project("other").await);
    let add = |now, project: &Project, name: &str| {
        let (store, survey) = (store.with_clock(at(now)), survey(project, name));
        async move { store.add_survey(&survey, LEASE).await.expect("answered") }
    };
    assert_eq!(add(0, &shop, "one").await, None);
    assert_eq!(add(1, &shop, "two").await, Some(id("one")));
    assert_eq!(add(1, &other, "three").await, None, "another project is independent of it");
    store.with_clock(at(2)).finish_survey(&id("one")).await.expect("done");
    assert_eq!(add(3, &shop, "two").await, None);
    assert_eq!(add(602, &shop, "four").await, Some(id("two")));
    assert_eq!(add(603, &shop, "four").await, None, "its process has ended");
}

async fn a_survey_without_a_renewal_for_long_is_interrupted(store: Fresh) {
    let project = store.project("shop").await;
    let new = survey(&project, "one");
    store.with_clock(at(0)).add_survey(&new, LEASE).await.expect("added");
    store.with_clock(at(400)).renew_survey(&new.id, LEASE).await.expect("renewed");
    store.with_clock(at(500)).add_survey_rows(&new.id, &id("a"), &[row("a")], LEASE).await.expect("kept");
    for (now, status) in [(1_099, SurveyStatus::Running), (1_100, SurveyStatus::Interrupted)] {
        let shown = store.with_clock(at(now)).survey(&project.id, &new.id).await.expect("read").expect("a survey");
        assert_eq!((shown.status, shown.surveyed, shown.rows.len()), (status, 1, 1), "after {now} s");
        assert_eq!(shown.status.reason().is_some(), status == SurveyStatus::Interrupted);
    }
    store.with_clock(at(1_200)).renew_survey(&new.id, LEASE).await.expect("its process was only slow");
    let shown = store.with_clock(at(1_201)).survey(&project.id, &new.id).await.expect("read").expect("a survey");
    assert_eq!(shown.status, SurveyStatus::Running);
    store.with_clock(at(1_300)).finish_survey(&new.id).await.expect("done");
    assert_missing(store.with_clock(at(1_301)).renew_survey(&new.id, LEASE).await, "survey");
}

async fn the_newest_ten_surveys_are_kept(store: Fresh) {
    let project = store.project("shop").await;
    for number in 0..12 {
        let new = survey(&project, &format!("{number}"));
        assert_eq!(store.with_clock(at(number)).add_survey(&new, LEASE).await.expect("added"), None);
        store.with_clock(at(number)).finish_survey(&new.id).await.expect("done");
    }
    let mut kept = Vec::new();
    for number in 0..12 {
        if store.survey(&project.id, &id(&format!("{number}"))).await.expect("read").is_some() {
            kept.push(number);
        }
    }
    assert_eq!(kept, (2..12).collect::<Vec<_>>());
}
