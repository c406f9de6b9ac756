//! `keysweep task`: scan tasks of a service.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use keysweep_engine::{Progress, Report};
use serde_json::Value;

use super::{
    Exit,
    client::{
        Client, ClientArgs, ClientError,
        fields::{count, text, time},
        label_parameters, query,
    },
    listing::{Column, List, ListingArgs},
    report,
    signals::stop_on_signals,
    term,
};
use crate::{
    model::{Label, Reason, Status, is_id},
    units::since,
};

/// Interval of polls while watching. Workers write progress once a second.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long watching survives an unreachable service, for example during a restart.
pub(super) const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Arguments of `keysweep task`.
#[derive(Debug, Args)]
pub struct TaskArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a scan task, or return the active one of the instance
    Create {
        /// Name or ID of the instance
        instance: String,
        /// Watch the task until it finishes, and exit with its outcome
        #[arg(long)]
        wait: bool,
    },
    /// List tasks, newest first: of an instance, or of all instances of the project
    List {
        /// Name or ID of the instance [default: all instances]
        instance: Option<String>,
        /// Filter by status: waiting, running, success or failed
        #[arg(long)]
        status: Option<Status>,
        /// Number of tasks to list
        #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Number of newest tasks to skip
        #[arg(long, value_name = "N", default_value = "0", requires = "instance")]
        offset: u32,
        /// List only tasks that are active, or finished since then: 24h ago, or 2026-01-31T12:00:00Z
        #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "instance")]
        since: Option<Timestamp>,
        /// List only tasks of instances with this label; repeatable
        #[arg(short = 'l', long = "label", value_name = "NAME=VALUE", conflicts_with = "instance")]
        labels: Vec<Label>,
        #[command(flatten)]
        listing: ListingArgs,
    },
    /// Show a task: its progress while it runs, its report when finished
    Show {
        /// ID of the task
        task: String,
    },
    /// Watch a task until it finishes, and exit with its outcome; Ctrl-C stops watching, not the task
    Watch {
        /// ID of the task
        task: String,
    },
    /// Cancel a task; reclaimed keys stay reclaimed
    Cancel {
        /// ID of the task
        task: String,
    },
}

/// The list of tasks of several instances.
const LIST: List<'static> = List {
    fields: &[
        "/id",
        "/instance_id",
        "/instance_name",
        "/status",
        "/reason/code",
        "/scan_type",
        "/created_at",
        "/started_at",
        "/finished_at",
        "/keys_scanned",
        "/keys_reclaimed",
    ],
    columns: &[
        Column::whole("id", |task| text(&task["id"])),
        Column::elastic("instance", |task| text(&task["instance_name"])),
        Column::whole("status", status_text),
        Column::whole("scan", |task| text(&task["scan_type"])),
        Column::whole("created", |task| time(&task["created_at"])),
        Column::whole("finished", |task| time(&task["finished_at"])),
        Column::whole("reclaimed", |task| count(&task["keys_reclaimed"])),
    ],
};

/// The list of tasks of one instance.
const LIST_OF_ONE: List<'static> = List {
    fields: &["/id", "/status", "/scan_type", "/created_at", "/started_at", "/finished_at", "/num"],
    columns: &[
        Column::whole("id", |task| text(&task["id"])),
        Column::whole("status", |task| text(&task["status"])),
        Column::whole("scan", |task| text(&task["scan_type"])),
        Column::whole("created", |task| time(&task["created_at"])),
        Column::whole("finished", |task| time(&task["finished_at"])),
        Column::whole("reclaimed", |task| count(&task["num"])),
    ],
};

/// Runs the command and returns its exit code.
pub fn run(args: &TaskArgs) -> Exit {
    try_run(args).unwrap_or_else(|error| error.report())
}

