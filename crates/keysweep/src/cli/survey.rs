//! `keysweep survey`: the stale share of many servers, and what to do about each.

mod sampled;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use clap::Args;
use keysweep_engine::{EstimateRequest, Failure, PrimaryEstimate, Stop, Target, estimate, stale::Advice};
use serde_json::Value;

use super::{
    Exit,
    client::fields::{count, memory, number, share, text},
    listing::{Column, List, ListingArgs},
    login::{Login, with_options},
    scan::percent,
    signals::stop_on_signals,
    term,
};
use crate::{
    inventory::Inventory,
    model::{EstimatedPrimary, Label, SurveyOrder, SurveyRow},
    units::size,
};

use sampled::{Sampled, SampledServers};

/// Targets that are estimated at a time; within one of them one primary at a time.
const CONCURRENCY: usize = 8;

/// Note of the rows of a target whose servers have rows under another name.
const SAMPLED_ALREADY: &str =
    "a server of this target was sampled under another name in this survey, and is not sampled twice";

/// Arguments of `keysweep survey`.
#[derive(Debug, Args)]
pub struct SurveyArgs {
    /// URLs of the targets, as for scan
    #[arg(conflicts_with = "socket")]
    urls: Vec<String>,
    #[command(flatten)]
    login: Login,
    /// Survey the servers of this inventory as well (YAML)
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    inventory: Option<PathBuf>,
    /// Survey only servers of the inventory with this label; repeatable
    #[arg(short = 'l', long = "label", value_name = "NAME=VALUE", requires = "inventory")]
    labels: Vec<Label>,
    /// Never reclaim a key: servers without a replica are not sampled
    #[arg(long)]
    no_reclaim: bool,
    /// Order of the rows: bytes (most stale bytes first), share or name
    #[arg(long, value_name = "ORDER", default_value = "bytes")]
    sort: SurveyOrder,
    /// Stale share to stay below, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "10")]
    below: f64,
    /// Print the rows as one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    listing: ListingArgs,
}

/// What a survey has found so far.
#[derive(Debug, Default)]
struct Surveyed {
    /// How many targets have their rows.
    targets: u64,
    rows: Vec<SurveyRow>,
    /// Whether a target was not reached.
    failed: bool,
}

/// A target with the name of its rows.
struct Named {
    name: String,
    target: Target,
}

/// Estimates all targets, prints a row for each primary, and fails if a target was not reached.
pub fn run(args: &SurveyArgs) -> Exit {
    let (targets, stop) = match targets(args) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let request = EstimateRequest { no_reclaim: args.no_reclaim, ..EstimateRequest::default() };
    let Surveyed { targets: surveyed, mut rows, failed } = survey(&targets, &request, args.below, &stop);
    args.sort.sort(&mut rows);
    let listed = serde_json::json!(rows);
    let listed_rows = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    if args.listing.print(args.json, &listed, listed_rows, &LIST) {
        rows.iter().for_each(explain);
    }
    match (stop.is_raised(), failed) {
        (true, _) => {
            term::note(&format!("interrupted: {} of {} targets were surveyed", surveyed, targets.len()));
            Exit::Interrupted
        }
        (false, true) => Exit::Failed,
        (false, false) => Exit::Done,
    }
}

/// Returns the targets of the URLs and of the inventory, and a stop that signals raise.
fn targets(args: &SurveyArgs) -> Result<(Vec<Named>, Stop), Exit> {
    if args.urls.is_empty() && args.inventory.is_none() && !args.login.has_socket() {
        term::error("nothing to survey; give URLs, or an inventory with --inventory FILE");
        return Err(Exit::Usage);
    }
    let mut targets = Vec::new();
    if let Some(path) = &args.inventory {
        targets = from_inventory(path, &args.labels).map_err(|sentence| {
            term::error(&sentence);
            Exit::Usage
        })?;
    }
    let urls: Vec<Option<&str>> = match args.urls.is_empty() && args.inventory.is_none() {
        true => vec![None],
        false => args.urls.iter().map(|url| Some(url.as_str())).collect(),
    };
    if urls.is_empty() {
        let stop = stop_on_signals().map_err(|error| {
            term::error(&format!("cannot install signal handlers: {error}"));
            Exit::Failed
        })?;
        return Ok((targets, stop));
    }
    let (others, stop) = args.login.prepare_all(&urls)?;
    targets.extend(others.into_iter().map(|target| Named { name: target.to_string(), target }));
    Ok((targets, stop))
}

