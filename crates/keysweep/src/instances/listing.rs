//! Lists of a project's instances, within a bound on the memory of all lists: an instance may have long settings and stats of a
//! thousand primaries, and clients decide how many lists they ask for at a time.

use std::ops::{Deref, DerefMut};

use super::{InstanceError, Instances};
use crate::{
    budget::{BudgetShare, ByteBudget},
    model::{Instance, Label, Stored},
};

/// Memory of a process for lists of instances, bytes: one of 30,000 instances takes three quarters of it.
pub const ALL_LISTS: usize = 96 << 20;
/// Memory for the lists of one project, beside one that may be larger: so little that they leave that one what it needs.
const LISTS_OF_A_PROJECT: usize = ALL_LISTS / 6;
/// Instances that are read at a time for a list that is written part by part, each of which a client may hold.
pub const PART: u32 = 16;
/// Instances that are read at a time for a whole list.
const READ: u32 = 64;

/// Memory of an instance without its texts, bytes.
const PLAIN: usize = 1024;
/// Memory of a text that is parsed into addresses, by that of the text.
const PARSED: usize = 5;
/// Memory of a primary in the stats, of its address, its run ID and its IP address, bytes.
const PRIMARY: usize = 512;

/// Returns the memory for all lists.
pub(super) fn memory() -> ByteBudget {
    ByteBudget::new(ALL_LISTS, LISTS_OF_A_PROJECT)
}

/// Returns how much memory an instance takes in a list, with what is made of it, bytes.
fn size(instance: &Instance) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let parsed = instance.url.text().len() + instance.address_map.as_ref().map_or(0, |map| map.text().len());
    let others = instance.labels.text().len()
        + instance.window.as_ref().map(Stored::text).map_or(0, str::len)
        + instance.unreachable.as_ref().map_or(0, |failure| failure.cause.len())
        + instance.server_name.as_ref().map_or(0, String::len)
        + text(&instance.username);
    let sealed = [&instance.password, &instance.sentinel_password, &instance.client_key];
    let kept = sealed.into_iter().flatten().map(|sealed| sealed.0.len()).sum::<usize>()
        + text(&instance.ca_pem)
        + text(&instance.cert_pem);
    let primaries = instance.stats.as_ref().map_or(0, |stats| stats.primaries.len());
    PLAIN + PARSED * parsed + 2 * others + kept + PRIMARY * primaries
}

/// Instances, and the memory that is counted for them until they are dropped.
#[derive(Debug, Default)]
pub struct InstanceList {
    instances: Vec<Instance>,
    share: Option<BudgetShare>,
}

impl InstanceList {
    /// Returns the instances, and the memory to hold on to for as long as they are used.
    pub fn into_parts(self) -> (Vec<Instance>, Option<BudgetShare>) {
        (self.instances, self.share)
    }
}

impl Deref for InstanceList {
    type Target = Vec<Instance>;

    fn deref(&self) -> &Vec<Instance> {
        &self.instances
    }
}

impl DerefMut for InstanceList {
    fn deref_mut(&mut self) -> &mut Vec<Instance> {
        &mut self.instances
    }
}

impl Instances {
    /// Returns all instances of a project, by name. `NoMemory` where lists take all that there is for them.
    pub async fn list(&self, project_id: &str) -> Result<InstanceList, InstanceError> {
        let mut share = self.lists.share(project_id.to_owned());
        let instances = self.store.instances_within(project_id, READ, |instance| share.grow(size(instance))).await?;
        let instances = instances.ok_or(InstanceError::NoMemory)?;
        Ok(InstanceList { instances, share: Some(share) })
    }

    /// Returns the next instances of a project by name, at most [`PART`] of them: those after the name `after`. `NoMemory` in the same
    /// case.
    pub async fn list_after(&self, project_id: &str, after: &str) -> Result<InstanceList, InstanceError> {
        let mut share = self.lists.share(project_id.to_owned());
        let instances = self.store.instances_after(project_id, after, PART).await?;
        match instances.iter().all(|instance| share.grow(size(instance))) {
            true => Ok(InstanceList { instances, share: Some(share) }),
            false => Err(InstanceError::NoMemory),
        }
    }

    /// Returns the instances of a project that have all of these labels, by name.
    pub async fn select(&self, project_id: &str, labels: &[Label]) -> Result<InstanceList, InstanceError> {
        let mut instances = self.list(project_id).await?;
        instances.retain(|instance| instance.has_labels(labels));
        Ok(instances)
    }

    /// Returns the instance of this id or, where there is none, of this name.
    pub async fn find(&self, project_id: &str, id_or_name: &str) -> Result<Instance, InstanceError> {
        let mut instances = self.list(project_id).await?;
        let position = instances
            .iter()
            .position(|instance| instance.id == id_or_name)
            .or_else(|| instances.iter().position(|instance| instance.name == id_or_name));
        match position {
            Some(position) => Ok(instances.swap_remove(position)),
            None => Err(InstanceError::Unknown {
                what: "instance",
                value: id_or_name.to_owned(),
                remedy: "`keysweep admin instance list` lists the known ones",
            }),
        }
    }
}
