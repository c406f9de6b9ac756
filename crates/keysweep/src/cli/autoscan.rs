//! `keysweep autoscan`: the auto-scan settings of the instances of a service.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Exit,
    client::{
        Client, ClientArgs, ClientError,
        fields::{count, share, text, time, yes},
        label_parameters, query,
    },
    listing::{Column, List, ListingArgs},
    scan::percent,
    term,
};
use crate::{
    model::{Label, TargetShare},
    units,
};

/// Arguments of `keysweep autoscan`.
#[derive(Debug, Args)]
pub struct AutoscanArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the auto-scans of all instances of the project
    List {
        /// List only instances with this label; repeatable
        #[arg(short = 'l', long = "label", value_name = "NAME=VALUE")]
        labels: Vec<Label>,
        #[command(flatten)]
        listing: ListingArgs,
    },
    /// Show the auto-scan of an instance
    Get {
        /// Name or ID of the instance
        instance: String,
    },
    /// Change the auto-scan of an instance; options not given stay unchanged
    #[command(override_usage = "keysweep autoscan set [OPTIONS] <INSTANCE>")]
    Set {
        /// Name or ID of the instance
        instance: String,
        #[command(flatten)]
        change: Change,
    },
}

/// Settings to change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// Scan as often as keeps this mean stale share, for example 5%, and enable automatic scans; 0 for a fixed interval
    #[arg(long, value_name = "PERCENT", value_parser = below, allow_hyphen_values = true)]
    below: Option<f64>,
    /// Enable automatic scans
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Disable automatic scans
    #[arg(long)]
    disable: bool,
    /// Time of the first run in UTC, for example 2027-01-01T02:00:00Z
    #[arg(long, value_name = "TIME")]
    first_scan_at: Option<String>,
    /// Interval between runs, for example 24h, or in seconds; 0 starts the next run after the previous one finished
    #[arg(long, value_name = "TIME", value_parser = seconds, allow_negative_numbers = true)]
    interval: Option<i64>,
    /// Timeout of a run, for example 48h, or in seconds; at least twice the interval
    #[arg(long, value_name = "TIME", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Keys to scan every 5 ms
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    scan_keys_count: Option<i64>,
}

/// Runs the command and returns its exit code.
pub fn run(args: &AutoscanArgs) -> Exit {
    try_run(args).unwrap_or_else(|error| error.report())
}

fn try_run(args: &AutoscanArgs) -> Result<Exit, ClientError> {
    let client = args.client.client()?;
    let config = match &args.command {
        Command::List { labels, listing } => {
            let whole = configs(&client, labels)?;
            let rows = whole["auto_scans"].as_array().map(Vec::as_slice).unwrap_or_default();
            listing.print(args.client.json, &whole, rows, &LIST);
            return Ok(Exit::Done);
        }
        Command::Get { instance } => client.get(&path(&client, &client.instance_id(instance)?))?,
        Command::Set { instance, change } => {
            let id = client.instance_id(instance)?;
            let native = path(&client, &id);
            if change.below.is_some() {
                client.patch(&native, &change.body())?
            } else {
                let dcs = client.dcs(&format!("instances/{id}/scan-expire-keys/autoscan-config"));
                let wanted = change.apply(client.get(&dcs)?);
                client.put(&dcs, &wanted).map_err(|error| with_option(error, &wanted))?;
                client.get(&native)?
            }
        }
    };
    if args.client.json {
        term::json(&config)
    } else {
        show(&config)
    }
    Ok(Exit::Done)
}

/// Returns the path of an instance's auto-scan in the native API.
fn path(client: &Client, id: &str) -> String {
    client.native(&format!("instances/{id}/auto-scan"))
}

/// Returns the auto-scans of the instances that have all of these labels, with the names of the instances.
fn configs(client: &Client, labels: &[Label]) -> Result<Value, ClientError> {
    let response = client.get(&client.native(&format!("instances{}", query(&label_parameters(labels)))))?;
    let config = |instance: &Value| {
        let mut config = client.get(&path(client, instance["id"].as_str().unwrap_or_default()))?;
        config["instance_id"] = instance["id"].clone();
        config["instance_name"] = instance["name"].clone();
        Ok(config)
    };
    let configs: Result<Vec<Value>, ClientError> =
        response["instances"].as_array().into_iter().flatten().map(config).collect();
    Ok(json!({ "auto_scans": configs? }))
}

/// The list of auto-scans.
const LIST: List<'static> = List {
    fields: &[
        "/instance_id",
        "/instance_name",
        "/enable_auto_scan",
        "/below",
        "/interval",
        "/timeout",
        "/scan_keys_count",
        "/first_scan_at",
        "/next_scan_at",
    ],
    columns: &[
        Column::elastic("instance", |config| text(&config["instance_name"])),
        Column::whole("enabled", |config| yes(&config["enable_auto_scan"])),
        Column::whole("below", |config| share(&config["below"])),
        Column::whole("interval", interval),
        Column::whole("next scan", |config| time(&config["next_scan_at"])),
    ],
};

