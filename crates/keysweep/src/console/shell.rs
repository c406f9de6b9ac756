//! The frame of every page: navigation, user, and a notice of the last action.

use std::time::Duration;

use super::{assets::assets_version, state::PageContext};
use crate::model::{Project, Role};

/// Refresh interval of a page with an active scan. Workers write once a second.
const ACTIVE_REFRESH: Duration = Duration::from_secs(1);
/// Refresh interval of any other page.
const IDLE_REFRESH: Duration = Duration::from_secs(15);

/// An entry of the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    /// The instances and their pages.
    Instances,
    /// The tasks of all instances.
    Activity,
    /// The survey.
    Survey,
    /// The audit trail.
    Audit,
}

/// A notice at the top of a page.
pub(super) struct Notice {
    /// Whether it reports a success.
    pub(super) is_good: bool,
    /// One or two sentences.
    pub(super) text: String,
    /// What the text announces, if it is a list.
    pub(super) items: Vec<String>,
}

impl Notice {
    /// Returns the notice of a success.
    fn good(text: &str) -> Self {
        Self { is_good: true, text: text.to_owned(), items: Vec::new() }
    }

    /// Returns the notice of a failure.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self { is_good: false, text: text.into(), items: Vec::new() }
    }
}

/// The frame of a page.
pub(super) struct Shell {
    pub(super) assets: &'static str,
    pub(super) title: String,
    /// Path of the page itself, also in the answer to a form.
    pub(super) page: String,
    pub(super) tab: Tab,
    pub(super) user: Option<String>,
    pub(super) role: Role,
    pub(super) project: Project,
    pub(super) projects: Vec<Project>,
    pub(super) form_token: String,
    pub(super) notice: Option<Notice>,
    /// Refresh interval in milliseconds; `None`: the page is not refreshed.
    pub(super) refresh_ms: Option<u128>,
    pub(super) version: &'static str,
}

impl Shell {
    pub(super) fn is_on_instances(&self) -> bool {
        self.tab == Tab::Instances
    }

    pub(super) fn is_on_activity(&self) -> bool {
        self.tab == Tab::Activity
    }

    pub(super) fn is_on_survey(&self) -> bool {
        self.tab == Tab::Survey
    }

    pub(super) fn is_on_audit(&self) -> bool {
        self.tab == Tab::Audit
    }

    pub(super) fn is_admin(&self) -> bool {
        self.role >= Role::Admin
    }

    pub(super) fn is_operator(&self) -> bool {
        self.role >= Role::Operator
    }

    /// Makes the page refresh itself. `is_active`: whether it shows an active scan.
    pub(super) fn live(self, is_active: bool) -> Self {
        Self { refresh_ms: Some(if is_active { ACTIVE_REFRESH } else { IDLE_REFRESH }.as_millis()), ..self }
    }

    /// Replaces the notice, if there is another one.
    pub(super) fn with_notice(self, notice: Option<Notice>) -> Self {
        match notice {
            Some(notice) => Self { notice: Some(notice), ..self },
            None => self,
        }
    }
}

impl PageContext {
    /// Returns the frame of a page at a path.
    pub(super) fn shell(&self, title: impl Into<String>, tab: Tab, page: String) -> Shell {
        Shell {
            assets: assets_version(),
            title: title.into(),
            page,
            tab,
            user: self.user().map(str::to_owned),
            role: self.authorized.role,
            project: self.project.clone(),
            projects: self.projects.clone(),
            form_token: self.form_key.token(),
            notice: done(self.query.text("done")),
            refresh_ms: None,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Returns the notice for an action that redirected to a page. The query names the action only, so that links cannot show
/// other texts.
fn done(what: &str) -> Option<Notice> {
    let text = match what {
        "scan" => "The scan is created. It starts as soon as a worker is free.",
        "cancel" => "The scan is being cancelled. Keys that it has reclaimed stay reclaimed.",
        "auto-scan" => "The auto-scan is saved.",
        "hold" => "The target is saved. A worker applies it within seconds.",
        "restore" => "The level is observe. A worker restores the servers' own settings within seconds.",
        "add" => "The instance is added, and its server answers.",
        "save" => "The changes are saved.",
        "test" => "The server answers and can be scanned.",
        "pause" => "The instance is paused: an active scan continues, new scans are refused.",
        "resume" => "The instance accepts scans again.",
        "survey" => "The survey is created. Its rows appear as instances are estimated.",
        "remove" => "The instance and its history are removed.",
        "scan-selected" => "The scans are created. Each starts as soon as a worker is free.",
        "pause-selected" => "The instances are paused: active scans continue, new scans are refused.",
        "resume-selected" => "The instances accept scans again.",
        "schedule-selected" => "The auto-scan of each instance is saved.",
        _ => return None,
    };
    Some(Notice::good(text))
}
