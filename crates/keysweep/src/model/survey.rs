//! Surveys: what was found of each primary of many servers, and what to do about it.

use std::{cmp::Reverse, fmt, str::FromStr};

use jiff::Timestamp;
use keysweep_engine::{
    Failure, FailureKind, Finding, Method,
    stale::{Advice, Code},
};
use serde::{Deserialize, Serialize};

use super::{EstimatedPrimary, Labels, UnknownName, named, now};

/// A row of a survey: one primary, or a server that was not reached. What is unknown is `None`, and null in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SurveyRow {
    /// Name of the instance, or the target without credentials.
    pub name: String,
    /// Id of the instance; `None`: it is not registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The primary; `None`: the server was not reached.
    pub address: Option<String>,
    /// When it was estimated; `None`: the server was not reached.
    #[serde(default)]
    pub taken_at: Option<Timestamp>,
    /// Keys in memory, stale keys included.
    pub keys: Option<u64>,
    /// Keys with a TTL among them.
    pub keys_with_ttl: Option<u64>,
    /// Stale keys as a share of all keys.
    pub share: Option<f64>,
    /// Lower end of its 95 % interval.
    pub share_low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub share_high: Option<f64>,
    /// Stale keys as a share of the keys with a TTL.
    pub share_of_expiring: Option<f64>,
    /// Stale keys.
    pub stale_keys: Option<u64>,
    /// Bytes of the stale keys.
    pub bytes: Option<u64>,
    /// Lower end of its 95 % interval.
    pub bytes_low: Option<u64>,
    /// Upper end of its 95 % interval.
    pub bytes_high: Option<u64>,
    /// How it was found.
    pub method: Option<Method>,
    /// Stale keys that the survey itself has reclaimed.
    pub reclaimed: Option<u64>,
    /// Time for which the survey kept the main thread, seconds.
    pub server_seconds: Option<f64>,
    /// Keys that expire a second.
    pub expiry_rate: Option<f64>,
    /// Cycles a second of the server (`hz`).
    pub hz: Option<u32>,
    /// `active-expire-effort`.
    pub effort: Option<u8>,
    /// Share of all keys that the server's own cycle holds in steady state.
    pub predicted_share: Option<f64>,
    /// Whether the share is what the cycle holds.
    pub steady: Option<bool>,
    /// Whether the share is a hint (INFO) or a prediction, and no measurement.
    pub approximate: bool,
    /// Bytes that the data of the primary takes.
    pub used_memory: Option<u64>,
    /// What the row lacks, and why, sentences.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What to do about it.
    pub verdict: Advice,
}

/// Order of the rows of a survey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SurveyOrder {
    /// Most stale bytes first.
    #[default]
    Bytes,
    /// Highest stale share first.
    Share,
    /// By name.
    Name,
}

named!(SurveyOrder, "order of a survey", { Bytes = "bytes", Share = "share", Name = "name" });

impl SurveyRow {
    /// Returns the row of a primary that was estimated now.
    pub fn of(name: String, primary: EstimatedPrimary) -> Self {
        let EstimatedPrimary { address, finding, approximate, used_memory, verdict, notes, .. } = primary;
        Self {
            keys: Some(finding.keys),
            keys_with_ttl: Some(finding.keys_with_ttl),
            reclaimed: Some(finding.reclaimed),
            approximate,
            used_memory,
            notes,
            taken_at: Some(now()),
            ..Self::new(name, Some(address), finding, verdict)
        }
    }

    /// Returns the row of a server of which nothing is known; the verdict gives the reason.
    pub fn unknown(name: String, code: Code, reason: String) -> Self {
        let verdict = Advice { code, reason, remedy: None, interval_seconds: None, setting: None };
        Self::new(name, None, Finding::default(), verdict)
    }

    /// Returns the row of a server that was not reached, or that cannot be estimated.
    pub fn unreached(name: String, failure: &Failure, reason: String) -> Self {
        let code = match failure.kind {
            FailureKind::Unsupported => Code::Unsupported,
            _ => Code::Unknown,
        };
        Self::unknown(name, code, reason)
    }

