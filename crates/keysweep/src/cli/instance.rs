//! `keysweep instance`: the registered instances of a service.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Exit,
    client::{
        ClientArgs, ClientError,
        fields::{count, text, time, yes},
        label_parameters, query,
    },
    term,
};
use crate::{model::Label, units::size};

/// Arguments of `keysweep instance`.
#[derive(Debug, Args)]
pub struct InstanceArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the instances of the project
    List {
        /// List only instances with this label; repeatable
        #[arg(short = 'l', long = "label", value_name = "NAME=VALUE")]
        labels: Vec<Label>,
    },
    /// Show an instance and the stats of its last poll
    Show {
        /// Name or id of the instance
        instance: String,
    },
}

/// Runs the command and returns its exit code.
pub fn run(args: &InstanceArgs) -> Exit {
    try_run(args).unwrap_or_else(|error| error.report())
}

fn try_run(args: &InstanceArgs) -> Result<Exit, ClientError> {
    let client = args.client.client()?;
    let (response, show): (Value, fn(&Value)) = match &args.command {
        Command::List { labels } => {
            let query = query(&label_parameters(labels));
            (client.get(&client.native(&format!("instances{query}")))?, list)
        }
        Command::Show { instance } => {
            let id = client.instance_id(instance)?;
            (client.get(&client.native(&format!("instances/{id}")))?, show)
        }
    };
    if args.client.json {
        term::json(&response)
    } else {
        show(&response)
    }
    Ok(Exit::Done)
}

/// Formats labels as `env=prod,team=web`.
fn labels(instance: &Value) -> String {
    let labels = instance["labels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or(""))).collect();
    if labels.is_empty() { "-".into() } else { labels.join(",") }
}

fn list(response: &Value) {
    let row = |instance: &Value| {
        let stats = &instance["stats"];
        vec![
            text(&instance["id"]),
            text(&instance["name"]),
            text(&instance["url"]),
            labels(instance),
            server(instance),
            count(&stats["keys"]),
            memory(&stats["used_memory"]),
        ]
    };
    let rows = response["instances"].as_array().into_iter().flatten().map(row).collect();
    term::table(&["id", "name", "url", "labels", "server", "keys", "used memory"], rows);
}

fn show(instance: &Value) {
    let stats = &instance["stats"];
    let lazyfree = match instance["manage_lazyfree"] == true {
        true => "enabled during scans",
        false => "unchanged",
    };
    term::pairs(vec![
        ("id", text(&instance["id"])),
        ("name", text(&instance["name"])),
        ("url", text(&instance["url"])),
        ("user", text(&instance["username"])),
        ("password", if instance["has_password"] == true { "stored".into() } else { "none".into() }),
        ("pace", text(&instance["pace"])),
        ("window", text(&instance["window"])),
        ("labels", labels(instance)),
        ("sampling", text(&instance["sampling"])),
        ("paused", yes(&instance["paused"])),
        ("lazyfree-lazy-expire", lazyfree.into()),
        ("server", server(instance)),
        ("mode", text(&stats["mode"])),
        ("keys", count(&stats["keys"])),
        ("keys with TTL", count(&stats["keys_with_ttl"])),
        ("used memory", memory(&stats["used_memory"])),
        ("polled at", time(&stats["seen_at"])),
    ]);
}

fn server(instance: &Value) -> String {
    let stats = &instance["stats"];
    let stats_text = match stats.is_object() {
        true => format!("{} {}", text(&stats["engine"]), text(&stats["engine_version"])),
        false => "no data yet".into(),
    };
    let failed = instance["unreachable"].as_str().map(|cause| format!("last check failed: {cause}"));
    let problems = instance["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    [stats_text].into_iter().chain(failed).chain(problems).collect::<Vec<_>>().join("; ")
}

fn memory(bytes: &Value) -> String {
    bytes.as_u64().map_or_else(|| "-".into(), size)
}
