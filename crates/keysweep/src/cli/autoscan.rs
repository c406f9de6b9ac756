//! `keysweep autoscan`: the auto-scan settings of an instance of a service.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Exit,
    client::{
        Client, ClientArgs, ClientError,
        fields::{count, time, yes},
    },
    term,
};
use crate::units;

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
    /// Show the auto-scan of an instance
    Get {
        /// Name or id of the instance
        instance: String,
    },
    /// Change the auto-scan of an instance; options not given stay unchanged
    Set {
        /// Name or id of the instance
        instance: String,
        #[command(flatten)]
        change: Change,
    },
}

/// Settings to change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
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
        Command::Get { instance } => client.get(&address(&client, instance)?)?,
        Command::Set { instance, change } => {
            let address = address(&client, instance)?;
            let wanted = change.apply(client.get(&address)?);
            client.put(&address, &wanted).map_err(|error| with_option(error, &wanted))?
        }
    };
    if args.client.json {
        term::json(&config)
    } else {
        show(&config)
    }
    Ok(Exit::Done)
}

fn address(client: &Client, instance: &str) -> Result<String, ClientError> {
    Ok(client.dcs(&format!("instances/{}/scan-expire-keys/autoscan-config", client.instance_id(instance)?)))
}

impl Change {
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

fn show(config: &Value) {
    let interval = match config["interval"].as_u64() {
        Some(0) => "0 s (after the previous run)".to_owned(),
        _ => format!("{} s", count(&config["interval"])),
    };
    term::pairs(vec![
        ("enabled", yes(&config["enable_auto_scan"])),
        ("first scan at", time(&config["first_scan_at"])),
        ("interval", interval),
        ("timeout", format!("{} s", count(&config["timeout"]))),
        ("keys per 5 ms", count(&config["scan_keys_count"])),
        ("updated at", time(&config["updated_at"])),
    ]);
}
