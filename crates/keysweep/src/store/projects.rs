//! Projects.

use super::{
    Store, StoreError,
    db::{Row, lock, sql},
};
use crate::model::Project;

impl Store {
    /// Adds a project. `Taken` when its id or name is in use.
    pub async fn add_project(&self, project: &Project) -> Result<(), StoreError> {
        let mut tx = self.begin_request().await?;
        sql("INSERT INTO project (id, name, created_at) VALUES ($1, $2, $3)")
            .bind(&project.id)
            .bind(&project.name)
            .bind(project.created_at)
            .execute(&mut tx)
            .await?;
        self.commit(tx).await
    }

    /// Returns all projects, by name.
    pub async fn projects(&self) -> Result<Vec<Project>, StoreError> {
        sql("SELECT * FROM project ORDER BY name").list(&mut self.reader().await?, project).await
    }

    /// Removes a project. Returns false, and does nothing, while it has instances. `Missing` when the project does not exist.
    pub async fn remove_project(&self, project_id: &str) -> Result<bool, StoreError> {
        let mut tx = self.begin_request().await?;
        // Locked first: the insert of an instance waits for this verb, and then finds no project.
        lock("SELECT 1 FROM project WHERE id = $1 FOR UPDATE").bind(project_id).execute(&mut tx).await?;
        let instance = sql("SELECT 1 FROM instance WHERE project_id = $1").bind(project_id).optional(&mut tx).await?;
        if instance.is_some() {
            tx.roll_back().await;
            return Ok(false);
        }
        sql("DELETE FROM project WHERE id = $1").bind(project_id).change("project", &mut tx).await?;
        self.commit(tx).await?;
        Ok(true)
    }
}

pub(super) fn project(row: &Row) -> Result<Project, StoreError> {
    Ok(Project { id: row.get("id")?, name: row.get("name")?, created_at: row.get("created_at")? })
}
