//! `keysweep estimate`: the share of stale keys, and the bytes that they take.

mod progress;

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, ValueEnum};
use indicatif::HumanCount;
use keysweep_engine::{
    DatabaseEstimate, Estimate, EstimateRequest, Failure, Finding, Method, Preset, PrimaryEstimate, estimate,
    estimate_rdb, rdb::RdbError,
};
use serde_json::json;

use self::progress::{ProgressLine, ReadFile};
use super::{
    Exit,
    client::fields::{count, memory, number, share, text},
    listing::{Column, List, ListingArgs},
    login::{Login, with_options},
    term,
};
use crate::units::size;

/// Arguments of `keysweep estimate`.
#[derive(Debug, Args)]
pub struct EstimateArgs {
    /// URL of the target, as for scan: a server, a cluster, or a primary behind Sentinels
    #[arg(required_unless_present_any = ["rdb", "socket"], conflicts_with_all = ["rdb", "socket"])]
    url: Option<String>,
    #[command(flatten)]
    login: Login,
    /// How to estimate: replica (count its keys), sample (of the primary; reclaims its stale keys), slots (count some slots on
    /// the replica of a cluster's primary), rdb (count the keys of --rdb), info (the server's own average), or auto: on a
    /// replica in sync, else by a sample, with --no-reclaim from INFO
    #[arg(long, value_name = "METHOD", value_enum, default_value = "auto", hide_possible_values = true)]
    method: MethodArg,
    /// Slices of a sample, or slots to count with the method slots
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    slices: u32,
    /// Keys that each slice of a sample asks for
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(10..=1_000))]
    count: u32,
    /// Never reclaim a key, not even those of a sample
    #[arg(long)]
    no_reclaim: bool,
    /// Read this RDB file instead of a server
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    rdb: Option<PathBuf>,
    /// Throttle profile of a count on a replica: gentle, normal, fast or max
    #[arg(long, value_name = "PACE", default_value = "normal")]
    pace: Preset,
    /// Print the estimate as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    listing: ListingArgs,
}

/// Ways to estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodArg {
    Auto,
    Replica,
    Sample,
    Slots,
    Rdb,
    Info,
}

impl MethodArg {
    fn method(self) -> Option<Method> {
        match self {
            Self::Auto => None,
            Self::Replica => Some(Method::Replica),
            Self::Sample => Some(Method::Sample),
            Self::Slots => Some(Method::Slots),
            Self::Rdb => Some(Method::Rdb),
            Self::Info => Some(Method::Info),
        }
    }
}

/// Prints the estimate and how it was made.
pub fn run(args: EstimateArgs) -> Exit {
    if let Err(sentence) = args.check() {
        term::error(&sentence);
        return Exit::Usage;
    }
    let found = match &args.rdb {
        Some(path) => from_file(path),
        None => from_server(&args),
    };
    let found = match found {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let whole = json!(found);
    let primaries = whole["primaries"].as_array().map(Vec::as_slice).unwrap_or_default();
    if args.json || !args.listing.is_table() {
        args.listing.print(args.json, &whole, primaries, &LIST);
        return Exit::Done;
    }
    print(&found);
    if primaries.len() > 1 {
        term::line("");
        LIST.print(primaries);
    }
    Exit::Done
}

/// The list of primaries.
const LIST: List<'static> = List {
    fields: &[
        "/address",
        "/source",
        "/keys",
        "/keys_with_ttl",
        "/share",
        "/share_low",
        "/share_high",
        "/share_of_expiring",
        "/stale_keys",
        "/bytes",
        "/bytes_low",
        "/bytes_high",
        "/method",
        "/reclaimed",
        "/server_seconds",
        "/expiry_rate",
        "/effort",
        "/hz",
        "/predicted_share",
        "/steady",
        "/used_memory",
        "/notes",
    ],
    columns: &[
        Column::elastic("primary", |primary| text(&primary["address"])),
        Column::whole("keys", |primary| count(&primary["keys"])),
        Column::whole("stale", |primary| share(&primary["share"])),
        Column::whole("stale bytes", |primary| memory(&primary["bytes"])),
        Column::whole("expired/s", |primary| number(&primary["expiry_rate"])),
        Column::whole("method", |primary| text(&primary["method"])),
    ],
};

