//! `keysweep restore`: restores the servers' own settings from the file in which they were recorded.

use std::{
    collections::BTreeSet,
    net::ToSocketAddrs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use keysweep_engine::{Address, BaselineRecord, BaselineRegistry, Failure, Restored, Stop, Target, restore};

use super::{
    Exit,
    hold::{reserve, restore_file},
    login::Login,
    term,
};
use crate::{
    hold::{NotReserved, RestoreFile, recovery::Forget},
    inventory::{Inventory, InventoryError},
};

/// Targets that an error names, at most.
const NAMED: usize = 10;
/// How long to try to reach each server.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Arguments of `keysweep restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// URL of the target that was held; its user and password are used, and those in the file have none
    #[arg(required_unless_present_any = ["all", "socket"], conflicts_with = "all")]
    url: Option<String>,
    /// Restore every server in the file
    #[arg(long)]
    all: bool,
    /// Take user, password and TLS files of each server from this inventory (YAML)
    #[arg(long, value_name = "FILE", requires = "all")]
    inventory: Option<PathBuf>,
    #[command(flatten)]
    login: Login,
    /// The file in which the servers' own settings were recorded [default: restore.json in the data folder]
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    file: Option<PathBuf>,
    /// Folder of restore.json [default: $XDG_DATA_HOME/keysweep]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Remove the records of restored servers, so that values found later count as their own
    #[arg(long)]
    forget: bool,
    /// Also remove the records of servers that cannot be reached, which are gone for good
    #[arg(long, conflicts_with = "forget")]
    forget_all: bool,
}

/// Restores and prints what became of each server.
pub fn run(args: &RestoreArgs) -> Exit {
    let file = match &args.file {
        Some(path) => Ok(RestoreFile::at(path)),
        None => restore_file(args.data_dir.as_ref()),
    };
    let records = file.and_then(|file| Ok((file.records().map_err(anyhow::Error::msg)?, file)));
    let (records, file) = match records {
        Ok(found) => found,
        Err(error) => {
            term::error(&format!("{error:#}"));
            return Exit::Usage;
        }
    };
    let known = match args.inventory.as_deref().map_or_else(|| Ok(Vec::new()), targets_of) {
        Ok(known) => known,
        Err(error) => {
            term::error(&error.to_string());
            return Exit::Usage;
        }
    };
    let urls: Vec<Option<&str>> = match args.all {
        true => records.iter().map(|record| Some(record.target.as_str())).collect(),
        false => vec![args.url.as_deref()],
    };
    let (targets, stop) = match args.login.prepare_each(&urls) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let chosen: Vec<(&BaselineRecord, Result<&Target, &String>)> = match (args.all, &targets[..]) {
        (false, [Ok(target)]) => of_target(&records, target).map(|record| (record, Ok(target))).collect(),
        (false, [Err(sentence), ..]) => {
            term::error(sentence);
            return Exit::Usage;
        }
        _ => {
            let of_inventory = |record: &BaselineRecord| known.iter().find(|one| one.to_string() == record.target);
            records
                .iter()
                .zip(&targets)
                .map(|(one, target)| (one, of_inventory(one).map_or(target.as_ref(), Ok)))
                .collect()
        }
    };
    if chosen.is_empty() {
        return nothing_chosen(&records, &file);
    }
    let forget = Forget::of(args.forget, args.forget_all);
    let mut exit = Exit::Done;
    for (record, target) in chosen {
        // An option that does not fit one server keeps no other one from being restored.
        let restored = target
            .map_err(|cause| format!("{}: {cause}; nothing was restored", record.address))
            .and_then(|target| restore_one(&file, record, target, forget, &stop));
        if let Err(cause) = restored {
            term::error(&cause);
            exit = Exit::Failed;
        }
    }
    exit
}

