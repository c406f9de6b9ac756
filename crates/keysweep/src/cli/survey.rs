//! `keysweep survey`: the stale share of many servers, and what to do about each.

use std::{
    cmp::Reverse,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use clap::{Args, ValueEnum};
use indicatif::HumanCount;
use keysweep_engine::{
    EstimateRequest, Failure, FailureKind, Finding, PrimaryEstimate, PrimaryVerdict, Stop, Target, estimate,
    stale::{Advice, Code},
};
use serde::Serialize;

use super::{
    Exit,
    login::{Login, with_options},
    scan::percent,
    term,
};
use crate::units::size;

/// Targets that are estimated at a time; within one of them one primary at a time.
const CONCURRENCY: usize = 8;

/// Arguments of `keysweep survey`.
#[derive(Debug, Args)]
pub struct SurveyArgs {
    /// URLs of the targets, as for scan
    #[arg(required_unless_present = "socket", conflicts_with = "socket")]
    urls: Vec<String>,
    #[command(flatten)]
    login: Login,
    /// Never reclaim a key: servers without a replica are not sampled
    #[arg(long)]
    no_reclaim: bool,
    /// Order of the rows
    #[arg(long, value_name = "ORDER", value_enum, default_value = "bytes")]
    sort: Order,
    /// Stale share to stay below, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "10")]
    below: f64,
    /// Print the rows as one JSON array
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print the rows as CSV
    #[arg(long)]
    csv: bool,
}

/// Order of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Most stale bytes first
    Bytes,
    /// Highest stale share first
    Share,
    /// By name
    Name,
}

/// What was found of one primary.
#[derive(Debug, Clone, Serialize)]
struct Row {
    /// The target, without credentials.
    name: String,
    /// The primary; null: the target was not reached.
    address: Option<String>,
    #[serde(flatten)]
    finding: Finding,
    /// Whether the share is a hint (INFO) or a prediction, and no measurement.
    approximate: bool,
    verdict: Advice,
}

/// Estimates all targets, prints a row for each primary, and fails if a target was not reached.
pub fn run(args: &SurveyArgs) -> Exit {
    let urls: Vec<Option<&str>> = match args.urls.is_empty() {
        true => vec![None],
        false => args.urls.iter().map(|url| Some(url.as_str())).collect(),
    };
    let (targets, stop) = match args.login.prepare_all(&urls) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let request = EstimateRequest { no_reclaim: args.no_reclaim, ..EstimateRequest::default() };
    let (mut rows, failed) = survey(&targets, &request, args.below, &stop);
    if stop.is_raised() {
        return Exit::Interrupted;
    }
    sort(&mut rows, args.sort);
    match (args.json, args.csv) {
        (true, _) => term::json(&rows),
        (_, true) => rows_as_csv(&rows),
        _ => print(&rows),
    }
    match failed {
        true => Exit::Failed,
        false => Exit::Done,
    }
}

