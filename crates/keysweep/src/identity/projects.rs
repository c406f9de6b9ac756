//! Projects.

use serde_json::json;

use super::{Identity, IdentityError, error::taken};
use crate::{
    model::{AuditEvent, COMMAND_LINE, Project, check_id, check_name, now, other_form},
    random::new_id,
};

impl Identity {
    /// Adds a project, with a new id or the given one.
    pub async fn add_project(&self, name: &str, id: Option<&str>) -> Result<Project, IdentityError> {
        check_name("project name", name)?;
        if let Some(id) = id {
            check_id("project id", id)?;
            // With and without dashes it is the same id to people, and to some clients.
            let other = other_form(id);
            if self.projects().await?.iter().any(|project| project.id == other) {
                return Err(IdentityError::Taken { what: "project", field: "id", value: other });
            }
        }
        let id = id.map_or_else(new_id, str::to_owned);
        let project = Project { id, name: name.to_owned(), created_at: now() };
        let value_of = |field: &str| if field == "id" { project.id.as_str() } else { name };
        let store = self.audited(event(&project, "project.add"), &json!({ "name": name }));
        store.add_project(&project).await.map_err(taken(value_of))?;
        Ok(project)
    }

    /// Removes a project that has no instances; its users keep their roles on other projects.
    pub async fn remove_project(&self, project: &str) -> Result<(), IdentityError> {
        let project = self.project(project).await?;
        let store = self.audited(event(&project, "project.remove"), &json!({ "name": project.name }));
        match store.remove_project(&project.id).await? {
            true => Ok(()),
            false => Err(IdentityError::InUse(project.name)),
        }
    }

    /// Returns all projects, by name.
    pub async fn projects(&self) -> Result<Vec<Project>, IdentityError> {
        Ok(self.store.projects().await?)
    }

    /// Returns the project of this id or, where there is none, of this name.
    pub async fn project(&self, id_or_name: &str) -> Result<Project, IdentityError> {
        let mut projects = self.projects().await?;
        let position = projects
            .iter()
            .position(|project| project.id == id_or_name)
            .or_else(|| projects.iter().position(|project| project.name == id_or_name));
        match position {
            Some(position) => Ok(projects.swap_remove(position)),
            None => Err(IdentityError::Unknown {
                what: "project",
                value: id_or_name.to_owned(),
                remedy: "`keysweep admin project list` lists the known ones",
            }),
        }
    }
}

fn event<'p>(project: &'p Project, action: &'static str) -> AuditEvent<'p> {
    AuditEvent { project_id: Some(&project.id), actor: COMMAND_LINE, action, subject: &project.id }
}