/// Formats the interval between runs, of an adaptive auto-scan the one that keeps its share.
fn interval(config: &Value) -> String {
    match config["adaptive"]["interval"].as_f64() {
        Some(seconds) => format!("{seconds:.0} s"),
        None => format!("{} s", count(&config["interval"])),
    }
}

impl Change {
    /// Returns the changes alone, for the native API.
    fn body(&self) -> Value {
        let enabled = match (self.enable, self.disable, self.below) {
            (_, true, _) => Some(false),
            (true, ..) => Some(true),
            (_, _, Some(below)) if below > 0.0 => Some(true),
            _ => None,
        };
        let fields = [
            ("enable_auto_scan", enabled.map(Value::from)),
            ("first_scan_at", self.first_scan_at.as_deref().map(Value::from)),
            ("interval", self.interval.map(Value::from)),
            ("timeout", self.timeout.map(Value::from)),
            ("scan_keys_count", self.scan_keys_count.map(Value::from)),
            ("below", self.below.map(Value::from)),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Returns the configuration with these changes. The service validates the values.
    fn apply(&self, mut config: Value) -> Value {
        if self.enable || self.disable {
            config["enable_auto_scan"] = self.enable.into();
        }
        if let Some(time) = &self.first_scan_at {
            config["first_scan_at"] = time.as_str().into();
        }
        for (field, value) in
            [("interval", self.interval), ("timeout", self.timeout), ("scan_keys_count", self.scan_keys_count)]
        {
            if let Some(value) = value {
                config[field] = value.into();
            }
        }
        let field = |name: &str| config[name].clone();
        json!({
            "enable_auto_scan": field("enable_auto_scan"), "first_scan_at": field("first_scan_at"),
            "interval": field("interval"), "timeout": field("timeout"), "scan_keys_count": field("scan_keys_count"),
        })
    }
}

/// Puts the option and its value before the message of the service.
fn with_option(error: ClientError, wanted: &Value) -> ClientError {
    let (option, field) = match error.code.as_str() {
        "DCS.4819" => ("--first-scan-at", "first_scan_at"),
        "DCS.4820" => ("--interval", "interval"),
        "DCS.4821" => ("--timeout", "timeout"),
        "DCS.4822" => ("--scan-keys-count", "scan_keys_count"),
        _ => return error,
    };
    let value = match &wanted[field] {
        Value::Null => "is missing".to_owned(),
        value => value.to_string(),
    };
    ClientError { message: format!("{option} {value}: {}", error.message), ..error }
}

/// Parses `24h`, or a number of seconds as in the API. Negative numbers pass, so that the service rejects them by field.
fn seconds(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    i64::try_from(units::seconds(text)?).map_err(|_| "too long".to_owned())
}

/// Parses `5%`, or 0, which stands for a fixed interval.
fn below(text: &str) -> Result<f64, String> {
    if text.trim_end_matches('%') == "0" {
        return Ok(0.0);
    }
    let share = percent(text).ok().filter(|share| TargetShare::new(*share).is_some());
    share.ok_or_else(|| "expected a percentage from 0.1 to 50, or 0".to_owned())
}

/// Describes the interval of an adaptive auto-scan.
fn adaptive(adaptive: &Value) -> String {
    let every = format!("{:.0} s", adaptive["interval"].as_f64().unwrap_or_default());
    let share = adaptive["expected_share"].as_f64().map(|share| format!("{:.1} %", share * 100.0));
    match (adaptive["state"].as_str(), share) {
        (Some("cannot_hold"), Some(share)) => format!(
            "{every}: cannot hold the share by scanning, a mean of about {share} stays; a scan takes {:.0} s",
            adaptive["scan_seconds"].as_f64().unwrap_or_default()
        ),
        (_, Some(share)) => format!("{every}, which keeps a mean of about {share}"),
        (_, None) => format!("{every}, until scans have measured how fast stale keys gather"),
    }
}

fn show(config: &Value) {
    let interval = match config["interval"].as_u64() {
        _ if config["adaptive"].is_object() => adaptive(&config["adaptive"]),
        Some(0) => "0 s (after the previous run)".to_owned(),
        _ => format!("{} s", count(&config["interval"])),
    };
    let below = config["below"].as_f64().map(|share| format!("{} %", (share * 1e5).round() / 1e3));
    term::pairs(vec![
        ("enabled", yes(&config["enable_auto_scan"])),
        ("mean stale share", below.unwrap_or_else(|| "- (fixed interval)".to_owned())),
        ("first scan at", time(&config["first_scan_at"])),
        ("interval", interval),
        ("timeout", format!("{} s", count(&config["timeout"]))),
        ("keys per 5 ms", count(&config["scan_keys_count"])),
        ("next scan at", time(&config["next_scan_at"])),
        ("updated at", time(&config["updated_at"])),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_and_zero_ends_it() {
        assert_eq!((below("5%"), below("2.5"), below("0"), below("0%")), (Ok(0.05), Ok(0.025), Ok(0.0), Ok(0.0)));
        for text in ["", "-1", "51%", "0.05%", "half"] {
            assert!(below(text).is_err(), "{text}");
        }
    }
}
