//! `keysweep hold`: holds the stale share of a target below a percentage, in the foreground, and restores the servers' own
//! settings at the end.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use keysweep_engine::{
    Address, BaselineRegistry, Change, Failure, FailureKind, HoldPolicy, HoldState, HoldStatus, Holder, HolderHost,
    Mode, NodeStatus, Options, Outcome, Reservation, ServerProcess, Stop, Target, sweep,
};

use super::{
    Exit,
    login::{Login, with_options},
    scan::percent,
    term,
};
use crate::{
    config::data_folder,
    hold::{NotReserved, RestoreFile},
    units::duration,
};

/// Arguments of `keysweep hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// URL of the target, as for scan: a server, a cluster, or a primary behind Sentinels
    #[arg(required_unless_present = "socket", conflicts_with = "socket")]
    url: Option<String>,
    #[command(flatten)]
    login: Login,
    /// Share of all keys below which the stale keys are held, in percent, from 2 to 30
    #[arg(long, value_name = "PERCENT", value_parser = below, default_value = "10")]
    below: f64,
    /// Whether to write settings (hold) or only to say which would hold the target (advise)
    #[arg(long, value_name = "LEVEL", value_parser = ["advise", "hold"], default_value = "hold")]
    level: String,
    /// Highest active-expire-effort to write
    #[arg(long, value_name = "N", default_value = "7")]
    max_effort: u8,
    /// Highest hz to write, at most 100 [default: hz is not written]
    #[arg(long, value_name = "N")]
    max_hz: Option<u32>,
    /// Longest time that a cycle may block clients beyond today's, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value = "1")]
    max_added_stall: f64,
    /// CPU that the cycle may take beyond today's, in percent of a core
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "3")]
    max_added_cpu: f64,
    /// Time between two observations
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    interval: Duration,
    /// Time without another write after each write, at least
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    settle_floor: Duration,
    /// Stop and restore after this time, for example 8h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Folder of restore.json, which records the servers' own settings [default: $XDG_DATA_HOME/keysweep]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl HoldArgs {
    fn policy(&self) -> Result<HoldPolicy, String> {
        let policy = HoldPolicy {
            level: self.level.parse()?,
            below: self.below,
            max_effort: self.max_effort,
            max_hz: self.max_hz,
            max_added_stall_ms: self.max_added_stall,
            max_added_cpu: self.max_added_cpu,
            interval_seconds: self.interval.as_secs(),
            settle_floor_seconds: self.settle_floor.as_secs(),
        };
        policy.validated().map_err(|error| error.to_string())
    }
}

/// Parses a target in percent, which the engine takes as a share.
fn below(text: &str) -> Result<f64, String> {
    let share =
        percent(text).ok().filter(|share| HoldPolicy { below: *share, ..HoldPolicy::default() }.validated().is_ok());
    share.ok_or_else(|| "expected a percentage from 2 to 30".to_owned())
}

/// Returns the folder of `restore.json`.
///
/// # Errors
/// There is no default, or the folder cannot be created.
pub fn restore_file(folder: Option<&PathBuf>) -> anyhow::Result<RestoreFile> {
    match folder {
        Some(folder) => RestoreFile::in_folder(folder),
        None => RestoreFile::in_folder(&data_folder()?),
    }
}

/// Reserves a server for a command, at its address and at any other one of the same process: a host may have several names. A
/// service goes by addresses alone, since one project may register a server that claims the run ID of another project's.
///
/// # Errors
/// Another process holds the server, or the folder of the file cannot be written to.
pub fn reserve(file: &RestoreFile, server: &ServerProcess) -> Result<Reservation, NotReserved> {
    let by_address = file.reserve(server)?;
    if server.run_id.is_empty() {
        return Ok(by_address);
    }
    let by_run_id = file.reserve(&ServerProcess { address: String::new(), run_id: server.run_id.clone() })?;
    Ok(Box::new((by_address, by_run_id)))
}

/// Holds until Ctrl-C or SIGTERM, then restores the servers' own settings.
pub fn run(args: &HoldArgs) -> Exit {
    let policy = match args.policy() {
        Ok(policy) => policy,
        Err(sentence) => {
            term::error(&sentence);
            return Exit::Usage;
        }
    };
    let (target, stop) = match args.login.prepare(args.url.as_deref()) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let stop = stop.within(args.timeout);
    let file = match restore_file(args.data_dir.as_ref()) {
        Ok(file) => file,
        Err(error) => {
            term::error(&format!("{error:#}"));
            return Exit::Usage;
        }
    };
    let dialer = match target.dialer().map_err(Failure::from) {
        Ok(dialer) => dialer,
        Err(failure) => return refuse(&failure),
    };
    let host = Foreground { file, target: target.clone(), stop: stop.clone(), scans: Mutex::default() };
    let (mut holder, mut shown) = (Holder::new(policy), BTreeMap::new());
    let (mut refusal, mut noted, mut unreached) = (None, None, None);
    while !stop.is_raised() {
        let begun = Instant::now();
        match holder.round(&*dialer, &target, &host, &stop) {
            Ok(()) => (noted, unreached) = (None, None),
            Err(failure) if stop.is_raised() => {
                unreached = unreached.or(Some(failure)).filter(|_| holder.statuses().is_empty());
            }
            Err(failure) if holder.statuses().is_empty() && failure.kind != FailureKind::Unreachable => {
                refusal = Some(failure);
                break;
            }
            Err(failure) => {
                // Once, for as long as it lasts.
                let note = with_options(&failure.message);
                if noted.as_ref() != Some(&note) {
                    term::note(&note);
                }
                noted = Some(note);
                unreached = Some(failure).filter(|_| holder.statuses().is_empty());
            }
        }
        show(&holder.statuses(), &mut shown);
        stop.wait_until(begun + policy.interval());
    }
    let restored = holder.finish(&*dialer, &target, &host);
    for one in &restored {
        term::line(&one.to_string());
    }
    // Where no server was ever found, nothing was held either.
    if let Some(failure) = refusal.or(unreached) {
        return refuse(&failure);
    }
    match restored.iter().all(keysweep_engine::Restored::is_done) {
        true => Exit::Done,
        false => {
            term::error(&format!(
                "not every server has its own settings; run: keysweep restore --all --file {}",
                host.file.path().display()
            ));
            Exit::Failed
        }
    }
}

