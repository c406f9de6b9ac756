//! What a caller may do where: the checks between the credentials and the existence of things, in their order.

use super::Caller;
use crate::{fleet::is_id, model::Role};

/// Why a caller is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The project's id is none.
    ProjectFormat,
    /// The credentials are not for this project.
    OtherProject,
    /// The instance's, or the task's, id is none.
    SubjectFormat,
    /// The caller's role on the project does not suffice.
    Role,
}

impl Caller {
    /// Lets a caller through to a project, and to something in it, who has at least this role there. The order of the
    /// checks matters: nobody learns anything of a project that is none of his business.
    pub fn pass(&self, project_id: &str, subject_id: Option<&str>, needed: Role) -> Result<(), Refusal> {
        if !is_id(project_id) {
            return Err(Refusal::ProjectFormat);
        }
        let held = self.role_on(project_id).ok_or(Refusal::OtherProject)?;
        if !subject_id.is_none_or(is_id) {
            return Err(Refusal::SubjectFormat);
        }
        if held < needed { Err(Refusal::Role) } else { Ok(()) }
    }
}
