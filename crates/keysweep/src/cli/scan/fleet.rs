//! `keysweep scan --all` and `scan -l`: a task for each selected instance of a service.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use crate::{
    cli::{
        Exit,
        client::{
            Client, ClientError, ServiceArgs,
            fields::{count, text},
            label_parameters, query,
        },
        signals::stop_on_signals,
        task::{POLL_INTERVAL, RECONNECT_TIMEOUT, is_over, outcome, status_text},
        term,
    },
    model::{Label, Status},
};

/// Arguments of a scan in the foreground. Those of a task are settings of its instance.
pub(super) const OF_A_TARGET: [&str; 23] = [
    "url",
    "socket",
    "user",
    "password_file",
    "password_stdin",
    "cacert",
    "cert",
    "key",
    "sni",
    "sentinel_user",
    "sentinel_password_file",
    "sentinel_tls",
    "address_map",
    "pace",
    "max_cpu",
    "max_slice",
    "keys_per_second",
    "reclaims_per_second",
    "parallel",
    "timeout",
    "reconnect_timeout",
    "no_follow",
    "allow_clock_skew",
];

/// Tasks that one request lists, at most.
const PAGE: usize = 1_000;

/// Options that select instances of a service, instead of the URL of a target.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("fleet").args(["all", "labels"]).conflicts_with_all(OF_A_TARGET))]
pub struct FleetArgs {
    /// Instead of a URL: create a task for each instance of the project
    #[arg(long, help_heading = "Service")]
    all: bool,
    /// Instead of a URL: create a task for each instance with this label; repeatable, all must match
    #[arg(short = 'l', long = "label", value_name = "NAME=VALUE", help_heading = "Service")]
    labels: Vec<Label>,
    /// Watch the tasks until they finish, and exit with their outcome
    #[arg(long, requires = "fleet", help_heading = "Service")]
    wait: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

/// What became of one instance.
struct Scan {
    instance_id: String,
    name: String,
    outcome: Outcome,
    /// The finished task, once it was watched to its end.
    task: Option<Value>,
}

enum Outcome {
    /// A task would be created.
    Planned,
    /// A task was created.
    Created(String),
    /// The instance had an active task already.
    Active(String),
    /// No task was created, for this reason.
    Refused(String),
}

impl FleetArgs {
    /// Returns whether instances are selected.
    pub fn is_selected(&self) -> bool {
        self.all || !self.labels.is_empty()
    }

    /// Returns the selected instances, by name.
    fn instances(&self, client: &Client) -> Result<Vec<Value>, ClientError> {
        let response = client.get(&client.native(&format!("instances{}", query(&label_parameters(&self.labels)))))?;
        let instances = response["instances"].as_array().cloned().unwrap_or_default();
        if instances.is_empty() {
            let wanted = self.labels.iter().map(|label| format!(" -l {label}")).collect::<String>();
            let wanted = if wanted.is_empty() { wanted } else { format!(" with{wanted}") };
            return Err(ClientError::failed(format!(
                "no instance{wanted} in this project; `keysweep instance list` lists them with their labels"
            )));
        }
        Ok(instances)
    }
}

impl Scan {
    fn line(&self) -> String {
        match &self.outcome {
            Outcome::Planned => format!("{}: would be scanned", self.name),
            Outcome::Created(task) => format!("{}: task {task} created", self.name),
            Outcome::Active(task) => format!("{}: task {task} already active", self.name),
            Outcome::Refused(reason) => format!("{}: refused: {reason}", self.name),
        }
    }

    fn task_id(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Created(task) | Outcome::Active(task) => Some(task),
            Outcome::Planned | Outcome::Refused(_) => None,
        }
    }

    fn json(&self) -> Value {
        let (outcome, reason) = match &self.outcome {
            Outcome::Planned => ("planned", None),
            Outcome::Created(_) => ("created", None),
            Outcome::Active(_) => ("active", None),
            Outcome::Refused(reason) => ("refused", Some(reason)),
        };
        json!({
            "instance_id": self.instance_id, "name": self.name, "outcome": outcome, "task_id": self.task_id(),
            "reason": reason, "task": self.task,
        })
    }

    /// Returns the exit code of this instance alone.
    fn exit(&self) -> Exit {
        match (&self.outcome, &self.task) {
            (Outcome::Refused(_), _) => Exit::Failed,
            (_, Some(task)) => outcome(task),
            (_, None) => Exit::Done,
        }
    }
}

/// Creates a task for each selected instance, and prints a line for each.
pub fn run(args: &FleetArgs, dry_run: bool, as_json: bool) -> Exit {
    try_run(args, dry_run, as_json).unwrap_or_else(|error| error.report())
}