impl EstimateArgs {
    /// Returns what is wrong with the combination of options.
    fn check(&self) -> Result<(), String> {
        match (self.method, &self.rdb) {
            (MethodArg::Rdb, None) => Err("--method rdb requires a file; name it with --rdb".into()),
            (MethodArg::Auto | MethodArg::Rdb, Some(_)) => Ok(()),
            (_, Some(_)) => Err("--rdb reads a file; omit --method, or give --method rdb".into()),
            (MethodArg::Sample, None) if self.no_reclaim => {
                Err("--method sample reclaims the keys of the sample; omit --no-reclaim or choose another method"
                    .into())
            }
            (_, None) => match self.url.as_deref().filter(|url| !url.contains("://") && Path::new(url).is_file()) {
                Some(file) => Err(format!("{file} is a file; read it with --rdb {file}")),
                None => Ok(()),
            },
        }
    }
}

fn from_server(args: &EstimateArgs) -> Result<Estimate, Exit> {
    let (target, stop) = args.login.prepare(args.url.as_deref())?;
    let request = EstimateRequest {
        method: args.method.method(),
        slices: args.slices,
        count: args.count,
        no_reclaim: args.no_reclaim,
        limits: args.pace.limits(),
        monitor: Some(Arc::new(ProgressLine::new())),
        ..EstimateRequest::default()
    };
    let dialer = target.dialer().map_err(Failure::from);
    let found = dialer.and_then(|dialer| estimate(&*dialer, &target, &request, &stop));
    // The progress line gives way to the result.
    drop(request);
    found.map_err(|failure| {
        term::error(&with_options(&failure.message));
        Exit::from(failure.kind)
    })
}

fn from_file(path: &Path) -> Result<Estimate, Exit> {
    let failed = |error: RdbError| {
        term::error(&format!("--rdb {}: {error}", path.display()));
        match error {
            RdbError::Unknown { .. } => Exit::Unsupported,
            RdbError::NotRdb | RdbError::Truncated(_) => Exit::Usage,
            RdbError::Io(_) => Exit::Failed,
        }
    };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let now = jiff::Timestamp::now().as_second().max(0) as u64;
    let file = ReadFile::new(file, &name);
    estimate_rdb(BufReader::with_capacity(1 << 18, file), &name, now).map_err(failed)
}

fn print(found: &Estimate) {
    term::paragraph(&sentence(&found.total), term::line);
    if let Some(method) = found.total.method {
        let sources: Vec<&str> = found.primaries.iter().map(|primary| primary.source.as_str()).collect();
        term::paragraph(&format!("Method: {} ({}).", method.describe(), sources.join(", ")), term::line);
    }
    let spent = found.total.server_seconds.map(|seconds| format!("{:.1} ms of server time", seconds * 1e3));
    let reclaimed =
        (found.total.reclaimed > 0).then(|| format!("{} keys reclaimed", HumanCount(found.total.reclaimed)));
    let cost: Vec<String> = spent.into_iter().chain(reclaimed).collect();
    if !cost.is_empty() {
        term::line(&format!("Cost: {}.", cost.join(", ")));
    }
    if let Some(cycle) = cycle(&found.total) {
        term::paragraph(&cycle, term::line);
    }
    for (primary, database) in found.primaries.iter().flat_map(databases) {
        let place = if found.primaries.len() > 1 { format!(" of {}", primary.address) } else { String::new() };
        let found = sentence(&database.finding);
        term::paragraph(&format!("Database {}{place}: {found}", database.database), term::line);
    }
    for note in found.primaries.iter().flat_map(|primary| &primary.notes) {
        term::paragraph(&format!("Note: {note}."), term::line);
    }
}

/// Returns the databases of a primary, where there are several.
fn databases(primary: &PrimaryEstimate) -> impl Iterator<Item = (&PrimaryEstimate, &DatabaseEstimate)> {
    let shown = if primary.databases.len() > 1 { primary.databases.as_slice() } else { &[] };
    shown.iter().map(move |database| (primary, database))
}

