//! `keysweep autoscan`: how a remote service sweeps an instance by itself.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Exit,
    client::{
        Client, ClientArgs, Refusal,
        answer::{count, time, yes},
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
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the schedule of an instance
    Get {
        /// Name or id of the instance
        instance: String,
    },
    /// Change the schedule of an instance; what is not given stays as it is
    Set {
        /// Name or id of the instance
        instance: String,
        #[command(flatten)]
        change: Change,
    },
}

/// What is to change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// Sweep by itself from now on
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Do not sweep by itself any more
    #[arg(long)]
    disable: bool,
    /// When the first run is due, UTC, as 2027-01-01T02:00:00Z
    #[arg(long, value_name = "TIME")]
    first_scan_at: Option<String>,
    /// From one run to the next, as 24h or in seconds; 0: again after the last has ended
    #[arg(long, value_name = "TIME", value_parser = seconds, allow_negative_numbers = true)]
    interval: Option<i64>,
    /// How long a run may take, as 48h or in seconds; at least twice the interval
    #[arg(long, value_name = "TIME", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Keys to look at every 5 ms
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    scan_keys_count: Option<i64>,
}

/// Does what was typed.
pub fn run(args: &AutoscanArgs) -> Exit {
    carry_out(args).unwrap_or_else(|refusal| refusal.tell())
}

fn carry_out(args: &AutoscanArgs) -> Result<Exit, Refusal> {
    let client = args.client.client()?;
    let config = match &args.verb {
        Verb::Get { instance } => client.get(&address(&client, instance)?)?,
        Verb::Set { instance, change } => {
            let address = address(&client, instance)?;
            let wanted = change.on(client.get(&address)?);
            client.put(&address, &wanted).map_err(|refusal| beside_its_field(refusal, &wanted))?
        }
    };
    if args.client.json {
        term::json(&config)
    } else {
        show(&config)
    }
    Ok(Exit::Done)
}

fn address(client: &Client, instance: &str) -> Result<String, Refusal> {
    Ok(client.dcs(&format!("instances/{}/scan-expire-keys/autoscan-config", client.instance_id(instance)?)))
}

impl Change {
    /// A configuration with this changed. Nothing is checked here: the service says what is good.
    fn on(&self, mut config: Value) -> Value {
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

/// The service's words, beside the option that they are about.
fn beside_its_field(refusal: Refusal, wanted: &Value) -> Refusal {
    let (option, field) = match refusal.code.as_str() {
        "DCS.4819" => ("--first-scan-at", "first_scan_at"),
        "DCS.4820" => ("--interval", "interval"),
        "DCS.4821" => ("--timeout", "timeout"),
        "DCS.4822" => ("--scan-keys-count", "scan_keys_count"),
        _ => return refusal,
    };
    let value = match &wanted[field] {
        Value::Null => "is missing".to_owned(),
        value => value.to_string(),
    };
    Refusal { sentence: format!("{option} {value}: {}", refusal.sentence), ..refusal }
}

/// `24h`, or a number of seconds as the API has them.
fn seconds(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    i64::try_from(units::seconds(text)?).map_err(|_| "it is too long".to_owned())
}

fn show(config: &Value) {
    let every = match config["interval"].as_u64() {
        Some(0) => "again after the last has ended".to_owned(),
        _ => format!("{} s", count(&config["interval"])),
    };
    term::pairs(vec![
        ("enabled", yes(&config["enable_auto_scan"])),
        ("first scan at", time(&config["first_scan_at"])),
        ("interval", every),
        ("timeout", format!("{} s", count(&config["timeout"]))),
        ("keys every 5 ms", count(&config["scan_keys_count"])),
        ("changed", time(&config["updated_at"])),
    ]);
}