fn refuse(failure: &Failure) -> Exit {
    term::error(&with_options(&failure.message));
    Exit::from(failure.kind)
}

/// Prints the servers whose state or sentence has changed.
fn show(statuses: &[NodeStatus], shown: &mut BTreeMap<Address, (HoldState, String)>) {
    for NodeStatus { address, status: HoldStatus { state, sentence, .. } } in statuses {
        let line = (*state, digits_removed(sentence));
        if shown.get(address) != Some(&line) {
            term::line(&format!("{address}: {}: {sentence}", state.as_str()));
            shown.insert(address.clone(), line);
        }
    }
}

/// Returns a sentence without its numbers, which change in every round.
fn digits_removed(sentence: &str) -> String {
    sentence.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The process in the foreground: records go to the file, scans run in threads.
struct Foreground {
    file: RestoreFile,
    target: Target,
    stop: Stop,
    scans: Mutex<HashMap<Address, Arc<AtomicBool>>>,
}

impl HolderHost for Foreground {
    fn registry(&self) -> &dyn BaselineRegistry {
        &self.file
    }

    fn may_write(&self) -> bool {
        true
    }

    fn reserve(&self, server: &ServerProcess, _: bool) -> Result<Reservation, String> {
        reserve(&self.file, server).map_err(|refusal| refusal.to_string())
    }

    fn scan(&self, address: &Address) {
        let is_running = Arc::new(AtomicBool::new(true));
        self.scans.lock().unwrap_or_else(PoisonError::into_inner).insert(address.clone(), Arc::clone(&is_running));
        let target = Target { seeds: vec![address.clone()], mode: Mode::Server, follow: false, ..self.target.clone() };
        let stop = self.stop.clone();
        thread::spawn(move || {
            let report = sweep(&target, &Options::default(), &(), &stop);
            let sentence = match (report.outcome, report.message) {
                (Outcome::Done, _) => {
                    format!("scanned {} keys, reclaimed {}", report.totals.keys_scanned, report.totals.keys_reclaimed)
                }
                (Outcome::Failed, message) => format!("the scan failed: {}", message.unwrap_or_default()),
            };
            term::line(&format!("{}: {sentence}", target.seed()));
            is_running.store(false, Ordering::Release);
        });
    }

    fn is_scanning(&self, address: &Address) -> bool {
        let scans = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
        scans.get(address).is_some_and(|is_running| is_running.load(Ordering::Acquire))
    }

    fn changed(&self, Change { address, from, to, .. }: &Change) {
        term::line(&format!(
            "{address}: active-expire-effort {} → {}, hz {} → {}",
            from.effort, to.effort, from.hz, to.hz
        ));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use keysweep_engine::HoldLevel;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        args: HoldArgs,
    }

    #[test]
    fn a_server_is_reserved_once_whatever_its_address_unless_it_has_no_run_id() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = RestoreFile::in_data(folder.path());
        let ask = |address: &str, run_id: &str| {
            reserve(&file, &ServerProcess { address: address.to_owned(), run_id: run_id.to_owned() })
        };
        let held = ask("127.0.0.1:6379", "abc").expect("reserved");
        let refused = ask("10.0.0.5:6379", "abc").err().expect("the same process").to_string();
        assert!(refused.contains("another keysweep") && refused.contains("holds this server"), "{refused}");
        assert!(ask("10.0.0.5:6379", "def").is_ok(), "another process");
        let _without = ask("10.0.0.6:6379", "").expect("reserved");
        assert!(ask("10.0.0.7:6379", "").is_ok(), "a server without a run ID blocks no other one");
        drop(held);
        assert!(ask("10.0.0.5:6379", "abc").is_ok());
    }

    fn policy(line: &str) -> Result<HoldPolicy, String> {
        TestCli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?.args.policy()
    }

    #[test]
    fn every_limit_on_the_command_line_reaches_the_engine() {
        let found = policy(
            "hold redis://h --below 8% --level advise --max-effort 9 --max-hz 30 --max-added-stall 0.5 \
             --max-added-cpu 2 --interval 5s --settle-floor 15s",
        );
        let expected = HoldPolicy {
            level: HoldLevel::Advise,
            below: 0.08,
            max_effort: 9,
            max_hz: Some(30),
            max_added_stall_ms: 0.5,
            max_added_cpu: 0.02,
            interval_seconds: 5,
            settle_floor_seconds: 15,
        };
        assert_eq!(found, Ok(expected));
        let default = HoldPolicy { level: HoldLevel::Hold, ..HoldPolicy::default() };
        assert_eq!(policy("hold redis://h"), Ok(default));
        for typed in ["1", "80", "8%%"] {
            let error = policy(&format!("hold redis://h --below {typed}")).expect_err(typed);
            let expected =
                format!("invalid value '{typed}' for '--below <PERCENT>': expected a percentage from 2 to 30");
            assert!(error.contains(&expected), "{error}");
        }
    }
}
