//! `keysweep instance`: the servers that a remote service knows.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Exit,
    client::{
        ClientArgs, Refusal,
        answer::{count, text, time, yes},
    },
    term,
};
use crate::units::size;

/// Arguments of `keysweep instance`.
#[derive(Debug, Args)]
pub struct InstanceArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the project's instances
    List,
    /// Show an instance and what was last seen of its servers
    Show {
        /// Name or id of the instance
        instance: String,
    },
}

/// Does what was typed.
pub fn run(args: &InstanceArgs) -> Exit {
    carry_out(args).unwrap_or_else(|refusal| refusal.tell())
}

fn carry_out(args: &InstanceArgs) -> Result<Exit, Refusal> {
    let client = args.client.client()?;
    let (answer, show): (Value, fn(&Value)) = match &args.verb {
        Verb::List => (client.get(&client.own("instances"))?, list),
        Verb::Show { instance } => {
            let id = client.instance_id(instance)?;
            (client.get(&client.own(&format!("instances/{id}")))?, show)
        }
    };
    if args.client.json {
        term::json(&answer)
    } else {
        show(&answer)
    }
    Ok(Exit::Done)
}

fn list(answer: &Value) {
    let row = |instance: &Value| {
        let stats = &instance["stats"];
        vec![
            text(&instance["id"]),
            text(&instance["name"]),
            text(&instance["url"]),
            server(instance),
            count(&stats["keys"]),
            memory(&stats["used_memory"]),
        ]
    };
    let rows = answer["instances"].as_array().into_iter().flatten().map(row).collect();
    term::table(&["id", "name", "url", "server", "keys", "used memory"], rows);
}

fn show(instance: &Value) {
    let stats = &instance["stats"];
    let lazyfree = match instance["manage_lazyfree"] == true {
        true => "turned on while a task runs",
        false => "left as it is",
    };
    term::pairs(vec![
        ("id", text(&instance["id"])),
        ("name", text(&instance["name"])),
        ("url", text(&instance["url"])),
        ("user", text(&instance["username"])),
        ("password", if instance["has_password"] == true { "stored".into() } else { "none".into() }),
        ("pace", text(&instance["pace"])),
        ("window", text(&instance["window"])),
        ("paused", yes(&instance["paused"])),
        ("lazyfree-lazy-expire", lazyfree.into()),
        ("server", server(instance)),
        ("mode", text(&stats["mode"])),
        ("keys", count(&stats["keys"])),
        ("keys with TTL", count(&stats["keys_with_ttl"])),
        ("used memory", memory(&stats["used_memory"])),
        ("last seen", time(&stats["seen_at"])),
    ]);
}

fn server(instance: &Value) -> String {
    let stats = &instance["stats"];
    let seen = match stats.is_object() {
        true => format!("{} {}", text(&stats["engine"]), text(&stats["engine_version"])),
        false => "not seen yet".into(),
    };
    match instance["unreachable"].as_str() {
        Some(cause) => format!("{seen}; now: {cause}"),
        None => seen,
    }
}

fn memory(bytes: &Value) -> String {
    bytes.as_u64().map_or_else(|| "-".into(), size)
}
