//! Surveys of a project's instances and their rows.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Store, StoreError,
    clock::after,
    db::{DbSession, Row, lock, sql},
    json,
};
use crate::model::{Survey, SurveyRow, SurveyStatus};

/// The form of the rows that this version writes.
const VERSION: u32 = 1;
/// Surveys that are kept of a project.
const KEPT: i64 = 10;
/// Parts of a share in its column.
const PARTS: f64 = 1e6;

impl Store {
    /// Adds a survey that this process runs, and removes the oldest ones of the project beyond ten. Returns the id of the one that
    /// runs already instead, where there is one. `lease`: how long the survey counts as running without a renewal.
    pub async fn add_survey(&self, survey: &Survey, lease: Duration) -> Result<Option<String>, StoreError> {
        let mut tx = self.begin_request().await?;
        let now = self.now(&mut tx).await?;
        // One at a time: the creation of another one waits for this verb, and then finds the row.
        lock("SELECT 1 FROM project WHERE id = $1 FOR UPDATE").bind(&survey.project_id).execute(&mut tx).await?;
        let running = sql("SELECT id FROM survey WHERE project_id = $1 AND finished_at IS NULL AND expires_at > $2")
            .bind(&survey.project_id)
            .bind(now)
            .optional(&mut tx)
            .await?;
        if let Some(running) = running {
            tx.roll_back().await;
            return running.get("id").map(Some);
        }
        sql("INSERT INTO survey (
                 id, project_id, triggered_by, created_at, expires_at, target_ppm, labels, instances
             ) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(&survey.id)
        .bind(&survey.project_id)
        .bind(survey.triggered_by.as_deref())
        .bind(survey.created_at)
        .bind(after(now, lease))
        .bind((survey.target * PARTS).round() as u64)
        .bind(survey.labels.to_string())
        .bind(survey.instances)
        .refers_to("project")
        .execute(&mut tx)
        .await?;
        sql("DELETE FROM survey WHERE project_id = $1 AND seq <= (
                 SELECT seq FROM survey WHERE project_id = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2
             )")
        .bind(&survey.project_id)
        .bind(KEPT)
        .execute(&mut tx)
        .await?;
        self.commit(tx).await?;
        Ok(None)
    }

    /// Saves the rows of one instance of a running survey, which counts as running for another `lease`. `Missing` when the
    /// survey was removed, or is finished.
    pub async fn add_survey_rows(
        &self,
        id: &str,
        instance_id: &str,
        rows: &[SurveyRow],
        lease: Duration,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        self.extend(&mut tx, id, lease).await?;
        sql("INSERT INTO survey_row (survey_id, instance_id, version, found) VALUES ($1, $2, $3, $4)")
            .bind(id)
            .bind(instance_id)
            .bind(VERSION)
            .bind(json::write("the rows of a survey", rows)?)
            .execute(&mut tx)
            .await?;
        self.commit(tx).await
    }

    /// Saves that the process of a survey runs; it counts as running for another `lease`. `Missing` when the survey was removed,
    /// or is finished.
    pub async fn renew_survey(&self, id: &str, lease: Duration) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        self.extend(&mut tx, id, lease).await?;
        self.commit(tx).await
    }

    /// Lets a survey count as running for another `lease`.
    async fn extend(&self, tx: &mut DbSession, id: &str, lease: Duration) -> Result<(), StoreError> {
        let now = self.now(tx).await?;
        sql("UPDATE survey SET expires_at = $1 WHERE id = $2 AND finished_at IS NULL")
            .bind(after(now, lease))
            .bind(id)
            .change("survey", tx)
            .await
    }

    /// Saves that every instance of a survey has its rows.
    pub async fn finish_survey(&self, id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        sql("UPDATE survey SET finished_at = $1 WHERE id = $2 AND finished_at IS NULL")
            .bind(now)
            .bind(id)
            .change("survey", &mut tx)
            .await?;
        self.commit(tx).await
    }

    /// Returns the survey of this id with its rows, if it belongs to the project.
    pub async fn survey(&self, project_id: &str, id: &str) -> Result<Option<Survey>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let found = sql("SELECT * FROM survey WHERE project_id = $1 AND id = $2").bind(project_id).bind(id);
        let found = found.optional(&mut snapshot).await?;
        self.with_rows(snapshot, found).await
    }

    /// Returns the newest survey of a project with its rows.
    pub async fn latest_survey(&self, project_id: &str) -> Result<Option<Survey>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let found = sql("SELECT * FROM survey WHERE project_id = $1 ORDER BY seq DESC LIMIT 1").bind(project_id);
        let found = found.optional(&mut snapshot).await?;
        self.with_rows(snapshot, found).await
    }

    async fn with_rows(&self, mut snapshot: DbSession, found: Option<Row>) -> Result<Option<Survey>, StoreError> {
        let Some(found) = found else { return Ok(None) };
        let now = self.now(&mut snapshot).await?;
        let id: String = found.get("id")?;
        let rows = sql("SELECT version, found FROM survey_row WHERE survey_id = $1").bind(&id);
        let rows = rows.list(&mut snapshot, rows_of).await?;
        snapshot.commit().await?;
        let finished_at = found.get("finished_at")?;
        let expires_at: Timestamp = found.get("expires_at")?;
        let labels: String = found.get("labels")?;
        Ok(Some(Survey {
            id,
            project_id: found.get("project_id")?,
            triggered_by: found.get("triggered_by")?,
            created_at: found.get("created_at")?,
            finished_at,
            status: match finished_at {
                Some(_) => SurveyStatus::Done,
                None if expires_at > now => SurveyStatus::Running,
                None => SurveyStatus::Interrupted,
            },
            target: found.get::<u64>("target_ppm")? as f64 / PARTS,
            labels: labels.parse().unwrap_or_default(),
            instances: found.get("instances")?,
            surveyed: rows.len() as u64,
            rows: rows.into_iter().flatten().collect(),
        }))
    }
}

/// Reads the rows of one instance; none where another version wrote them.
fn rows_of(row: &Row) -> Result<Vec<SurveyRow>, StoreError> {
    Ok(json::read_column(row, "found", VERSION)?.unwrap_or_default())
}