/// Returns the servers of an inventory that have all of these labels.
fn from_inventory(path: &std::path::Path, labels: &[Label]) -> Result<Vec<Named>, String> {
    let mut inventory = Inventory::read(path).map_err(|error| error.to_string())?;
    inventory.select(labels);
    if inventory.entries.is_empty() {
        let wanted = labels.iter().map(|label| format!(" -l {label}")).collect::<String>();
        return Err(format!(
            "the inventory {} has no instance{}{wanted}",
            path.display(),
            if wanted.is_empty() { "" } else { " with" }
        ));
    }
    let named = |entry: &crate::inventory::Entry| Ok(Named { name: entry.name.clone(), target: entry.target()? });
    let targets = inventory.entries.iter().map(named).collect::<Result<_, crate::inventory::InventoryError>>();
    targets.map_err(|error| error.to_string())
}

/// Estimates all targets, until the stop is raised: a target that it interrupts has no row.
fn survey(targets: &[Named], request: &EstimateRequest, below: f64, stop: &Stop) -> Surveyed {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Surveyed::default()));
    let counter = term::Counter::new("surveying", targets.len() as u64);
    let sampled = Arc::new(SampledServers::default());
    thread::scope(|scope| {
        for _ in 0..CONCURRENCY.min(targets.len()) {
            scope.spawn(|| {
                while !stop.is_raised()
                    && let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let (rows, failed) = rows_of(target, request, &sampled, below, stop);
                    if stop.is_raised() && failed {
                        return;
                    }
                    // A panic of another thread leaves the rows valid.
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.rows.extend(rows);
                    found.failed |= failed;
                    found.targets += 1;
                    counter.set(found.targets);
                }
            });
        }
    });
    counter.finish();
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn rows_of(
    named: &Named,
    request: &EstimateRequest,
    sampled: &Arc<SampledServers>,
    below: f64,
    stop: &Stop,
) -> (Vec<SurveyRow>, bool) {
    let Named { name, target } = named;
    let found = target.dialer().map_err(Failure::from).and_then(|dialer| {
        let samples = Arc::new(Sampled::new(sampled.clone()));
        let first = EstimateRequest { samples: Some(samples.clone()), ..request.clone() };
        match estimate(&*dialer, target, &first, stop) {
            Err(_) if samples.is_refused() => {
                let unsampled = EstimateRequest { no_reclaim: true, ..request.clone() };
                Ok((estimate(&*dialer, target, &unsampled, stop)?, Some(SAMPLED_ALREADY)))
            }
            found => Ok((found?, None)),
        }
    });
    match found {
        Ok((found, note)) => {
            let row = |mut primary: PrimaryEstimate| {
                primary.notes.extend(note.map(str::to_owned));
                SurveyRow::of(name.clone(), EstimatedPrimary::new(primary, below))
            };
            (found.primaries.into_iter().map(row).collect(), false)
        }
        Err(failure) => {
            let reason = with_options(&failure.message);
            (vec![SurveyRow::unreached(name.clone(), &failure, reason)], true)
        }
    }
}

/// The list of primaries.
const LIST: List<'static> = List {
    fields: &[
        "/name",
        "/address",
        "/keys",
        "/keys_with_ttl",
        "/share",
        "/share_low",
        "/share_high",
        "/approximate",
        "/share_of_expiring",
        "/stale_keys",
        "/bytes",
        "/bytes_low",
        "/bytes_high",
        "/taken_at",
        "/method",
        "/reclaimed",
        "/server_seconds",
        "/expiry_rate",
        "/effort",
        "/hz",
        "/predicted_share",
        "/steady",
        "/used_memory",
        "/verdict/code",
        "/verdict/reason",
        "/verdict/remedy",
        "/verdict/interval_seconds",
        "/verdict/setting/effort",
        "/verdict/setting/hz",
        "/notes",
    ],
    columns: &[
        Column::elastic("primary", |row| title(row["name"].as_str().unwrap_or_default(), row["address"].as_str())),
        Column::whole("stale", stale_share),
        Column::whole("stale bytes", stale_bytes),
        Column::whole("verdict", |row| text(&row["verdict"]["code"])),
        Column::whole("keys", |row| count(&row["keys"])),
        Column::whole("with TTL", |row| count(&row["keys_with_ttl"])),
        Column::whole("expired/s", |row| number(&row["expiry_rate"])),
        Column::whole("effort", |row| count(&row["effort"])),
        Column::whole("hz", |row| count(&row["hz"])),
        Column::whole("predicted", |row| share(&row["predicted_share"])),
    ],
};

/// Formats the stale share of a row with half of its interval; a hint or a prediction is marked.
fn stale_share(row: &Value) -> String {
    let percent = |name: &str| row[name].as_f64().map(|share| share * 100.0);
    match (percent("share"), row["approximate"] == true, percent("share_low"), percent("share_high")) {
        (None, ..) => "unknown".into(),
        (Some(share), true, ..) => format!("≈ {share:.1} %"),
        (Some(share), _, Some(low), Some(high)) if high > low => format!("{share:.1} ±{:.1} %", (high - low) / 2.0),
        (Some(share), ..) => format!("{share:.1} %"),
    }
}