fn sentence(finding: &Finding) -> String {
    let keys = HumanCount(finding.keys);
    let (Some(share), Some(stale)) = (finding.share, finding.stale_keys) else {
        return format!("How many of the {keys} keys are stale is unknown.");
    };
    if finding.method == Some(Method::Info) {
        return format!(
            "≈ {} of {keys} keys are stale (≈ {:.1} %), from INFO, steady state only.",
            HumanCount(stale),
            share * 100.0
        );
    }
    let interval = match (finding.share_low, finding.share_high) {
        (Some(low), Some(high)) if high - low > 5e-5 => format!(", {:.1} to {:.1} %", low * 100.0, high * 100.0),
        _ => String::new(),
    };
    let bytes = match (finding.bytes, finding.bytes_low, finding.bytes_high) {
        (Some(bytes), Some(low), Some(high)) if low < high => {
            format!(", about {} ({} to {})", size(bytes), size(low), size(high))
        }
        (Some(bytes), ..) => format!(", about {}", size(bytes)),
        _ => String::new(),
    };
    // All keys have a TTL, or nearly all: then it is the same share.
    let of_expiring = finding.share_of_expiring.filter(|of_expiring| (of_expiring - share).abs() >= 5e-4);
    let of_expiring =
        of_expiring.map_or(String::new(), |share| format!(", {:.1} % of those with a TTL", share * 100.0));
    format!("{} of {keys} keys are stale ({:.1} %{interval}){of_expiring}{bytes}.", HumanCount(stale), share * 100.0)
}

/// Describes the server's own cycle.
fn cycle(finding: &Finding) -> Option<String> {
    let rate = finding.expiry_rate.map(|rate| format!("{rate:.0} keys expire a second"));
    let setting = finding.effort.map(|effort| format!("active-expire-effort {effort}"));
    let hz = finding.hz.map(|hz| format!("hz {hz}"));
    let predicted =
        finding.predicted_share.map(|share| format!("the server's own cycle holds {:.1} % with these", share * 100.0));
    let steady = finding.steady.map(|steady| if steady { "steady state" } else { "not in steady state" }.to_owned());
    let parts: Vec<String> = [rate, setting, hz, predicted, steady].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("Expiry: {}.", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        args: EstimateArgs,
    }

    fn check(line: &str) -> Result<(), String> {
        TestCli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?.args.check()
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for line in [
            "estimate redis://h",
            "estimate redis://h --method sample",
            "estimate --rdb f",
            "estimate --rdb f --method rdb",
        ] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
        for (line, part) in [
            ("estimate redis://h --method sample --no-reclaim", "omit --no-reclaim"),
            ("estimate redis://h --method rdb", "name it with --rdb"),
            ("estimate --rdb f --method replica", "omit --method"),
            ("estimate --rdb f --method sample --no-reclaim", "omit --method"),
            ("estimate redis://h --rdb f", "cannot be used with"),
            ("estimate Cargo.toml", "read it with --rdb Cargo.toml"),
            ("estimate", "required"),
        ] {
            let refused = check(line).expect_err(line);
            assert!(refused.contains(part), "{line}: {refused}");
        }
    }

    #[test]
    fn a_finding_is_told_with_its_interval_and_a_hint_is_marked() {
        let sampled = Finding {
            keys: 1_000_000,
            share: Some(0.2),
            share_low: Some(0.18),
            share_high: Some(0.22),
            stale_keys: Some(200_000),
            bytes: Some(20 << 20),
            bytes_low: Some(16 << 20),
            bytes_high: Some(24 << 20),
            method: Some(Method::Sample),
            ..Finding::default()
        };
        let text =
            "200,000 of 1,000,000 keys are stale (20.0 %, 18.0 to 22.0 %), about 20.0 MiB (16.0 MiB to 24.0 MiB).";
        assert_eq!(sentence(&sampled), text);
        let some_expire = Finding { share_of_expiring: Some(0.5), ..sampled.clone() };
        assert!(sentence(&some_expire).contains("18.0 to 22.0 %), 50.0 % of those with a TTL, about"));
        let hint = Finding { method: Some(Method::Info), share_low: None, share_high: None, bytes: None, ..sampled };
        assert_eq!(sentence(&hint), "≈ 200,000 of 1,000,000 keys are stale (≈ 20.0 %), from INFO, steady state only.");
        assert!(sentence(&Finding { share: None, ..hint }).contains("unknown"));
    }

    #[test]
    fn what_is_known_of_the_cycle_is_told() {
        let finding = Finding { hz: Some(10), effort: Some(1), expiry_rate: Some(990.0), ..Finding::default() };
        assert_eq!(
            cycle(&finding).as_deref(),
            Some("Expiry: 990 keys expire a second, active-expire-effort 1, hz 10.")
        );
        let known = Finding { predicted_share: Some(0.155), steady: Some(false), ..finding };
        assert!(
            cycle(&known).is_some_and(|text| text.contains("holds 15.5 %") && text.contains("not in steady state"))
        );
        assert_eq!(cycle(&Finding::default()), None);
    }
}
