//! SIGINT, SIGTERM and SIGHUP: the first asks for a graceful shutdown, the second exits at once.

use std::{fs, io, process, thread};

use keysweep_engine::Stop;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::Exit;

/// Returns a stop that the first signal raises. The second signal exits the process.
///
/// # Errors
/// The signal handlers could not be installed.
pub fn stop_on_signals() -> io::Result<Stop> {
    stop_on_signals_or(|| ())
}

/// Like [`stop_on_signals`], and runs `before_exit` before the second signal exits the process.
///
/// # Errors
/// The signal handlers could not be installed.
pub fn stop_on_signals_or(before_exit: impl FnOnce() + Send + 'static) -> io::Result<Stop> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !ignores_hang_up() {
        signals.add_signal(SIGHUP)?;
    }
    let stop = Stop::new();
    let raised = stop.clone();
    thread::Builder::new().name("keysweep-signals".into()).spawn(move || {
        let mut received = signals.forever();
        if received.next().is_some() {
            raised.raise();
        }
        if received.next().is_some() {
            before_exit();
            process::exit(Exit::Interrupted as i32);
        }
    })?;
    Ok(stop)
}

/// Returns whether the process was started with SIGHUP ignored, as `nohup` does. Without /proc: false.
fn ignores_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}
