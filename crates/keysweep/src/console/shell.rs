//! What surrounds every page: the way to the others, who is signed in, and what was just done.

use std::{sync::LazyLock, time::Duration};

use sha2::{Digest, Sha256};

use super::{Guest, assets::ASSETS};
use crate::model::{Project, Role};

/// How often a page with a scan under way is brought up to date: workers write once a second.
const LIVELY: Duration = Duration::from_secs(1);
/// How often any other is.
const CALM: Duration = Duration::from_secs(15);

/// Changes when one of the assets does.
pub(super) fn assets_version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Sha256::new();
        ASSETS.iter().for_each(|(.., content)| hash.update(content));
        hex::encode(&hash.finalize()[..6])
    });
    &VERSION
}

/// Which of the pages in the navigation it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    /// The instances, and all that belongs to one.
    Instances,
    /// The audit trail.
    Audit,
}

/// Something to tell at the top of a page.
pub(super) struct Notice {
    /// Good news, or bad.
    pub(super) is_good: bool,
    /// In a sentence or two.
    pub(super) text: String,
}

/// The surroundings of a page.
pub(super) struct Shell {
    pub(super) assets: &'static str,
    pub(super) title: String,
    /// The path of the page itself, whatever form led to it.
    pub(super) page: String,
    pub(super) tab: Tab,
    pub(super) user: Option<String>,
    pub(super) role: Role,
    pub(super) project: Project,
    pub(super) projects: Vec<Project>,
    pub(super) form_token: String,
    pub(super) notice: Option<Notice>,
    /// Milliseconds after which the page is brought up to date; `None`: it stays as it is.
    pub(super) refresh_ms: Option<u128>,
    pub(super) version: &'static str,
}

impl Shell {
    pub(super) fn is_on_instances(&self) -> bool {
        self.tab == Tab::Instances
    }

    pub(super) fn is_admin(&self) -> bool {
        self.role >= Role::Admin
    }

    pub(super) fn is_operator(&self) -> bool {
        self.role >= Role::Operator
    }

    /// For a page that shows how things stand.
    pub(super) fn live(self, is_lively: bool) -> Self {
        Self { refresh_ms: Some(if is_lively { LIVELY } else { CALM }.as_millis()), ..self }
    }

    /// Tells this instead of what the address says.
    pub(super) fn with_notice(self, notice: Option<Notice>) -> Self {
        match notice {
            Some(notice) => Self { notice: Some(notice), ..self },
            None => self,
        }
    }
}

impl Guest {
    /// The surroundings of a page at a path.
    pub(super) fn shell(&self, title: impl Into<String>, tab: Tab, page: String) -> Shell {
        Shell {
            assets: assets_version(),
            title: title.into(),
            page,
            tab,
            user: self.caller.name.clone(),
            role: self.role,
            project: self.project.clone(),
            projects: self.projects.clone(),
            form_token: self.form_key.token(),
            notice: done(self.query.text("done")),
            refresh_ms: None,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// What was done on the way to a page. Only what stands here can be told through an address.
fn done(what: &str) -> Option<Notice> {
    let text = match what {
        "scan" => "The scan is accepted. It starts as soon as a worker is free.",
        "cancel" => "The scan is asked to stop. What it has released stays released.",
        "auto-scan" => "The auto-scan is saved.",
        "add" => "The instance is added, and its server answers.",
        "save" => "The changes are saved.",
        "test" => "The server answers, and can be swept.",
        "pause" => "The instance is paused: a scan that runs goes on, new ones are refused.",
        "resume" => "The instance takes scans again.",
        "remove" => "The instance and its history are removed.",
        _ => return None,
    };
    Some(Notice { is_good: true, text: text.to_owned() })
}
