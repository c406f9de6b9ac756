//! Ctrl-C, SIGTERM and a terminal that is closed: the first of them asks for an orderly end, the second does not wait
//! for one.

use std::{fs, io, process, thread};

use keysweep_engine::Stop;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::Exit;

/// A stop that the first signal raises; the second ends the program.
pub fn stop_on_signals() -> io::Result<Stop> {
    stop_on_signals_or(|| ())
}

/// The same, with something that the second signal must not leave undone.
pub fn stop_on_signals_or(last_act: impl FnOnce() + Send + 'static) -> io::Result<Stop> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !ignores_hang_up() {
        signals.add_signal(SIGHUP)?;
    }
    let stop = Stop::new();
    let raised = stop.clone();
    thread::Builder::new().name("keysweep-signals".into()).spawn(move || {
        let mut heard = signals.forever();
        if heard.next().is_some() {
            raised.raise();
        }
        if heard.next().is_some() {
            last_act();
            process::exit(Exit::Interrupted as i32);
        }
    })?;
    Ok(stop)
}

/// Whether whoever started us wants us to outlive the terminal, as `nohup` does. Where the system does not tell: no.
fn ignores_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}