fn try_run(args: &TaskArgs) -> Result<Exit, ClientError> {
    let client = args.client.client()?;
    let json = args.client.json;
    match &args.command {
        Command::Create { instance, wait } => {
            let instance = client.instance_id(instance)?;
            let created = client.post(&client.dcs(&format!("instances/{instance}/scan-expire-keys-task")))?;
            let id = text(&created["id"]);
            if *wait {
                term::note(&format!("task {id}"));
                return watch(&client, &id, json, Some(Instant::now()));
            }
            match json {
                true => term::json(&created),
                false => term::line(&format!("task {id} is {}", text(&created["status"]))),
            }
        }
        Command::List { instance: None, status, limit, since, labels, listing, .. } => {
            let mut parameters = label_parameters(labels);
            parameters.push(("limit", limit.to_string()));
            parameters.extend(status.map(|status| ("status", status.to_string())));
            parameters.extend(since.map(|since| ("since", since.to_string())));
            let page = client.get(&client.native(&format!("tasks{}", query(&parameters))))?;
            let tasks = page["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
            listing.print(json, &page, tasks, &LIST);
        }
        Command::List { instance: Some(instance), status, limit, offset, listing, .. } => {
            let instance = client.instance_id(instance)?;
            let status = status.map_or_else(String::new, |status| format!("&status={status}"));
            let query = format!("?offset={offset}&limit={limit}{status}");
            let page = client.get(&client.dcs(&format!("instances/{instance}/auto-expire/histories{query}")))?;
            let tasks = page["records"].as_array().map(Vec::as_slice).unwrap_or_default();
            if listing.print(json, &page, tasks, &LIST_OF_ONE) {
                let (listed, total) = (tasks.len(), count(&page["count"]));
                term::line(&format!("{listed} of {total} tasks; {} keys reclaimed in total", count(&page["total"])));
            }
        }
        Command::Show { task } => {
            let task = client.get(&address(&client, task)?)?;
            if json { term::json(&task) } else { show(&task) }
        }
        Command::Watch { task } => return watch(&client, task, json, None),
        Command::Cancel { task } => {
            let task = client.post(&format!("{}/cancel", address(&client, task)?))?;
            match json {
                true => term::json(&task),
                false if is_over(&task) => term::line(&format!("task is {}", status_text(&task))),
                false => term::line("cancellation requested; the task stops after its current slice"),
            }
        }
    }
    Ok(Exit::Done)
}

fn address(client: &Client, task: &str) -> Result<String, ClientError> {
    match is_id(task) {
        true => Ok(client.native(&format!("tasks/{task}"))),
        false => Err(ClientError::usage(format!(
            "invalid task ID {task:?}: expected 32 hex digits; `keysweep task list INSTANCE` lists them"
        ))),
    }
}

/// Shows a task until it finishes, through restarts of the service, and returns its exit code. `seen_at`: time of the last
/// successful response; with `None` the first error ends the watching.
fn watch(client: &Client, task: &str, json: bool, mut seen_at: Option<Instant>) -> Result<Exit, ClientError> {
    let address = address(client, task)?;
    let stop =
        stop_on_signals().map_err(|error| ClientError::failed(format!("cannot install signal handlers: {error}")))?;
    let live = term::Live::new();
    let mut warned = false;
    let task = loop {
        match client.get(&address) {
            Ok(task) if is_over(&task) => break task,
            Ok(task) => {
                (seen_at, warned) = (Some(Instant::now()), false);
                if let Ok(progress) = serde_json::from_value::<Progress>(task["progress"].clone()) {
                    live.show(&progress);
                }
            }
            Err(error) if error.transient && seen_at.is_some_and(|seen| seen.elapsed() < RECONNECT_TIMEOUT) => {
                if !warned {
                    live.note(&format!("{}; retrying for a minute", error.message));
                }
                warned = true;
            }
            Err(error) => {
                live.finish();
                return Err(error);
            }
        }
        if stop.is_raised() {
            live.finish();
            term::note("stopped watching; the task continues (cancel it with `keysweep task cancel`)");
            return Ok(Exit::Interrupted);
        }
        stop.wait_until(Instant::now() + POLL_INTERVAL);
    };
    live.finish();
    if json {
        term::json(&task)
    } else {
        show(&task)
    }
    if let Some(message) = task["reason"]["message"].as_str() {
        term::error(message);
    }
    Ok(outcome(&task))
}

/// Returns whether a task has finished.
pub(super) fn is_over(task: &Value) -> bool {
    task["status"].as_str().and_then(|name| name.parse::<Status>().ok()).is_some_and(|status| !status.is_active())
}

/// Returns the exit code of a finished task; a failure has the code `keysweep scan` would have.
pub(super) fn outcome(task: &Value) -> Exit {
    let reason = task["reason"]["code"].as_str().map(|code| Reason::from(code.to_owned()));
    match reason {
        None if task["status"] == Status::Success.as_str() => Exit::Done,
        Some(Reason::Timeout) => Exit::Timeout,
        Some(Reason::Unreachable) => Exit::CannotConnect,
        Some(Reason::Denied) => Exit::Denied,
        Some(Reason::Unsupported) => Exit::Unsupported,
        Some(Reason::Incomplete) => Exit::Incomplete,
        None | Some(Reason::Cancelled | Reason::Refused | Reason::Crashed | Reason::Internal | Reason::Other(_)) => {
            Exit::Failed
        }
    }
}

/// Formats the status of a task, with the reason of a failure.
pub(super) fn status_text(task: &Value) -> String {
    match task["reason"]["code"].as_str() {
        Some(code) => format!("{} ({code})", text(&task["status"])),
        None => text(&task["status"]),
    }
}

fn show(task: &Value) {
    let exactness = if task["exact"] == true { "exact" } else { "lower bound" };
    let mut rows = vec![
        ("task", text(&task["id"])),
        ("instance", text(&task["instance_id"])),
        ("status", status_text(task)),
        (
            "triggered by",
            match task["requested_by"].as_str() {
                Some(name) => name.to_owned(),
                None if task["scan_type"] == "auto" => "the schedule".into(),
                None => "-".into(),
            },
        ),
        ("created", time(&task["created_at"])),
        ("started", time(&task["started_at"])),
        ("finished", time(&task["finished_at"])),
    ];
    let found = serde_json::from_value::<Report>(task["report"].clone()).ok();
    if found.is_none() {
        let done = task["progress"]["fraction"].as_f64();
        rows.push(("progress", done.map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0))));
        rows.push(("keys scanned", count(&task["keys_scanned"])));
        rows.push(("keys reclaimed", format!("{}  ({exactness})", count(&task["keys_reclaimed"]))));
    }
    term::pairs(rows);
    if let Some(found) = found {
        term::line("");
        report::print(&found);
    }
}