/// Formats the stale bytes of a row with half of their interval.
fn stale_bytes(row: &Value) -> String {
    match (row["bytes"].as_u64(), row["bytes_low"].as_u64(), row["bytes_high"].as_u64()) {
        (Some(bytes), Some(low), Some(high)) if high > low => format!("{} ±{}", size(bytes), size((high - low) / 2)),
        _ => memory(&row["bytes"]),
    }
}

/// Returns the name of a row: of an instance of the inventory, and of the primary.
fn title(name: &str, address: Option<&str>) -> String {
    match address {
        Some(address) if name.contains("://") => address.to_owned(),
        Some(address) => format!("{name} {address}"),
        None => name.to_owned(),
    }
}

/// Prints why a primary has its verdict, and what to do.
fn explain(row: &SurveyRow) {
    let Advice { code, reason, remedy, .. } = &row.verdict;
    let remedy = remedy.as_ref().map_or(String::new(), |remedy| format!("; {remedy}"));
    let title = title(&row.name, row.address.as_deref());
    term::paragraph(&format!("{title}: {}: {reason}{remedy}.", code.as_str()), term::line);
    for note in &row.notes {
        term::paragraph(&format!("{title}: note: {note}."), term::line);
    }
}

#[cfg(test)]
mod tests {
    use keysweep_engine::{Finding, stale::Code};
    use serde_json::json;

    use super::*;
    use crate::csv;

    fn row(name: &str, share: Option<f64>, bytes: Option<u64>) -> SurveyRow {
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
        let primary = EstimatedPrimary {
            address: format!("{name}:1"),
            finding,
            approximate: false,
            used_memory: None,
            verdict,
            notes: vec!["database 1 is too small to matter".into()],
            cycle: keysweep_engine::Cycle::default(),
            gap: None,
        };
        SurveyRow::of(name.into(), primary)
    }

    fn csv_line(row: SurveyRow) -> String {
        csv::row(&json!(row), LIST.fields)
    }

    #[test]
    fn a_row_of_csv_is_quoted_and_runs_no_formula() {
        let line = csv_line(row("a", Some(0.3), Some(2)));
        assert!(line.starts_with("a,a:1,0,0,0.3,0.3,0.32,false,"), "{line}");
        assert!(line.contains(",scan_once,\"30.0 % are stale, and \"\"more\"\"\",'+info,"), "{line}");
    }

    #[test]
    fn csv_has_every_field_that_json_has() {
        let json = json!(row("a", Some(0.3), Some(2)));
        let names = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        let fields = names(&json).into_iter().filter(|field| field != "verdict").map(|field| format!("/{field}"));
        let of_verdict = names(&json["verdict"]).into_iter().map(|field| match field.as_str() {
            "setting" => "/verdict/setting/effort".to_owned(),
            field => format!("/verdict/{field}"),
        });
        let fields: Vec<String> = fields.chain(of_verdict).collect();
        assert!(fields.len() > 25, "{fields:?}");
        for field in fields {
            assert!(LIST.fields.contains(&field.as_str()), "CSV lacks {field}");
        }
        let line = csv_line(row("a", Some(0.3), Some(2)));
        assert!(line.ends_with(",database 1 is too small to matter"), "{line}");
    }

    #[test]
    fn a_server_that_was_not_reached_has_unknown_keys() {
        let line = csv_line(SurveyRow::unknown("a".into(), Code::Unknown, "refused".into()));
        assert!(line.starts_with("a,,,,,,,false,,"), "{line}");
    }

    #[test]
    fn bytes_have_their_interval() {
        let interval = |low, high| SurveyRow { bytes_low: low, bytes_high: high, ..row("a", Some(0.3), Some(2 << 20)) };
        let bytes = |row: SurveyRow| stale_bytes(&json!(row));
        assert_eq!(bytes(interval(Some(1 << 20), Some(3 << 20))), "2.0 MiB ±1.0 MiB");
        assert_eq!(bytes(interval(Some(2 << 20), Some(2 << 20))), "2.0 MiB");
        assert_eq!((bytes(interval(None, None)), bytes(row("a", None, None))), ("2.0 MiB".into(), "-".into()));
    }

    #[test]
    fn an_approximate_share_is_marked() {
        let found = row("a", Some(0.3), None);
        assert_eq!(stale_share(&json!(found)), "30.0 ±1.0 %");
        assert_eq!(stale_share(&json!(SurveyRow { approximate: true, ..found })), "≈ 30.0 %");
        assert_eq!(stale_share(&json!(row("a", None, None))), "unknown");
    }
}
