//! Changes of several instances that are made together or not at all.

use super::{
    Store, StoreError,
    instances::{change_instance, delete_instance, insert_instance},
};
use crate::model::Instance;

/// Changes of several instances.
#[derive(Debug, Clone, Default)]
pub struct InstanceChanges {
    /// Instances to register.
    pub added: Vec<Instance>,
    /// Instances to change, as they were read and as they are to be.
    pub changed: Vec<(Instance, Instance)>,
    /// Instances to remove with their tasks.
    pub removed: Vec<Instance>,
}

impl Store {
    /// Removes, changes and adds instances in one transaction. Returns the name of an instance that has an active task and was to
    /// be removed: nothing is changed then. Errors, `Held` among them, are those of the single changes.
    pub async fn change_instances(&self, changes: &InstanceChanges) -> Result<Option<String>, StoreError> {
        let mut tx = self.begin_request().await?;
        let now = self.now(&mut tx).await?;
        for instance in &changes.removed {
            if !delete_instance(&mut tx, &instance.project_id, &instance.id).await? {
                tx.roll_back().await;
                return Ok(Some(instance.name.clone()));
            }
        }
        for (before, after) in &changes.changed {
            change_instance(&mut tx, now, before, after).await?;
        }
        for instance in &changes.added {
            insert_instance(&mut tx, instance).await?;
        }
        self.commit(tx).await?;
        Ok(None)
    }
}
