//! `keysweep task`: scan tasks of a remote service.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use keysweep_engine::{Progress, Report};
use serde_json::Value;

use super::{
    Exit,
    client::{
        Client, ClientArgs, Refusal,
        answer::{count, text, time},
    },
    signals::stop_on_signals,
    term,
};
use crate::{
    fleet::is_id,
    model::{Reason, Status},
};

/// How often a task is looked at. Workers write once a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a service may be away from somebody who watches, as it is while it is restarted.
const AWAY_PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `keysweep task`.
#[derive(Debug, Args)]
pub struct TaskArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a scan task; where the instance has an active one, that is the answer
    Create {
        /// Name or id of the instance
        instance: String,
        /// Watch it to its end, and exit as it did
        #[arg(long)]
        wait: bool,
    },
    /// List the tasks of an instance, newest first
    List {
        /// Name or id of the instance
        instance: String,
        /// Only those in this state: waiting, running, success or failed
        #[arg(long)]
        status: Option<Status>,
        /// How many to show
        #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// How many of the newest to leave out
        #[arg(long, value_name = "N", default_value = "0")]
        offset: u32,
    },
    /// Show a task: its progress while it runs, its report once it has ended
    Show {
        /// The task's id
        task: String,
    },
    /// Watch a task to its end, and exit as it did; Ctrl-C ends the watching, not the task
    Watch {
        /// The task's id
        task: String,
    },
    /// Cancel a task; what was released stays released
    Cancel {
        /// The task's id
        task: String,
    },
}

/// Does what was typed.
pub fn run(args: &TaskArgs) -> Exit {
    carry_out(args).unwrap_or_else(|refusal| refusal.tell())
}

fn carry_out(args: &TaskArgs) -> Result<Exit, Refusal> {
    let client = args.client.client()?;
    let json = args.client.json;
    match &args.verb {
        Verb::Create { instance, wait } => {
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
        Verb::List { instance, status, limit, offset } => {
            let instance = client.instance_id(instance)?;
            let status = status.map_or_else(String::new, |status| format!("&status={status}"));
            let query = format!("?offset={offset}&limit={limit}{status}");
            let page = client.get(&client.dcs(&format!("instances/{instance}/auto-expire/histories{query}")))?;
            if json { term::json(&page) } else { list(&page) }
        }
        Verb::Show { task } => {
            let task = client.get(&address(&client, task)?)?;
            if json { term::json(&task) } else { show(&task) }
        }
        Verb::Watch { task } => return watch(&client, task, json, None),
        Verb::Cancel { task } => {
            let task = client.post(&format!("{}/cancel", address(&client, task)?))?;
            match json {
                true => term::json(&task),
                false if is_over(&task) => term::line(&format!("the task is {}", in_a_word(&task))),
                false => term::line("the task is asked to stop; it ends after its slice"),
            }
        }
    }
    Ok(Exit::Done)
}

fn address(client: &Client, task: &str) -> Result<String, Refusal> {
    match is_id(task) {
        true => Ok(client.own(&format!("tasks/{task}"))),
        false => Err(Refusal::usage(format!(
            "{task:?} is no task's id, which are 32 hexadecimal digits; `keysweep task list INSTANCE` shows them"
        ))),
    }
}

/// Shows a task until it has ended, through restarts of the service; exits as the task did. `seen_at`: when the service was
/// last known to have it; while that is not known, the first refusal is the last.
fn watch(client: &Client, task: &str, json: bool, mut seen_at: Option<Instant>) -> Result<Exit, Refusal> {
    let address = address(client, task)?;
    let stop = stop_on_signals().map_err(|error| Refusal::absent(format!("signals cannot be caught: {error}")))?;
    let live = term::Live::new();
    let mut told = false;
    let task = loop {
        match client.get(&address) {
            Ok(task) if is_over(&task) => break task,
            Ok(task) => {
                (seen_at, told) = (Some(Instant::now()), false);
                if let Ok(progress) = serde_json::from_value::<Progress>(task["progress"].clone()) {
                    live.show(&progress);
                }
            }
            Err(refusal) if refusal.may_pass && seen_at.is_some_and(|seen| seen.elapsed() < AWAY_PATIENCE) => {
                if !told {
                    live.note(&format!("{}; trying again for a minute", refusal.sentence));
                }
                told = true;
            }
            Err(refusal) => {
                live.finish();
                return Err(refusal);
            }
        }
        if stop.is_raised() {
            live.finish();
            term::note("not watching any more; the task goes on (`keysweep task cancel` ends it)");
            return Ok(Exit::Interrupted);
        }
        stop.wait_until(Instant::now() + LOOK_EVERY);
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

fn is_over(task: &Value) -> bool {
    task["status"].as_str().and_then(|name| name.parse::<Status>().ok()).is_some_and(|status| !status.is_active())
}

/// A task that failed has the exit code that `keysweep scan` would have had.
fn outcome(task: &Value) -> Exit {
    let reason = task["reason"]["code"].as_str().map(|code| Reason::from(code.to_owned()));
    match reason {
        None if task["status"] == Status::Success.as_str() => Exit::Done,
        Some(Reason::Timeout) => Exit::Timeout,
        Some(Reason::Unreachable) => Exit::CannotConnect,
        Some(Reason::Denied) => Exit::Denied,
        Some(Reason::Unsupported) => Exit::Unsupported,
        None | Some(Reason::Cancelled | Reason::Refused | Reason::Crashed | Reason::Internal | Reason::Other(_)) => {
            Exit::Failed
        }
    }
}

fn in_a_word(task: &Value) -> String {
    match task["reason"]["code"].as_str() {
        Some(code) => format!("{} ({code})", text(&task["status"])),
        None => text(&task["status"]),
    }
}

fn list(page: &Value) {
    let tasks: Vec<&Value> = page["records"].as_array().into_iter().flatten().collect();
    let row = |task: &&Value| {
        vec![
            text(&task["id"]),
            text(&task["status"]),
            text(&task["scan_type"]),
            time(&task["created_at"]),
            time(&task["finished_at"]),
            count(&task["num"]),
        ]
    };
    let header = ["id", "status", "scan", "created", "finished", "released"];
    term::table(&header, tasks.iter().map(row).collect());
    term::line(&format!(
        "{} of {} tasks; {} keys were released by all of them",
        tasks.len(),
        count(&page["count"]),
        count(&page["total"])
    ));
}

fn show(task: &Value) {
    let exactly = if task["exact"] == true { "exactly" } else { "at least; not exact" };
    let mut rows = vec![
        ("task", text(&task["id"])),
        ("instance", text(&task["instance_id"])),
        ("status", in_a_word(task)),
        (
            "asked for by",
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
    let report = serde_json::from_value::<Report>(task["report"].clone()).ok();
    if report.is_none() {
        let done = task["progress"]["fraction"].as_f64();
        rows.push(("done", done.map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0))));
        rows.push(("keys scanned", count(&task["keys_scanned"])));
        rows.push(("keys released", format!("{}  ({exactly})", count(&task["keys_reclaimed"]))));
    }
    term::pairs(rows);
    if let Some(report) = report {
        term::line("");
        term::report(&report);
    }
}
