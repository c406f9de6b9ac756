//! `keysweep instance`: the registered instances of a service.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Exit,
    client::{
        ClientArgs, ClientError,
        fields::{count, memory, share, text, time, yes},
        label_parameters, query,
    },
    listing::{Column, List, ListingArgs},
    task::status_text,
    term,
};
use crate::model::Label;

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
        #[command(flatten)]
        listing: ListingArgs,
    },
    /// Show an instance and the stats of its last poll
    Show {
        /// Name or ID of the instance
        instance: String,
    },
}

/// Runs the command and returns its exit code.
pub fn run(args: &InstanceArgs) -> Exit {
    try_run(args).unwrap_or_else(|error| error.report())
}

fn try_run(args: &InstanceArgs) -> Result<Exit, ClientError> {
    let client = args.client.client()?;
    match &args.command {
        Command::List { labels, listing } => {
            let mut parameters = label_parameters(labels);
            parameters.push(("activity", "true".into()));
            let response = client.get(&client.native(&format!("instances{}", query(&parameters))))?;
            let instances = response["instances"].as_array().map(Vec::as_slice).unwrap_or_default();
            listing.print(args.client.json, &response, instances, &LIST);
        }
        Command::Show { instance } => {
            let id = client.instance_id(instance)?;
            let response = client.get(&client.native(&format!("instances/{id}")))?;
            match args.client.json {
                true => term::json(&response),
                false => show(&response),
            }
        }
    }
    Ok(Exit::Done)
}

/// Fields of an instance in CSV.
const FIELDS: [&str; 16] = [
    "/id",
    "/name",
    "/url",
    "/labels",
    "/paused",
    "/unreachable",
    "/stats/engine",
    "/stats/engine_version",
    "/stats/keys",
    "/stats/keys_with_ttl",
    "/stats/used_memory",
    "/activity/stale_share",
    "/activity/last_task/status",
    "/activity/last_task/finished_at",
    "/activity/last_task/keys_reclaimed",
    "/activity/next_scan_at",
];

/// The list of instances.
const LIST: List<'static> = List {
    fields: &FIELDS,
    columns: &[
        Column::elastic("name", |instance| text(&instance["name"])),
        Column::whole("status", status),
        Column::whole("stale", |instance| share(&instance["activity"]["stale_share"])),
        Column::whole("keys", |instance| count(&instance["stats"]["keys"])),
        Column::whole("last scan", |instance| time(&instance["activity"]["last_task"]["finished_at"])),
        Column::whole("next scan", |instance| time(&instance["activity"]["next_scan_at"])),
        Column::whole("used memory", |instance| memory(&instance["stats"]["used_memory"])),
        Column::whole("server", engine),
        Column::elastic("labels", labels),
        Column::elastic("url", |instance| text(&instance["url"])),
    ],
};

/// Formats engine and version.
fn engine(instance: &Value) -> String {
    let stats = &instance["stats"];
    match stats.is_object() {
        true => format!("{} {}", text(&stats["engine"]), text(&stats["engine_version"])),
        false => "-".into(),
    }
}

/// Formats labels as `env=prod,team=web`.
fn labels(instance: &Value) -> String {
    let labels = instance["labels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or(""))).collect();
    if labels.is_empty() { "-".into() } else { labels.join(",") }
}

/// Returns the state of an instance in a word. An active task comes first, then what prevents scans, then a failed scan.
fn status(instance: &Value) -> String {
    let task = &instance["activity"]["last_task"];
    let has_problems = instance["problems"].as_array().is_some_and(|problems| !problems.is_empty());
    match task["status"].as_str() {
        Some("running") => "scanning".into(),
        Some("waiting") => "waiting".into(),
        _ if instance["paused"] == true => "paused".into(),
        _ if has_problems => "unreadable".into(),
        _ if instance["unreachable"].is_string() => "unreachable".into(),
        _ if !instance["stats"].is_object() => "not polled yet".into(),
        Some("failed") => status_text(task),
        _ => "ready".into(),
    }
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
    let stats_text = if instance["stats"].is_object() { engine(instance) } else { "no data yet".into() };
    let failed = instance["unreachable"].as_str().map(|cause| format!("last check failed: {cause}"));
    let problems = instance["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    [stats_text].into_iter().chain(failed).chain(problems).collect::<Vec<_>>().join("; ")
}