/// Returns the rows of all targets, and whether one was not reached.
fn survey(targets: &[Target], request: &EstimateRequest, below: f64, stop: &Stop) -> (Vec<Row>, bool) {
    let (next, found) = (AtomicUsize::new(0), Mutex::new((Vec::new(), false)));
    thread::scope(|scope| {
        for _ in 0..CONCURRENCY.min(targets.len()) {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (rows, failed) = rows_of(target, request, below, stop);
                    // A panic of another thread leaves the rows valid.
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.0.extend(rows);
                    found.1 |= failed;
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn rows_of(target: &Target, request: &EstimateRequest, below: f64, stop: &Stop) -> (Vec<Row>, bool) {
    let dialer = target.dialer().map_err(Failure::from);
    match dialer.and_then(|dialer| estimate(&*dialer, target, request, stop)) {
        Ok(found) => (found.primaries.into_iter().map(|primary| row(target, primary, below)).collect(), false),
        Err(failure) => (vec![unreached(target, &failure)], true),
    }
}

fn row(target: &Target, primary: PrimaryEstimate, below: f64) -> Row {
    let PrimaryVerdict { share, is_approximate, advice } = primary.verdict(below);
    let mut finding = primary.finding;
    finding.share = share.map(|share| share.share);
    Row {
        name: target.to_string(),
        address: Some(primary.address),
        finding,
        approximate: is_approximate,
        verdict: advice,
    }
}

fn unreached(target: &Target, failure: &Failure) -> Row {
    let code = match failure.kind {
        FailureKind::Unsupported => Code::Unsupported,
        _ => Code::Unknown,
    };
    let verdict =
        Advice { code, reason: with_options(&failure.message), remedy: None, interval_seconds: None, setting: None };
    Row { name: target.to_string(), address: None, finding: Finding::default(), approximate: false, verdict }
}

fn sort(rows: &mut [Row], order: Order) {
    let by_name = |one: &Row, other: &Row| (&one.name, &one.address).cmp(&(&other.name, &other.address));
    match order {
        Order::Name => rows.sort_by(by_name),
        Order::Bytes => rows.sort_by(|one, other| {
            Reverse(one.finding.bytes).cmp(&Reverse(other.finding.bytes)).then_with(|| by_name(one, other))
        }),
        Order::Share => rows.sort_by(|one, other| {
            let share = |row: &Row| row.finding.share.unwrap_or(-1.0);
            share(other).total_cmp(&share(one)).then_with(|| by_name(one, other))
        }),
    }
}

/// Formats a share with half of its interval; a hint or a prediction is marked.
fn share(row: &Row) -> String {
    let Some(share) = row.finding.share else { return "unknown".into() };
    match (row.approximate, row.finding.share_low, row.finding.share_high) {
        (true, ..) => format!("≈ {:.1} %", share * 100.0),
        (_, Some(low), Some(high)) if high > low => format!("{:.1} ±{:.1} %", share * 100.0, (high - low) * 50.0),
        _ => format!("{:.1} %", share * 100.0),
    }
}

fn print(rows: &[Row]) {
    let unknown = || "-".to_owned();
    let cells = |row: &Row| {
        let finding = &row.finding;
        vec![
            row.address.clone().unwrap_or_else(|| row.name.clone()),
            HumanCount(finding.keys).to_string(),
            HumanCount(finding.keys_with_ttl).to_string(),
            share(row),
            finding.bytes.map_or_else(unknown, size),
            finding.expiry_rate.map_or_else(unknown, |rate| format!("{rate:.0}")),
            finding.effort.map_or_else(unknown, |effort| effort.to_string()),
            finding.hz.map_or_else(unknown, |hz| hz.to_string()),
            finding.predicted_share.map_or_else(unknown, |share| format!("{:.1} %", share * 100.0)),
            row.verdict.code.as_str().to_owned(),
        ]
    };
    let header =
        ["primary", "keys", "with TTL", "stale", "stale bytes", "expired/s", "effort", "hz", "predicted", "verdict"];
    term::table(&header, rows.iter().map(cells).collect());
    for row in rows {
        let remedy = row.verdict.remedy.as_ref().map_or(String::new(), |remedy| format!("; {remedy}"));
        let name = row.address.as_ref().unwrap_or(&row.name);
        term::line(&format!("{name}: {}: {}{remedy}.", row.verdict.code.as_str(), row.verdict.reason));
    }
}

fn rows_as_csv(rows: &[Row]) {
    term::line(
        "name,address,keys,keys_with_ttl,share,share_low,share_high,approximate,bytes,bytes_low,bytes_high,method,expiry_rate,effort,hz,predicted_share,verdict,reason,remedy",
    );
    for row in rows {
        term::line(&csv_line(row));
    }
}

fn csv_line(row: &Row) -> String {
    fn text(value: Option<impl ToString>) -> String {
        value.map_or(String::new(), |value| value.to_string())
    }
    let finding = &row.finding;
    let fields = [
        row.name.clone(),
        text(row.address.as_ref()),
        finding.keys.to_string(),
        finding.keys_with_ttl.to_string(),
        text(finding.share),
        text(finding.share_low),
        text(finding.share_high),
        row.approximate.to_string(),
        text(finding.bytes),
        text(finding.bytes_low),
        text(finding.bytes_high),
        text(finding.method.map(keysweep_engine::Method::as_str)),
        text(finding.expiry_rate),
        text(finding.effort),
        text(finding.hz),
        text(finding.predicted_share),
        row.verdict.code.as_str().to_owned(),
        row.verdict.reason.clone(),
        text(row.verdict.remedy.as_ref()),
    ];
    fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",")
}

/// Quotes a field of CSV where it has to be (RFC 4180). A spreadsheet runs a field that begins as a formula does.
fn quoted(field: &str) -> String {
    let field = match field.starts_with(['=', '+', '-', '@']) {
        true => format!("'{field}"),
        false => field.to_owned(),
    };
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, share: Option<f64>, bytes: Option<u64>) -> Row {
        let verdict = Advice {
            code: Code::ScanOnce,
            reason: "30.0 % are stale, and \"more\"".into(),
            remedy: Some("+info".into()),
            interval_seconds: None,
            setting: None,
        };
        let finding = Finding {
            share,
            bytes,
            share_low: share,
            share_high: share.map(|share| share + 0.02),
            ..Finding::default()
        };
        Row { name: name.into(), address: Some(format!("{name}:1")), finding, approximate: false, verdict }
    }

    #[test]
    fn rows_are_sorted_with_the_unknown_last() {
        let rows = || vec![row("a", None, None), row("b", Some(0.1), Some(5)), row("c", Some(0.3), Some(2))];
        let sorted = |order| {
            let mut rows = rows();
            sort(&mut rows, order);
            rows.into_iter().map(|row| row.name).collect::<String>()
        };
        assert_eq!(
            (sorted(Order::Bytes), sorted(Order::Share), sorted(Order::Name)),
            ("bca".into(), "cba".into(), "abc".into())
        );
    }

    #[test]
    fn a_row_of_csv_is_quoted_and_runs_no_formula() {
        let line = csv_line(&row("a", Some(0.3), Some(2)));
        assert!(line.starts_with("a,a:1,0,0,0.3,0.3,0.32,false,2,"), "{line}");
        assert!(line.ends_with(",scan_once,\"30.0 % are stale, and \"\"more\"\"\",'+info"), "{line}");
    }

    #[test]
    fn an_approximate_share_is_marked() {
        let found = row("a", Some(0.3), None);
        assert_eq!(share(&found), "30.0 ±1.0 %");
        assert_eq!(share(&Row { approximate: true, ..found }), "≈ 30.0 %");
        assert_eq!(share(&row("a", None, None)), "unknown");
    }
}
