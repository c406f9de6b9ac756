//! Tasks that tests put into a store.

use std::time::Duration;

use keysweep::{
    model::{NewTask, ScanType},
    random::new_id,
};

/// Returns a manual task of an instance with a new ID, a minute of running time, and nothing that is optional.
pub fn new_task(project_id: &str, instance_id: &str) -> NewTask {
    NewTask {
        id: new_id(),
        project_id: project_id.to_owned(),
        instance_id: instance_id.to_owned(),
        scan_type: ScanType::Manual,
        triggered_by: None,
        timeout: Duration::from_secs(60),
        keys_per_second: None,
        due_at: None,
        hosts: Vec::new(),
        history_retention: 1_000,
    }
}