fn try_run(args: &FleetArgs, dry_run: bool, as_json: bool) -> Result<Exit, ClientError> {
    let client = args.service.client()?;
    let instances = args.instances(&client)?;
    let active = active_tasks(&client)?;
    let mut scans = Vec::with_capacity(instances.len());
    let mut failure = None;
    for instance in &instances {
        match scan(&client, instance, &active, dry_run) {
            Ok(scan) => {
                if !as_json {
                    term::line(&scan.line());
                }
                scans.push(scan);
            }
            Err(error) => {
                let message = format!(
                    "{}; stopped after {} of {} instances, and running the command again creates no task twice",
                    error.message,
                    scans.len(),
                    instances.len()
                );
                failure = Some(ClientError { message, ..error });
                break;
            }
        }
    }
    let mut exit = None;
    if failure.is_none() && args.wait && !dry_run {
        match watch(&client, &mut scans, as_json) {
            Ok(true) => {}
            Ok(false) => exit = Some(Exit::Interrupted),
            Err(error) => failure = Some(error),
        }
    }
    if as_json {
        term::json(&json!({ "instances": scans.iter().map(Scan::json).collect::<Vec<_>>() }));
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(exit.unwrap_or_else(|| exit_of(&scans))),
    }
}

/// Returns the exit code of all instances: that of the failures if they have the same.
fn exit_of(scans: &[Scan]) -> Exit {
    let mut failures = scans.iter().map(Scan::exit).filter(|exit| *exit != Exit::Done);
    match failures.next() {
        None => Exit::Done,
        Some(first) if failures.all(|exit| exit == first) => first,
        Some(_) => Exit::Failed,
    }
}

/// Creates the task of an instance. An error concerns the whole command: the service cannot be reached, or refuses the access key.
fn scan(
    client: &Client,
    instance: &Value,
    active: &HashMap<String, String>,
    dry_run: bool,
) -> Result<Scan, ClientError> {
    let (instance_id, name) = (text(&instance["id"]), text(&instance["name"]));
    let known = active.get(&instance_id);
    let outcome = if instance["paused"] == true {
        Outcome::Refused("the instance is paused; resume it before scanning".into())
    } else if dry_run {
        known.map_or(Outcome::Planned, |task| Outcome::Active(task.clone()))
    } else {
        match client.post(&client.dcs(&format!("instances/{instance_id}/scan-expire-keys-task"))) {
            Ok(task) if task["id"].as_str() == known.map(String::as_str) => Outcome::Active(text(&task["id"])),
            Ok(task) => Outcome::Created(text(&task["id"])),
            Err(error) if error.transient || matches!(error.exit, Exit::CannotConnect | Exit::Denied) => {
                return Err(error);
            }
            Err(error) => Outcome::Refused(error.message),
        }
    };
    Ok(Scan { instance_id, name, outcome, task: None })
}

/// Returns the active tasks of the project, by instance.
fn active_tasks(client: &Client) -> Result<HashMap<String, String>, ClientError> {
    let mut active = HashMap::new();
    for status in [Status::Waiting, Status::Running] {
        let mut before = None;
        loop {
            let mut parameters = vec![("status", status.to_string()), ("limit", PAGE.to_string())];
            parameters.extend(before.map(|seq: i64| ("before", seq.to_string())));
            let page = client.get(&client.native(&format!("tasks{}", query(&parameters))))?;
            let tasks = page["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
            active.extend(tasks.iter().map(|task| (text(&task["instance_id"]), text(&task["id"]))));
            before = tasks.last().and_then(|task| task["seq"].as_i64());
            if tasks.len() < PAGE {
                break;
            }
        }
    }
    Ok(active)
}

/// Watches the tasks until all have finished, through restarts of the service, and prints a line for each. Returns false if a
/// signal ended the watching before.
fn watch(client: &Client, scans: &mut [Scan], as_json: bool) -> Result<bool, ClientError> {
    let stop =
        stop_on_signals().map_err(|error| ClientError::failed(format!("cannot install signal handlers: {error}")))?;
    let (mut seen_at, mut warned) = (Instant::now(), false);
    loop {
        match take_finished(client, scans, as_json) {
            Ok(true) => return Ok(true),
            Ok(false) => (seen_at, warned) = (Instant::now(), false),
            Err(error) if error.transient && seen_at.elapsed() < RECONNECT_TIMEOUT => {
                if !warned {
                    term::note(&format!("{}; retrying for a minute", error.message));
                }
                warned = true;
            }
            Err(error) => return Err(error),
        }
        if stop.is_raised() {
            term::note("stopped watching; the tasks continue (`keysweep task list` shows them)");
            return Ok(false);
        }
        stop.wait_until(Instant::now() + POLL_INTERVAL);
    }
}

/// Reads the tasks that have finished since the last call, and returns whether all have.
fn take_finished(client: &Client, scans: &mut [Scan], as_json: bool) -> Result<bool, ClientError> {
    let active: BTreeSet<String> = active_tasks(client)?.into_values().collect();
    let mut is_done = true;
    for scan in scans.iter_mut().filter(|scan| scan.task.is_none()) {
        let Some(id) = scan.task_id() else { continue };
        if active.contains(id) {
            is_done = false;
            continue;
        }
        let task = client.get(&client.native(&format!("tasks/{id}")))?;
        // The list was read before a claim and the next page after it.
        if !is_over(&task) {
            is_done = false;
            continue;
        }
        if !as_json {
            let why = task["reason"]["message"].as_str().map(|message| format!(": {message}")).unwrap_or_default();
            let reclaimed = count(&task["keys_reclaimed"]);
            term::line(&format!("{}: {}, {reclaimed} keys reclaimed{why}", scan.name, status_text(&task)));
        }
        scan.task = Some(task);
    }
    Ok(is_done)
}
