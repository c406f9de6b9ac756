//! The audit trail as a file, for spreadsheets and programs: read page by page, so that a long trail takes no memory.

use std::{fmt, str::FromStr};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::{Identity, IdentityError};
use crate::{
    model::{AuditEntry, UnknownName, audit_csv, named},
    store::AuditPage,
};

/// Entries that are read at a time: 100 KiB at most, since a client that does not read its export holds them.
const PAGE: u64 = 50;

/// Format of an exported audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFormat {
    /// A line an entry, with the details as `name=value` pairs.
    Csv,
    /// An array of objects.
    Json,
}

named!(AuditFormat, "format of an export", { Csv = "csv", Json = "json" });

impl AuditFormat {
    /// Returns the media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json",
        }
    }

    /// Returns a part of the file. `is_first`: whether none is before it.
    fn part(self, entries: &[AuditEntry], is_first: bool) -> String {
        match self {
            Self::Csv => {
                let text = audit_csv(entries);
                let (_, rows) = text.split_once('\n').unwrap_or_default();
                if is_first { text } else { rows.to_owned() }
            }
            Self::Json => {
                let begun = if is_first { "[" } else { "," };
                let objects: Vec<String> = entries.iter().map(|entry| format!("\n{}", entry.json())).collect();
                if is_first || !objects.is_empty() { begun.to_owned() + &objects.join(",") } else { String::new() }
            }
        }
    }

    fn end(self) -> &'static str {
        match self {
            Self::Csv => "",
            Self::Json => "\n]\n",
        }
    }
}

/// What is left of an export.
struct Rest {
    identity: Identity,
    project_id: String,
    page: AuditPage,
    /// Most entries that are still to come.
    left: u64,
    format: AuditFormat,
    is_first: bool,
    has_ended: bool,
}

impl Rest {
    /// Returns the next part of the file.
    async fn next(&mut self) -> Result<String, IdentityError> {
        let limit = PAGE.min(self.left);
        let entries = self.identity.audit(&self.project_id, AuditPage { limit, ..self.page.clone() }).await?;
        let mut text = self.format.part(&entries, std::mem::take(&mut self.is_first));
        self.page.before = entries.last().map(|last| last.seq);
        self.left = self.left.saturating_sub(entries.len() as u64);
        if (entries.len() as u64) < limit || self.left == 0 {
            self.has_ended = true;
            text.push_str(self.format.end());
        }
        Ok(text)
    }
}

impl Identity {
    /// Returns the entries of a project's audit trail that a page selects, newest first, as the parts of a file. The first part is
    /// read already, so that a store that cannot be read is an error and not a file without entries.
    pub async fn export_audit(
        &self,
        project_id: &str,
        page: AuditPage,
        format: AuditFormat,
    ) -> Result<BoxStream<'static, Result<String, IdentityError>>, IdentityError> {
        let mut rest = Rest {
            identity: self.clone(),
            project_id: project_id.to_owned(),
            left: page.limit,
            page,
            format,
            is_first: true,
            has_ended: false,
        };
        let first = rest.next().await?;
        let others = stream::unfold(rest, |mut rest| async move {
            if rest.has_ended {
                return None;
            }
            let part = rest.next().await;
            // The file of a failed export is cut off, which its reader sees by the transfer.
            rest.has_ended |= part.is_err();
            Some((part, rest))
        });
        Ok(stream::iter([Ok(first)]).chain(others).boxed())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn entry(seq: i64, actor: Option<&str>) -> AuditEntry {
        AuditEntry {
            seq,
            happened_at: Timestamp::UNIX_EPOCH,
            project_id: None,
            actor: actor.map(str::to_owned),
            action: "instance.add".into(),
            subject: "i".into(),
            detail: Some(r#"{"name":"a, b"}"#.into()),
        }
    }

    #[test]
    fn the_parts_of_an_export_are_one_valid_file() {
        let (first, second) = ([entry(3, Some("=ada")), entry(2, None)], [entry(1, None)]);
        let file = |format: AuditFormat, parts: &[&[AuditEntry]]| {
            let parts = parts.iter().enumerate().map(|(index, entries)| format.part(entries, index == 0));
            parts.chain([format.end().to_owned()]).collect::<String>()
        };
        for parts in [&[&first[..], &second], &[&first[..], &second, &[]][..]] {
            let csv = file(AuditFormat::Csv, parts);
            assert_eq!((csv.lines().count(), csv.matches("happened_at").count()), (4, 1), "{csv}");
            assert!(csv.contains("'=ada"), "{csv}");
            let json: Value = serde_json::from_str(&file(AuditFormat::Json, parts)).expect("JSON");
            let seqs: Vec<&Value> = json.as_array().expect("a list").iter().map(|entry| &entry["seq"]).collect();
            assert_eq!(seqs, [&json!(3), &json!(2), &json!(1)]);
        }
        assert_eq!(serde_json::from_str::<Value>(&file(AuditFormat::Json, &[&[]])).expect("JSON"), json!([]));
    }
}
