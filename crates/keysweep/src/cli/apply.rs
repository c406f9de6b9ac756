//! `keysweep apply`: makes the instances of a project at a service those of an inventory.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stdin},
    path::PathBuf,
};

use clap::{Args, ValueHint};
use serde_json::{Map, Value, json};

use super::{
    Exit,
    client::{Client, ClientArgs, ClientError, fields::text},
    term,
};
use crate::{
    instances::{Connection, ListedInstance},
    inventory::Inventory,
};

/// Largest request that a service reads, in bytes.
const MAX_REQUEST: usize = 1024 * 1024;

/// Arguments of `keysweep apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The inventory (YAML), as for survey
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Remove instances of the project that the inventory does not list, with their tasks
    #[arg(long)]
    prune: bool,
    /// Show what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Apply without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

/// Runs the command and returns its exit code.
pub fn run(args: &ApplyArgs) -> Exit {
    try_run(args).unwrap_or_else(|error| error.report())
}

fn try_run(args: &ApplyArgs) -> Result<Exit, ClientError> {
    // Everything that can be checked here is, before the service is asked.
    let instances = instances(args)?;
    let client = args.client.client()?;
    let mut request = json!({ "instances": instances, "prune": args.prune, "dry_run": true });
    let plan = send(&client, &request)?;
    let as_json = args.client.json;
    if !as_json {
        print(&plan);
    }
    let changes = Changes::of(&plan);
    if args.dry_run || changes.is_none() {
        if as_json {
            term::json(&plan);
        } else if changes.is_none() {
            term::line("nothing to change");
        }
        return Ok(Exit::Done);
    }
    if !args.yes && !is_confirmed(&changes)? {
        term::note("nothing was changed");
        return Ok(Exit::Failed);
    }
    request["dry_run"] = false.into();
    // The service applies exactly what was shown, or refuses.
    request["plan"] = plan["plan"].clone();
    let applied = send(&client, &request)?;
    match as_json {
        true => term::json(&applied),
        false => term::line(&format!("done: {}", Changes::of(&applied).past())),
    }
    Ok(Exit::Done)
}

/// Reads the inventory with its secrets, as the service takes them. All entries that cannot be used are in the error.
fn instances(args: &ApplyArgs) -> Result<Vec<Value>, ClientError> {
    let inventory = Inventory::read(&args.file).map_err(|error| ClientError::usage(error.to_string()))?;
    let (mut instances, mut errors) = (Vec::with_capacity(inventory.entries.len()), Vec::new());
    for entry in &inventory.entries {
        match entry.listed_instance() {
            Ok(listed) => instances.push(body(listed)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    match errors.is_empty() {
        true => Ok(instances),
        false => Err(ClientError::usage(errors.join("\n"))),
    }
}

fn body(listed: ListedInstance) -> Value {
    let ListedInstance { name, url, username, password, connection, labels } = listed;
    let labels: BTreeMap<String, String> = labels.as_map().clone();
    without_nulls(json!({
        "name": name, "url": url, "username": username, "password": password.as_ref().map(|secret| secret.expose()),
        "labels": labels, "connection": connection_body(&connection),
    }))
}

fn connection_body(connection: &Connection) -> Value {
    without_nulls(json!({
        "sentinel_username": connection.sentinel_username,
        "sentinel_password": connection.sentinel_password.as_ref().map(|secret| secret.expose()),
        "ca": connection.ca, "certificate": connection.certificate,
        "key": connection.key.as_ref().map(|secret| secret.expose()),
        "server_name": connection.server_name, "address_map": connection.address_map,
        "sentinel_tls": connection.sentinel_tls,
    }))
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn send(client: &Client, request: &Value) -> Result<Value, ClientError> {
    let size = request.to_string().len();
    if size > MAX_REQUEST {
        return Err(ClientError::usage(format!(
            "invalid --file: the inventory and the files that it names make a request of {size} bytes, and a service reads at most {MAX_REQUEST}; keep only the needed certificates in each ca_file, or use several projects"
        )));
    }
    client.post_body(&client.native("inventory"), request)
}

/// Numbers of instances that a plan changes.
struct Changes {
    added: usize,
    changed: usize,
    removed: usize,
}

impl Changes {
    fn of(plan: &Value) -> Self {
        let count = |action: &str| {
            plan["instances"].as_array().into_iter().flatten().filter(|step| step["action"] == action).count()
        };
        Self { added: count("add"), changed: count("change"), removed: count("remove") }
    }

    fn is_none(&self) -> bool {
        self.added + self.changed + self.removed == 0
    }

    fn past(&self) -> String {
        format!("{} added, {} changed, {} removed", self.added, self.changed, self.removed)
    }
}

fn is_confirmed(changes: &Changes) -> Result<bool, ClientError> {
    if !stdin().is_terminal() {
        return Err(ClientError::usage(
            "standard input is not a terminal; confirm with --yes, or see the changes with --dry-run".into(),
        ));
    }
    let Changes { added, changed, removed } = changes;
    let question = format!("Add {added}, change {changed} and remove {removed} instances? (yes/no)");
    let answer = term::ask(&question, "no").map_err(|error| ClientError::failed(error.to_string()))?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Prints a line for each instance that changes or is not listed.
fn print(plan: &Value) {
    for step in plan["instances"].as_array().into_iter().flatten() {
        let name = text(&step["name"]);
        let fields = step["fields"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
        match step["action"].as_str().unwrap_or_default() {
            "add" => term::line(&format!("add {name}")),
            "change" => term::line(&format!("change {name}: {}", fields.join(", "))),
            "remove" => term::line(&format!("remove {name}, with its tasks")),
            "unlisted" => term::line(&format!("keep {name}, which the inventory does not list (--prune removes it)")),
            _ => {}
        }
    }
}
