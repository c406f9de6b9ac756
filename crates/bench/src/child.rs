//! Runs a contestant that is a program and measures its time, CPU and peak memory with the kernel's own counters.

use std::{
    env,
    fs::{self, File},
    io::Read as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use wait4::Wait4 as _;

/// Interval at which the program's peak memory is read. The kernel keeps the peak, so only the last read before the program
/// exits matters, and a read costs microseconds.
const MEMORY_INTERVAL: Duration = Duration::from_millis(5);

/// Result of one program run.
pub struct Finished {
    /// Standard output, if it was kept.
    pub stdout: Vec<u8>,
    /// Start of the program.
    pub began: Instant,
    /// Seconds from start to exit.
    pub wall: f64,
    /// CPU time of the program, seconds.
    pub cpu: f64,
    /// Peak resident memory, bytes; `None` if the program exited before the first read.
    pub peak_rss: Option<u64>,
}

/// Returns the path of the product's binary, which is built beside this one.
pub fn keysweep() -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("keysweep"))
}

/// Runs a program until it exits. Standard output is returned if `keep` is set and discarded otherwise.
///
/// # Errors
/// If the program cannot be started or exits with a code other than 0.
pub fn run(command: &mut Command, keep: bool) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let null = || File::options().write(true).open("/dev/null");
    command.stdin(Stdio::null()).stderr(null()?);
    command.stdout(if keep { Stdio::piped() } else { null()?.into() });
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
    let (status, done) = (format!("/proc/{}/status", child.id()), AtomicBool::new(false));
    let (finished, peak_rss) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut peak = None;
            while !done.load(Ordering::Relaxed) {
                thread::sleep(MEMORY_INTERVAL);
                // wait4 reports a peak as well, but includes the parent's memory at the time of the fork.
                peak = fs::read_to_string(&status).ok().as_deref().and_then(high_water).max(peak);
            }
            peak
        });
        let finished = wait(&mut child, began);
        done.store(true, Ordering::Relaxed);
        (finished, reader.join().ok().flatten())
    });
    let (stdout, wall, cpu, success) = finished?;
    ensure!(success, "{name} failed: {}", String::from_utf8_lossy(&stdout));
    Ok(Finished { stdout, began, wall, cpu, peak_rss })
}

fn wait(child: &mut std::process::Child, began: Instant) -> Result<(Vec<u8>, f64, f64, bool)> {
    let mut stdout = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout)?;
    }
    let used = child.wait4().context("waiting for a program")?;
    let wall = began.elapsed().as_secs_f64();
    let cpu = used.rusage.utime + used.rusage.stime;
    Ok((stdout, wall, cpu.as_secs_f64(), used.status.success()))
}

/// Returns `VmHWM` of `/proc/PID/status` in bytes.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
