//! Scan tasks as tests use them. The paths of the task API are spelled here only, except in tests of the paths themselves.

use serde_json::Value;

use crate::service::{Answer, Service, id};

/// A scan task of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanTask {
    /// Id of the task.
    pub id: String,
    /// Path of the task in the native API.
    pub path: String,
}

impl ScanTask {
    /// Returns the task with this id.
    #[must_use]
    pub fn new(project: &str, id: &str) -> Self {
        Self { id: id.to_owned(), path: task_path(project, id) }
    }
}

/// Returns the path that creates a scan task (DCS API, POST).
#[must_use]
pub fn scan_path(project: &str, instance: &str) -> String {
    format!("/v2/{project}/instances/{instance}/scan-expire-keys-task")
}

/// Returns the path of an instance's task histories (DCS API, GET).
#[must_use]
pub fn histories_path(project: &str, instance: &str) -> String {
    format!("/v2/{project}/instances/{instance}/auto-expire/histories")
}

/// Returns the path of a task (native API, GET).
#[must_use]
pub fn task_path(project: &str, task: &str) -> String {
    format!("/api/v1/projects/{project}/tasks/{task}")
}

impl Service {
    /// Requests a scan of an instance and returns the response.
    pub fn create_scan(&self, project: &str, instance: &str) -> Answer {
        self.request("POST", &scan_path(project, instance))
    }

    /// Creates a scan task of an instance.
    ///
    /// # Panics
    /// If the service does not answer 200.
    pub fn scan(&self, project: &str, instance: &str) -> ScanTask {
        let created = self.create_scan(project, instance);
        assert_eq!(created.status, 200, "{created:?}");
        ScanTask::new(project, &id(&created.body))
    }

    /// Returns the current state of a task.
    ///
    /// # Panics
    /// If the service does not answer 200.
    pub fn task(&self, task: &ScanTask) -> Value {
        self.get(&task.path)
    }

    /// Waits until a task meets the condition, and returns its state.
    ///
    /// # Panics
    /// If it does not meet the condition within 30 s.
    pub fn wait_for_task(&self, task: &ScanTask, condition: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(&task.path, condition)
    }

    /// Waits until a task is finished (`success` or `failed`), and returns its state.
    ///
    /// # Panics
    /// If it is not finished within 30 s.
    pub fn wait_until_finished(&self, task: &ScanTask) -> Value {
        self.wait_for_task(task, |task| matches!(task["status"].as_str(), Some("success" | "failed")))
    }

    /// Returns the first page of an instance's task histories.
    ///
    /// # Panics
    /// If the service does not answer 200.
    pub fn histories(&self, project: &str, instance: &str) -> Value {
        self.get(&histories_path(project, instance))
    }

    /// Waits until the first page of an instance's task histories meets the condition, and returns the page.
    ///
    /// # Panics
    /// If it does not meet the condition within 30 s.
    pub fn wait_for_histories(&self, project: &str, instance: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(&histories_path(project, instance), condition)
    }
}
