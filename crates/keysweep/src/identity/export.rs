//! The audit trail as a file, for spreadsheets and programs: read page by page, so that a long trail takes no memory.

use std::{fmt, str::FromStr};

use futures_util::{Stream, stream};
use serde_json::{Value, json};

use super::{Identity, IdentityError};
use crate::{
    csv,
    model::{AuditEntry, UnknownName, named},
    store::AuditPage,
};

/// Entries that are read at a time.
const PAGE: u64 = 500;

/// Format of an exported audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFormat {
    /// A line an entry, the details as JSON in the last column.
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

    fn beginning(self) -> &'static str {
        match self {
            Self::Csv => "seq,happened_at,actor,action,subject,detail\n",
            Self::Json => "[",
        }
    }

    /// Returns an entry. `is_first`: whether none is before it.
    fn entry(self, entry: &AuditEntry, is_first: bool) -> String {
        match self {
            Self::Csv => {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                let fields = [
                    entry.seq.to_string(),
                    entry.happened_at.to_string(),
                    text(&entry.actor),
                    entry.action.clone(),
                    entry.subject.clone(),
                    text(&entry.detail),
                ];
                csv::line(fields) + "\n"
            }
            Self::Json => {
                let detail = entry.detail.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
                let object = json!({
                    "seq": entry.seq, "happened_at": entry.happened_at, "actor": entry.actor, "action": entry.action,
                    "subject": entry.subject, "detail": detail,
                });
                format!("{}\n{object}", if is_first { "" } else { "," })
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
    format: AuditFormat,
    is_first: bool,
    has_ended: bool,
}

impl Rest {
    /// Returns the next part of the file.
    async fn next(&mut self) -> Result<String, IdentityError> {
        let entries = self.identity.audit(&self.project_id, self.page.clone()).await?;
        let mut text = if self.is_first { self.format.beginning().to_owned() } else { String::new() };
        for entry in &entries {
            text.push_str(&self.format.entry(entry, std::mem::take(&mut self.is_first)));
        }
        self.is_first = false;
        self.page.before = entries.last().map(|last| last.seq);
        if (entries.len() as u64) < self.page.limit {
            self.has_ended = true;
            text.push_str(self.format.end());
        }
        Ok(text)
    }
}

impl Identity {
    /// Returns the entries of a project's audit trail that a page selects, newest first and without its limit, as the parts of
    /// a file.
    pub fn export_audit(
        &self,
        project_id: &str,
        page: AuditPage,
        format: AuditFormat,
    ) -> impl Stream<Item = Result<String, IdentityError>> + Send + use<> {
        let rest = Rest {
            identity: self.clone(),
            project_id: project_id.to_owned(),
            page: AuditPage { limit: PAGE, ..page },
            format,
            is_first: true,
            has_ended: false,
        };
        stream::unfold(rest, |mut rest| async move {
            if rest.has_ended {
                return None;
            }
            let part = rest.next().await;
            // The file of a failed export is cut off, which its reader sees by the transfer.
            rest.has_ended |= part.is_err();
            Some((part, rest))
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

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
    fn an_export_is_valid_csv_and_valid_json() {
        let entries = [entry(2, Some("=ada")), entry(1, None)];
        let file = |format: AuditFormat| {
            let lines = entries.iter().enumerate().map(|(index, entry)| format.entry(entry, index == 0));
            [format.beginning().to_owned(), lines.collect(), format.end().to_owned()].concat()
        };
        let csv = file(AuditFormat::Csv);
        let first = r#"2,1970-01-01T00:00:00Z,'=ada,instance.add,i,"{""name"":""a, b""}""#;
        assert_eq!((csv.lines().nth(1), csv.lines().count()), (Some(first), 3));
        let json: Value = serde_json::from_str(&file(AuditFormat::Json)).expect("JSON");
        assert_eq!(
            (&json[0]["actor"], &json[1]["actor"], &json[1]["detail"]["name"]),
            (&json!("=ada"), &Value::Null, &json!("a, b"))
        );
        let empty = [AuditFormat::Json.beginning(), AuditFormat::Json.end()].concat();
        assert_eq!(serde_json::from_str::<Value>(&empty).expect("JSON"), json!([]));
    }
}
