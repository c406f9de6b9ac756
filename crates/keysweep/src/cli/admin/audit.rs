//! `keysweep admin audit`: the audit trail of a project.

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::Output;
use crate::{
    cli::{
        client::fields::{text, time},
        listing::{Column, List, ListingArgs},
    },
    csv,
    identity::Identity,
    model::{AUDIT_FIELDS, AuditEntry},
    store::AuditPage,
    units::since,
};

/// Arguments of `keysweep admin audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Name or ID of the project
    #[arg(long)]
    project: String,
    /// List only entries since then: 24h ago, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// List only changes made by this user
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// List only changes of one kind, for example instance or task
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Number of newest entries to list
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    #[command(flatten)]
    listing: ListingArgs,
}

/// The list of entries.
const LIST: List<'static> = List {
    fields: &AUDIT_FIELDS,
    columns: &[
        Column::whole("time", |entry| time(&entry["happened_at"])),
        Column::elastic("user", |entry| text(&entry["actor"])),
        Column::whole("action", |entry| text(&entry["action"])),
        Column::elastic("detail", detail),
        Column::whole("subject", |entry| text(&entry["subject"])),
    ],
};

/// Formats the details of an entry: `name=cache,url=redis://…`.
fn detail(entry: &Value) -> String {
    if entry["detail"].is_null() { "-".into() } else { csv::cell(&entry["detail"]) }
}

impl AuditArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// The project is unknown, or the store failed.
    pub async fn run(self, identity: &Identity) -> anyhow::Result<Output> {
        let project = identity.project(&self.project).await?;
        let page = AuditPage {
            since: self.since,
            actor: self.actor,
            kind: self.kind,
            limit: self.limit.into(),
            ..AuditPage::default()
        };
        let entries = identity.audit(&project.id, page).await?;
        let rows = entries.iter().map(AuditEntry::json).collect();
        Ok(Output::List { listing: self.listing, rows, list: LIST })
    }
}