    fn new(name: String, address: Option<String>, finding: Finding, verdict: Advice) -> Self {
        Self {
            name,
            instance_id: None,
            address,
            taken_at: None,
            keys: None,
            keys_with_ttl: None,
            share: finding.share,
            share_low: finding.share_low,
            share_high: finding.share_high,
            share_of_expiring: finding.share_of_expiring,
            stale_keys: finding.stale_keys,
            bytes: finding.bytes,
            bytes_low: finding.bytes_low,
            bytes_high: finding.bytes_high,
            method: finding.method,
            reclaimed: None,
            server_seconds: finding.server_seconds,
            expiry_rate: finding.expiry_rate,
            hz: finding.hz,
            effort: finding.effort,
            predicted_share: finding.predicted_share,
            steady: finding.steady,
            approximate: false,
            used_memory: None,
            notes: Vec::new(),
            verdict,
        }
    }
}

impl SurveyOrder {
    /// Sorts rows; those whose bytes or share are unknown come last.
    pub fn sort(self, rows: &mut [SurveyRow]) {
        let by_name =
            |one: &SurveyRow, other: &SurveyRow| (&one.name, &one.address).cmp(&(&other.name, &other.address));
        match self {
            Self::Name => rows.sort_by(by_name),
            Self::Bytes => rows
                .sort_by(|one, other| Reverse(one.bytes).cmp(&Reverse(other.bytes)).then_with(|| by_name(one, other))),
            Self::Share => rows.sort_by(|one, other| {
                let share = |row: &SurveyRow| row.share.unwrap_or(-1.0);
                share(other).total_cmp(&share(one)).then_with(|| by_name(one, other))
            }),
        }
    }
}

/// State of a survey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SurveyStatus {
    /// Servers are being estimated.
    Running,
    /// Every server has its rows.
    Done,
    /// The process that ran it has ended; the rows so far stay.
    Interrupted,
}

impl SurveyStatus {
    /// Returns why there are no more rows, a sentence; `None`: they come, or are all there.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Running | Self::Done => None,
            Self::Interrupted => Some("the process that ran the survey has ended; start another one"),
        }
    }
}

named!(SurveyStatus, "status of a survey", { Running = "running", Done = "done", Interrupted = "interrupted" });

/// A survey of the instances of a project.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Id of the project.
    pub project_id: String,
    /// Name of the user who created it; `None`: no authentication.
    pub triggered_by: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When every server had its rows.
    pub finished_at: Option<Timestamp>,
    /// State.
    pub status: SurveyStatus,
    /// Stale share to stay below, 0–1.
    pub target: f64,
    /// Labels by which the instances were selected.
    pub labels: Labels,
    /// Instances to survey.
    pub instances: u64,
    /// Instances that have their rows.
    pub surveyed: u64,
    /// The rows so far, in no particular order.
    pub rows: Vec<SurveyRow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, share: Option<f64>, bytes: Option<u64>) -> SurveyRow {
        SurveyRow { share, bytes, ..SurveyRow::unknown(name.into(), Code::Unknown, "why".into()) }
    }

    #[test]
    fn rows_are_sorted_with_the_unknown_last() {
        let sorted = |order: SurveyOrder| {
            let mut rows = [row("a", None, None), row("b", Some(0.1), Some(5)), row("c", Some(0.3), Some(2))];
            order.sort(&mut rows);
            rows.map(|row| row.name).concat()
        };
        assert_eq!(
            (sorted(SurveyOrder::Bytes), sorted(SurveyOrder::Share), sorted(SurveyOrder::Name)),
            ("bca".into(), "cba".into(), "abc".into())
        );
    }

    #[test]
    fn what_is_unknown_is_null_and_never_zero() {
        let unreached = Failure::new(FailureKind::Unreachable, "refused");
        let row = SurveyRow::unreached("a".into(), &unreached, "refused".into());
        let json = serde_json::to_value(&row).expect("JSON");
        for field in ["address", "taken_at", "keys", "keys_with_ttl", "share", "bytes", "reclaimed", "used_memory"] {
            assert_eq!(json[field], serde_json::Value::Null, "{field}");
        }
        assert_eq!((&json["verdict"]["code"], &json["verdict"]["reason"]), (&"unknown".into(), &"refused".into()));
        assert_eq!(serde_json::from_value::<SurveyRow>(json).expect("readable"), row);
    }
}