/// Restores one server, unless another process holds it, prints and records that.
fn restore_one(
    file: &RestoreFile,
    listed: &BaselineRecord,
    target: &Target,
    forget: Forget,
    stop: &Stop,
) -> Result<(), String> {
    let dialer = target
        .dialer()
        .map_err(|error| format!("{}: {}; nothing was restored", listed.address, Failure::from(error).message))?;
    let (restored, reserved) = restore(&*dialer, target, &listed.address, &stop.within(Some(TIMEOUT)), |server| {
        let reservation = match reserve(file, server) {
            Ok(reservation) => Some(reservation),
            Err(refusal @ NotReserved::Held { .. }) => return Err(refusal.to_string()),
            // A copy of the file may be where nothing can be written. The server is to have its own settings all the same.
            Err(refusal @ NotReserved::Folder { .. }) => {
                term::note(&format!("{}: {refusal}; no other keysweep is kept from this server", listed.address));
                None
            }
        };
        // Another process may have written, or restored and forgotten the server, since the records were listed.
        let record = file.find(&listed.address)?.ok_or("its record was removed meanwhile")?;
        Ok((reservation, record))
    });
    let Some((_reservation, record)) = reserved.filter(|_| restored.is_done()) else {
        return leave(file, listed, &restored, forget);
    };
    term::line(&restored.to_string());
    match forget {
        Forget::Nothing => file.save(&restored.recorded(&record)),
        Forget::Restored | Forget::Everything => file.remove(&record.address),
    }
}

/// Says of a server that was not restored what becomes of its record. It is no failure that one is gone which had its own settings
/// when it was reached last.
fn leave(file: &RestoreFile, listed: &BaselineRecord, restored: &Restored, forget: Forget) -> Result<(), String> {
    if forget.gives_up(restored) {
        // Another holder may have reached it, and know what it wrote from this record alone.
        let _reservation =
            reserve(file, &listed.process()).map_err(|refusal| format!("{}: {refusal}", listed.address))?;
        file.remove(&listed.address)?;
        term::line(&format!("{restored}; its record was removed"));
        return Ok(());
    }
    if !listed.is_restored || !restored.is_unreached() {
        return Err(restored.to_string());
    }
    term::note(&format!("{restored}; it had its own settings when it was reached last"));
    Ok(())
}

/// Returns the records of a target: of all its servers, where it is named as it was held, or by the address of one of them.
fn of_target<'a>(records: &'a [BaselineRecord], target: &Target) -> impl Iterator<Item = &'a BaselineRecord> {
    let (name, seed) = (target.to_string(), target.seed());
    let is_named = |record: &&BaselineRecord| record.target == name || is_same_server(&record.address, seed);
    let names: BTreeSet<&str> = records.iter().filter(is_named).map(|record| record.target.as_str()).collect();
    records.iter().filter(move |record| names.contains(record.target.as_str()))
}

/// Whether two addresses are those of one server, whose host may have several names.
fn is_same_server(one: &Address, other: &Address) -> bool {
    let resolve = |host: &str, port: u16| (host, port).to_socket_addrs().map(Vec::from_iter).unwrap_or_default();
    match (one, other) {
        (Address::Tcp { host: one, port }, Address::Tcp { host: other, port: same })
            if one != other && port == same =>
        {
            let found = resolve(other, *port);
            !found.is_empty() && resolve(one, *port).iter().any(|address| found.contains(address))
        }
        _ => one == other,
    }
}

/// Says that no record fits, which is a failure while servers of other targets are to be restored: one of them may be meant.
fn nothing_chosen(records: &[BaselineRecord], file: &RestoreFile) -> Exit {
    let path = file.path().display();
    let left: BTreeSet<&str> =
        records.iter().filter(|record| !record.is_restored).map(|record| record.target.as_str()).collect();
    if left.is_empty() {
        term::note(&format!("{path} has no record of it: nothing to restore"));
        return Exit::Done;
    }
    let names: Vec<&str> = left.iter().copied().take(NAMED).collect();
    let more = if left.len() > NAMED { format!(" and {} more", left.len() - NAMED) } else { String::new() };
    term::error(&format!(
        "{path} has no record of it, but servers of {}{more} are to be restored: name one of these, or use --all",
        names.join(", ")
    ));
    Exit::Failed
}

/// Returns the targets of an inventory, with their credentials.
fn targets_of(path: &Path) -> Result<Vec<Target>, InventoryError> {
    Inventory::read(path)?.entries.iter().map(|entry| entry.target()).collect()
}
